//go:build cuda

package cuda

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"dreamcad/inference/device"
)

// TestSpeed prints the time of the full network's main operations (batch 8), each as a graph of 20 in a row.
// It asserts nothing and runs only with BENCH_GPU=1.
func TestSpeed(t *testing.T) {
	if os.Getenv("BENCH_GPU") == "" {
		t.Skip("set BENCH_GPU=1")
	}
	card := openCard(t, Options{}).(*Card)
	one := [4]int{1, 1, 1, 1}
	type row struct {
		c     opCase
		flops float64
	}
	conv := func(n, h, k, o int, up bool) row {
		f := 2 * 9 * float64(n*h*h) * float64(k*o)
		if up {
			f *= 4
		}
		return row{convCase(n, h, h, k, o, 3, 1, one, up, true), f}
	}
	linear := func(m, k, n int, act device.Activation, residual bool) row {
		f := 2 * float64(m) * float64(k) * float64(n)
		if act == device.GEGLU {
			f *= 2
		}
		return row{linearCase(m, k, n, act, residual), f}
	}
	attention := func(n, l, lk, heads int) row {
		return row{attentionCase(n, n, l, lk, heads, 64, false), 4 * float64(n) * float64(l) * float64(lk) * float64(heads*64)}
	}
	for _, r := range []row{
		linear(8192, 8192, 8192, device.None, false),
		conv(8, 32, 320, 320, false), conv(8, 32, 640, 320, false), conv(8, 32, 960, 320, false), conv(8, 32, 640, 640, false), conv(8, 16, 640, 640, true),
		conv(8, 16, 640, 640, false), conv(8, 16, 1920, 640, false), conv(8, 8, 1280, 1280, true),
		conv(8, 8, 1280, 1280, false), conv(8, 8, 2560, 1280, false), conv(8, 4, 1280, 1280, false), conv(8, 4, 2560, 1280, false),
		linear(8192, 320, 320, device.None, true), linear(8192, 320, 960, device.None, false), linear(8192, 320, 1280, device.GEGLU, false), linear(8192, 1280, 320, device.None, true),
		linear(2048, 640, 640, device.None, true), linear(2048, 640, 1920, device.None, false), linear(2048, 640, 2560, device.GEGLU, false), linear(2048, 2560, 640, device.None, true),
		linear(512, 1280, 1280, device.None, true), linear(512, 1280, 3840, device.None, false), linear(512, 1280, 5120, device.GEGLU, false), linear(512, 5120, 1280, device.None, true),
		linear(8, 1280, 1280, device.SiLU, false),
		attention(2, 4096, 4096, 5), attention(2, 1024, 1024, 10), attention(2, 256, 256, 20), attention(8, 1024, 77, 5), attention(8, 256, 77, 10),
		{groupNormCase(8, 32, 32, 320, 32, true, false), 0}, {groupNormCase(8, 32, 32, 960, 32, true, false), 0}, {groupNormCase(8, 16, 16, 640, 32, true, false), 0},
		{groupNormCase(8, 32, 32, 640, 32, true, false), 0}, {groupNormCase(8, 8, 8, 1280, 32, true, false), 0}, {groupNormCase(8, 8, 8, 2560, 32, true, false), 0},
		{groupNormCase(4, 256, 256, 128, 32, true, false), 0}, {groupNormGradCase(4, 32, 32, 512, 32, true, true), 0}, {groupNormGradCase(4, 64, 64, 512, 32, true, true), 0},
		{groupNormGradCase(4, 128, 128, 256, 32, true, true), 0}, {groupNormGradCase(4, 256, 256, 128, 32, true, true), 0},
		{opCase{"layer norm 8192x320", func(e *env) {
			e.p.Add(&device.LayerNorm{In: e.in(1, 1, 8192, 320), Gamma: e.param(1, 320), Beta: e.param(1, 320), Eps: 1e-5, Out: e.out(1, 1, 8192, 320)})
		}}, 0},
		conv(4, 256, 128, 128, false), conv(4, 128, 256, 256, false), conv(4, 128, 256, 256, true), conv(4, 64, 512, 512, false), conv(4, 32, 512, 512, false),
	} {
		t.Run(r.c.name, func(t *testing.T) {
			const repeat = 20
			var trace []string
			card.tuner.trace = func(c choice, ms float64) {
				trace = append(trace, fmt.Sprintf("%s/%d %.1f", c.Kernel, c.Splits, ms*1000))
			}
			_, exec := evaluate(t, card, opCase{r.c.name, func(e *env) {
				r.c.build(e)
				for range repeat - 1 {
					e.p.Add(e.p.Ops[0])
				}
			}})
			defer exec.Free()
			timed := func() float64 {
				times := make([]float64, 5)
				for i := range times {
					times[i] = card.timed(t, exec) / repeat * 1e3
				}
				slices.Sort(times)
				return times[2]
			}
			us := timed()
			for i, n := 0, 1; r.flops == 0 && i < n; i++ { // each kernel of a norm
				kernel := "layer_norm"
				card.tuner.forceWay = func(ways []way) way { n, kernel = len(ways), ways[i].kernel; return ways[i] }
				exec.(*program).captured = false
				trace = append(trace, fmt.Sprintf("%s %.1f", kernel, timed()))
			}
			card.tuner.forceWay = nil
			fmt.Printf("%8.1f us %6.0f TFLOP/s  %s  %v\n", us, r.flops/us/1e6, r.c.name, trace)
		})
	}
}
