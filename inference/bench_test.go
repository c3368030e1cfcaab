package inference

import (
	"math"
	"strconv"
	"syscall"
	"testing"
	"time"

	"dreamcad/inference/camera"
	"dreamcad/inference/device/cpu"
)

// Work of one call in GFLOP, counted as the plain network does it (products and
// convolutions, 2 a multiply-add; mini-model sizes), so that savings show as speed.
const (
	unetGFLOP   = 7.99
	decodeGFLOP = 19.4
	encodeGFLOP = 6.2
)

func benchModel(b *testing.B) *Model {
	m := open(b, cpu.Options{})
	if m.Bundle.UNet.ModelChannels != 64 || m.Bundle.ImageSize != 128 {
		b.Skip("the work was counted for other sizes")
	}
	return m
}

// processor is the processor time of this process so far, all threads.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loop times f. The least processor time of a call is reported too: it means
// something on a busy machine.
func loop(b *testing.B, gflop float64, f func() error) {
	least := time.Duration(math.MaxInt64)
	for b.Loop() {
		start := processor()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		least = min(least, processor()-start)
	}
	b.ReportMetric(float64(least.Nanoseconds()), "cpu-ns/op")
	b.ReportMetric(gflop*float64(b.N)/b.Elapsed().Seconds(), "GFLOP/s")
}

// BenchmarkUNet is one guided denoising step of four views: a batch of eight.
func BenchmarkUNet(b *testing.B) {
	m := benchModel(b)
	p, err := m.Prompt("a ceramic coffee mug", "")
	if err != nil {
		b.Fatal(err)
	}
	d, err := m.Denoise(DenoiseOptions{Prompt: p, Cameras: camera.Orbit(90, 15, 360, 4), Guidance: 5, Steps: 20, Latents: m.Noise(1, 0, 4)})
	if err != nil {
		b.Fatal(err)
	}
	loop(b, unetGFLOP, func() error {
		d.next = 0
		return d.Next(b.Context())
	})
}

func BenchmarkDecode(b *testing.B) {
	m := benchModel(b)
	x := m.Noise(1, 0, 4)
	loop(b, decodeGFLOP, func() error {
		_, err := m.Decode(x, 4)
		return err
	})
}

func BenchmarkEncode(b *testing.B) {
	m := benchModel(b)
	x := make([]float32, 4*128*128*3)
	loop(b, encodeGFLOP, func() error {
		_, err := m.Encode(x, 4)
		return err
	})
}

// BenchmarkTogether is one step of several jobs in one call of the UNet; compare
// its time a job with that of one job.
func BenchmarkTogether(b *testing.B) {
	for _, n := range []int{1, 2, 4} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := benchModel(b)
			p, err := m.Prompt("a ceramic coffee mug", "")
			if err != nil {
				b.Fatal(err)
			}
			runs := make([]*Denoising, n)
			for i := range runs {
				if runs[i], err = m.Denoise(DenoiseOptions{Prompt: p, Cameras: camera.Orbit(90, 15, 360, 4), Guidance: 5, Steps: 20, Latents: m.Noise(1, 0, 4)}); err != nil {
					b.Fatal(err)
				}
			}
			loop(b, float64(n)*unetGFLOP, func() error {
				for _, d := range runs {
					d.ahead = false
				}
				return m.Ahead(runs)
			})
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/float64(n), "ms/job")
		})
	}
}
