package cpu

import (
	"fmt"
	"testing"

	"dreamcad/inference/device"
	"dreamcad/inference/device/devicetest"
)

func bind(b *testing.B, d *Device, p *device.Program, n, h, w, c int) device.Tensor {
	buf, err := d.NewBuffer(device.Shape{N: n, H: h, W: w, C: c}, device.Full)
	if err != nil {
		b.Fatal(err)
	}
	return p.Bind(buf)
}

func weight(shape ...int) *device.Param {
	n := 1
	for _, s := range shape {
		n *= s
	}
	w := devicetest.Weights{"w": {Shape: shape, Data: make([]float32, n)}}
	return &device.Param{Name: "w", Shape: shape, Tensors: []string{"w"}, Source: w}
}

func measure(b *testing.B, gflop float64, record func(d *Device, p *device.Program)) {
	d, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	p := device.NewProgram("bench")
	record(d, p)
	e, err := d.Compile(p)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := e.Run(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(gflop*float64(b.N)/b.Elapsed().Seconds(), "GFLOP/s")
}

// BenchmarkGEMM is the machine's best product with these kernels.
func BenchmarkGEMM(b *testing.B) {
	for _, n := range []int{512, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			measure(b, 2e-9*float64(n)*float64(n)*float64(n), func(d *Device, p *device.Program) {
				p.Add(&device.Linear{In: bind(b, d, p, n, 1, 1, n), Out: bind(b, d, p, n, 1, 1, n), Weight: weight(n, n)})
			})
		})
	}
}

// BenchmarkConv has the shapes of the mini model's layers.
func BenchmarkConv(b *testing.B) {
	for _, c := range []struct {
		n, size, in, out int
		up               bool
	}{{8, 16, 64, 64, false}, {8, 8, 128, 128, false}, {8, 4, 128, 128, false}, {4, 128, 32, 32, false}, {4, 64, 64, 64, false}, {4, 64, 64, 64, true}, {4, 128, 32, 3, false}} {
		b.Run(fmt.Sprintf("%dx%d_%d-%d_up=%v", c.size, c.size, c.in, c.out, c.up), func(b *testing.B) {
			out := c.size
			if c.up {
				out *= 2
			}
			measure(b, 18e-9*float64(c.n*out*out*c.in*c.out), func(d *Device, p *device.Program) {
				x := bind(b, d, p, c.n, c.size, c.size, c.in)
				y := p.Like(x, c.in)
				p.Add(&device.GroupNorm{In: x, Out: y, Gamma: weight(c.in), Beta: weight(c.in), Groups: 8, Eps: 1e-5, Silu: true})
				p.Add(&device.Conv{In: y, Out: bind(b, d, p, c.n, out, out, c.out), Weight: weight(c.out, c.in, 3, 3), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1, Upsample: c.up})
			})
		})
	}
}

// BenchmarkAttention is the self-attention of the finest level over four views.
func BenchmarkAttention(b *testing.B) {
	measure(b, 4e-9*2*1024*1024*64, func(d *Device, p *device.Program) {
		x := bind(b, d, p, 2, 1, 1024, 192)
		p.Add(&device.Attention{Q: x.Channels(0, 64), K: x.Channels(64, 64), V: x.Channels(128, 64), Out: bind(b, d, p, 2, 1, 1024, 64), Heads: 2, Scale: 0.18})
	})
}

// BenchmarkTransformer is a feed-forward part: norm, gated product, product.
func BenchmarkTransformer(b *testing.B) {
	measure(b, 2e-9*2048*(64*512+256*64), func(d *Device, p *device.Program) {
		x := bind(b, d, p, 1, 1, 2048, 64)
		y, g := p.Like(x, 64), p.Like(x, 256)
		p.Add(&device.LayerNorm{In: x, Out: y, Gamma: weight(64), Beta: weight(64), Eps: 1e-5})
		p.Add(&device.Linear{In: y, Out: g, Weight: weight(512, 64), Bias: weight(512), Act: device.GEGLU})
		p.Add(&device.Linear{In: g, Out: x, Residual: x, Weight: weight(64, 256)})
	})
}
