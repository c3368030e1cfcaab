//go:build cuda

package cuda

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/x448/float16"
	"go.uber.org/goleak"

	"dreamcad/inference/device"
	"dreamcad/inference/device/devicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openCard skips without a card, unless REQUIRE_GPU says that there must be one.
func openCard(t testing.TB, o Options) device.Device {
	t.Helper()
	if o.CacheDir == "" {
		o.CacheDir = t.TempDir()
	}
	d, err := Open(0, o)
	if err != nil {
		if os.Getenv("REQUIRE_GPU") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// drawn is a checkpoint of random numbers that fp16 holds exactly.
type drawn struct {
	shapes map[string][]int
	data   map[string][]float32
}

func (d *drawn) Shape(name string) ([]int, bool) { s, ok := d.shapes[name]; return s, ok }

func (d *drawn) Float32(name string, offset int, dst []float32) error {
	copy(dst, d.data[name][offset:])
	return nil
}

// env gives a test case its operands, the same for every device.
type env struct {
	t       testing.TB
	dev     device.Device
	rng     *rand.Rand
	p       *device.Program
	weights *drawn
	results []device.Buffer
}

func (e *env) numbers(n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float16.Fromfloat32(float32(e.rng.NormFloat64() * scale)).Float32()
	}
	return v
}

func (e *env) buffer(p device.Precision, fill bool, n, h, w, c int) device.Tensor {
	b, err := e.dev.NewBuffer(device.Shape{N: n, H: h, W: w, C: c}, p)
	if err != nil {
		e.t.Fatal(err)
	}
	v := e.numbers(b.Shape().Len(), 1)
	if !fill {
		for i := range v {
			v[i] = float32(math.NaN()) // every element must be written
		}
		e.results = append(e.results, b)
	}
	if err := b.Write(v); err != nil {
		e.t.Fatal(err)
	}
	return e.p.Bind(b)
}

func (e *env) in(n, h, w, c int) device.Tensor   { return e.buffer(device.Working, true, n, h, w, c) }
func (e *env) full(n, h, w, c int) device.Tensor { return e.buffer(device.Full, true, n, h, w, c) }
func (e *env) out(n, h, w, c int) device.Tensor  { return e.buffer(device.Working, false, n, h, w, c) }
func (e *env) fullOut(n, h, w, c int) device.Tensor {
	return e.buffer(device.Full, false, n, h, w, c)
}

func (e *env) param(scale float64, shape ...int) *device.Param {
	name := fmt.Sprint("w", len(e.weights.shapes))
	n := 1
	for _, d := range shape {
		n *= d
	}
	e.weights.shapes[name], e.weights.data[name] = shape, e.numbers(n, scale)
	return &device.Param{Name: name, Shape: shape, Tensors: []string{name}, Source: e.weights}
}

// opCase is one program of one or a few operations.
type opCase struct {
	name  string
	build func(e *env)
}

func evaluate(t testing.TB, dev device.Device, c opCase) (results [][]float32, exec device.Exec) {
	e := &env{t: t, dev: dev, rng: rand.New(rand.NewPCG(7, uint64(len(c.name)))), p: device.NewProgram(c.name),
		weights: &drawn{map[string][]int{}, map[string][]float32{}}}
	c.build(e)
	exec, err := dev.Compile(e.p)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Run(); err != nil {
		t.Fatal(err)
	}
	for _, b := range e.results {
		v := make([]float32, b.Shape().Len())
		if err := b.Read(v); err != nil {
			t.Fatal(err)
		}
		results = append(results, v)
	}
	return results, exec
}

// distance is ‖a-b‖/‖b‖; NaN never passes a comparison.
func distance(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		x := float64(a[i]) - float64(b[i])
		d += x * x
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}

func compare(t *testing.T, cases []opCase, o Options) {
	card := openCard(t, o)
	ref := cpuDevice(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want, _ := evaluate(t, ref, c)
			begin := time.Now()
			got, _ := evaluate(t, card, c)
			for i := range want {
				if d := distance(got[i], want[i]); !(d < 2e-3) {
					t.Errorf("result %d is off by %.3g (relative)", i, d)
				} else {
					t.Logf("result %d: %.2g in %v", i, d, time.Since(begin).Round(time.Millisecond))
				}
			}
		})
	}
}

func linearCase(m, k, n int, act device.Activation, residual bool) opCase {
	return opCase{fmt.Sprintf("linear %dx%dx%d act %d residual %v", m, k, n, act, residual), func(e *env) {
		o := n
		if act == device.GEGLU {
			o *= 2
		}
		op := &device.Linear{In: e.in(1, 1, m, k), Weight: e.param(1/math.Sqrt(float64(k)), o, k), Bias: e.param(0.5, o), Act: act}
		if residual {
			op.Residual = e.in(1, 1, m, n)
		}
		op.Out = e.out(1, 1, m, n)
		e.p.Add(op)
	}}
}

func convCase(n, h, w, k, o, kernel, stride int, pads [4]int, up, residual bool) opCase {
	return opCase{fmt.Sprintf("conv %dx%dx%dx%d to %d kernel %d stride %d pads %v up %v residual %v", n, h, w, k, o, kernel, stride, pads, up, residual), func(e *env) {
		f := 1
		if up {
			f = 2
		}
		oh, ow := (f*h+pads[0]+pads[2]-kernel)/stride+1, (f*w+pads[1]+pads[3]-kernel)/stride+1
		op := &device.Conv{In: e.in(n, h, w, k), Weight: e.param(1/math.Sqrt(float64(k*kernel*kernel)), o, k, kernel, kernel), Bias: e.param(0.5, o), Stride: stride,
			Top: pads[0], Left: pads[1], Bottom: pads[2], Right: pads[3], Upsample: up}
		if residual {
			op.Residual = e.in(n, oh, ow, o)
		}
		op.Out = e.out(n, oh, ow, o)
		e.p.Add(op)
	}}
}

func attentionCase(n, nk, lq, lk, heads, d int, causal bool) opCase {
	return opCase{fmt.Sprintf("attention %d/%d %dx%d heads %d of %d causal %v", n, nk, lq, lk, heads, d, causal), func(e *env) {
		c := heads * d
		op := &device.Attention{Q: e.in(n, 1, lq, c), K: e.in(nk, 1, lk, c), V: e.in(nk, 1, lk, c), Heads: heads, Scale: float32(1 / math.Sqrt(float64(d))), Causal: causal}
		op.Out = e.out(n, 1, lq, c)
		e.p.Add(op)
	}}
}

func groupNormCase(n, h, w, c, groups int, silu, add bool) opCase {
	return opCase{fmt.Sprintf("group norm %dx%dx%dx%d of %d silu %v add %v", n, h, w, c, groups, silu, add), func(e *env) {
		op := &device.GroupNorm{In: e.in(n, h, w, c), Gamma: e.param(1, c), Beta: e.param(1, c), Groups: groups, Eps: 1e-5, Silu: silu}
		if add {
			op.Add = e.in(n, 1, 1, c)
		}
		op.Out = e.out(n, h, w, c)
		e.p.Add(op)
	}}
}

func groupNormGradCase(n, h, w, c, groups int, silu, residual bool) opCase {
	return opCase{fmt.Sprintf("gradient of group norm %dx%dx%dx%d of %d silu %v residual %v", n, h, w, c, groups, silu, residual), func(e *env) {
		op := &device.GroupNormGrad{In: e.in(n, h, w, c), Grad: e.in(n, h, w, c), Gamma: e.param(1, c), Beta: e.param(1, c), Groups: groups, Eps: 1e-6, Silu: silu}
		if residual {
			op.Residual = e.in(n, h, w, c)
		}
		op.Out = e.out(n, h, w, c)
		e.p.Add(op)
	}}
}

// groupNormBothCase is a group norm and its gradient, which finds the statistics already there.
func groupNormBothCase(n, h, w, c, groups int) opCase {
	return opCase{fmt.Sprintf("group norm %dx%dx%dx%d of %d and gradient", n, h, w, c, groups), func(e *env) {
		in, gamma, beta := e.in(n, h, w, c), e.param(1, c), e.param(1, c)
		e.p.Add(&device.GroupNorm{In: in, Gamma: gamma, Beta: beta, Groups: groups, Eps: 1e-6, Silu: true, Out: e.out(n, h, w, c)})
		e.p.Add(&device.GroupNormGrad{In: in, Grad: e.in(n, h, w, c), Gamma: gamma, Beta: beta, Groups: groups, Eps: 1e-6, Silu: true, Out: e.out(n, h, w, c)})
	}}
}

func attentionGradCase(n, l, heads, d int) opCase {
	return opCase{fmt.Sprintf("gradient of attention %d of %d heads %d of %d", n, l, heads, d), func(e *env) {
		c := heads * d
		qkv, grads := e.in(n, 1, l, 3*c), e.out(n, 1, l, 3*c)
		e.p.Add(&device.AttentionGrad{Q: qkv.Channels(0, c), K: qkv.Channels(c, c), V: qkv.Channels(2*c, c), Grad: e.in(n, 1, l, c),
			GradQ: grads.Channels(0, c), GradK: grads.Channels(c, c), GradV: grads.Channels(2*c, c), Heads: heads, Scale: float32(1 / math.Sqrt(float64(d)))})
	}}
}

// foldCase is a layer norm with rows far from zero and the linear layer behind it.
func foldCase(m, k, n int, act device.Activation, residual bool) opCase {
	return opCase{fmt.Sprintf("layer norm and linear %dx%dx%d act %d residual %v", m, k, n, act, residual), func(e *env) {
		o := n
		if act == device.GEGLU {
			o *= 2
		}
		x := e.p.New(1, 1, m, k)
		e.p.Add(&device.Linear{In: e.in(1, 1, m, 32), Out: x, Weight: e.param(0.3, k, 32), Bias: e.param(2, k)})
		y := e.p.Like(x, k)
		e.p.Add(&device.LayerNorm{In: x, Out: y, Gamma: e.param(1, k), Beta: e.param(1, k), Eps: 1e-5})
		op := &device.Linear{In: y, Weight: e.param(1/math.Sqrt(float64(k)), o, k), Bias: e.param(0.5, o), Act: act}
		if residual {
			op.Residual = e.in(1, 1, m, n)
		}
		op.Out = e.out(1, 1, m, n)
		e.p.Add(op)
	}}
}

func operationCases() []opCase {
	one := [4]int{1, 1, 1, 1}
	return []opCase{
		linearCase(130, 72, 50, device.None, false),
		linearCase(130, 72, 56, device.SiLU, true),
		linearCase(77, 13, 7, device.GELU, true),
		linearCase(256, 320, 320, device.None, true),
		linearCase(200, 64, 128, device.GEGLU, false),
		linearCase(8, 1280, 1280, device.SiLU, false),
		linearCase(128, 2560, 640, device.None, true),
		convCase(2, 9, 7, 16, 24, 3, 1, one, false, true),
		convCase(2, 9, 7, 5, 3, 3, 1, one, false, false),
		convCase(1, 16, 16, 64, 64, 3, 1, one, false, true),
		convCase(2, 8, 8, 128, 72, 3, 1, one, false, true),
		convCase(8, 4, 4, 64, 64, 3, 1, one, false, false),
		convCase(3, 4, 4, 64, 80, 3, 1, one, false, false),
		convCase(1, 3, 128, 64, 64, 3, 1, one, false, false),
		convCase(1, 2, 256, 64, 32, 3, 1, one, false, false),
		convCase(2, 8, 8, 64, 64, 3, 1, one, true, false),
		convCase(2, 5, 6, 24, 16, 3, 1, one, true, true),
		convCase(2, 8, 8, 64, 64, 3, 2, one, false, false),
		convCase(2, 8, 8, 40, 64, 3, 2, [4]int{0, 0, 1, 1}, false, false),
		convCase(1, 12, 12, 4, 64, 3, 1, one, false, false),
		convCase(2, 16, 16, 64, 72, 3, 2, one, false, false),
		convCase(1, 32, 32, 64, 64, 3, 2, [4]int{0, 0, 1, 1}, false, true),
		convCase(8, 4, 4, 64, 80, 3, 1, one, true, false),
		convCase(2, 8, 8, 128, 64, 3, 1, one, true, true),
		convCase(1, 16, 8, 64, 3, 3, 1, one, true, false),
		groupNormGradCase(2, 16, 16, 64, 32, true, true),
		groupNormGradCase(1, 40, 40, 128, 32, true, false),
		groupNormGradCase(3, 9, 7, 512, 32, false, true),
		groupNormGradCase(2, 5, 3, 15, 5, true, true),
		attentionGradCase(2, 64, 1, 512),
		attentionGradCase(3, 37, 2, 24),
		attentionCase(2, 2, 200, 200, 3, 64, false),
		attentionCase(2, 1, 300, 400, 2, 64, false),
		attentionCase(4, 2, 130, 77, 2, 64, false),
		attentionCase(2, 2, 70, 70, 2, 32, false),
		attentionCase(1, 1, 77, 77, 2, 64, true),
		attentionCase(2, 2, 48, 48, 1, 512, false),
		attentionCase(2, 1, 30, 19, 3, 24, false),
		groupNormCase(2, 16, 16, 320, 32, true, true),
		groupNormCase(2, 32, 32, 320, 32, true, true),
		groupNormCase(1, 32, 32, 960, 32, false, false),
		groupNormCase(1, 24, 24, 2560, 32, true, false),
		groupNormCase(2, 7, 5, 24, 8, true, true),
		groupNormCase(2, 7, 5, 15, 5, false, false),
		groupNormCase(1, 64, 64, 128, 32, true, false),
		groupNormCase(2, 8, 8, 1280, 32, true, true),
		groupNormCase(2, 16, 16, 640, 32, false, false),
		{"layer norm", func(e *env) {
			e.p.Add(&device.LayerNorm{In: e.in(1, 1, 77, 1024), Gamma: e.param(1, 1024), Beta: e.param(1, 1024), Eps: 1e-5, Out: e.out(1, 1, 77, 1024)})
		}},
		foldCase(300, 320, 192, device.None, false),
		foldCase(77, 64, 40, device.GEGLU, false),
		foldCase(130, 1280, 320, device.SiLU, true),
		{"layer norm odd", func(e *env) {
			e.p.Add(&device.LayerNorm{In: e.in(1, 1, 33, 50), Gamma: e.param(1, 50), Beta: e.param(1, 50), Eps: 1e-5, Out: e.out(1, 1, 33, 50)})
		}},
		{"windows", func(e *env) {
			// A concatenation that is never made: two convolutions write halves of one value.
			x := e.in(2, 8, 8, 64)
			both := e.p.Like(x, 128)
			e.p.Add(&device.Conv{In: x, Out: both.Channels(0, 64), Weight: e.param(0.1, 64, 64, 3, 3), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
			e.p.Add(&device.Linear{In: x, Out: both.Channels(64, 64), Weight: e.param(0.1, 64, 64)})
			y := e.p.Like(both, 128)
			e.p.Add(&device.GroupNorm{In: both, Out: y, Gamma: e.param(1, 128), Beta: e.param(1, 128), Groups: 8, Eps: 1e-5, Silu: true})
			out := e.out(2, 8, 8, 32)
			e.p.Add(&device.Linear{In: y.Images(0, 1), Out: out.Images(1, 1), Weight: e.param(0.1, 32, 128)})
			e.p.Add(&device.Linear{In: y.Images(1, 1), Out: out.Images(0, 1), Weight: e.param(0.1, 32, 128)})
		}},
		{"elementwise", func(e *env) {
			e.p.Add(&device.Elementwise{In: e.in(2, 3, 5, 24), Out: e.out(4, 3, 5, 24), Act: device.SiLU})
			e.p.Add(&device.Elementwise{In: e.full(2, 3, 5, 4), Out: e.out(4, 3, 5, 4)})
			e.p.Add(&device.Elementwise{In: e.in(2, 3, 5, 7), Out: e.fullOut(2, 3, 5, 7), Act: device.GELU})
		}},
		{"combine", func(e *env) {
			x := e.full(2, 4, 4, 4)
			op := &device.Combine{Terms: [4]device.Tensor{x, e.in(2, 4, 4, 4), {}, e.full(2, 4, 4, 4)}, Coef: e.full(2, 1, 1, 4), Out: e.fullOut(2, 4, 4, 4)}
			e.p.Add(op)
		}},
		{"gradients", func(e *env) {
			e.p.Add(&device.ConvGrad{Grad: e.in(2, 8, 8, 64), Weight: e.param(0.1, 64, 32, 3, 3), Out: e.out(2, 8, 8, 32), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1, Residual: e.in(2, 8, 8, 32)})
			e.p.Add(&device.ConvGrad{Grad: e.in(2, 4, 4, 64), Weight: e.param(0.1, 64, 32, 3, 3), Out: e.out(2, 8, 8, 32), Stride: 2, Bottom: 1, Right: 1})
			e.p.Add(&device.ConvGrad{Grad: e.in(2, 8, 8, 64), Weight: e.param(0.1, 64, 32, 3, 3), Out: e.out(2, 16, 16, 32), Stride: 2, Bottom: 1, Right: 1, Residual: e.in(2, 16, 16, 32)})
			e.p.Add(&device.ConvGrad{Grad: e.in(2, 8, 8, 64), Weight: e.param(0.1, 64, 40, 3, 3), Out: e.out(2, 16, 16, 40), Stride: 2, Top: 1, Left: 1, Bottom: 1, Right: 1})
			e.p.Add(&device.LinearGrad{Grad: e.in(1, 1, 60, 40), Weight: e.param(0.1, 40, 24), Out: e.out(1, 1, 60, 24)})
		}},
	}
}

func TestCopies(t *testing.T) { devicetest.Copies(t, openCard(t, Options{})) }
func TestLarge(t *testing.T)  { devicetest.Large(t, openCard(t, Options{})) }

// TestOperations compares every operation with the CPU device on random data and odd sizes.
func TestOperations(t *testing.T) { compare(t, operationCases(), Options{Deterministic: true}) }

// TestEveryTile computes products with every tile and depth split that fits, so that tuning cannot choose a wrong one.
func TestEveryTile(t *testing.T) {
	card := openCard(t, Options{Deterministic: true}).(*Card)
	ref := cpuDevice(t)
	one := [4]int{1, 1, 1, 1}
	for _, c := range []opCase{
		linearCase(300, 640, 336, device.None, true),
		linearCase(200, 328, 160, device.GEGLU, false),
		convCase(2, 16, 16, 128, 200, 3, 1, one, false, true),
		convCase(3, 8, 8, 128, 160, 3, 1, one, false, false),
		convCase(9, 4, 4, 64, 64, 3, 1, one, false, false),
		convCase(8, 4, 4, 128, 136, 3, 1, one, true, true),
		convCase(2, 32, 32, 128, 72, 3, 2, one, false, true),
	} {
		want, _ := evaluate(t, ref, c)
		var all []choice
		card.tuner.force = func(candidates []choice) choice { all = candidates; return candidates[0] }
		evaluate(t, card, c)
		for _, ch := range all {
			card.tuner.force = func([]choice) choice { return ch }
			got, _ := evaluate(t, card, c)
			if d := distance(got[0], want[0]); !(d < 2e-3) {
				t.Errorf("%s by %s in %d splits is off by %.3g", c.name, ch.Kernel, ch.Splits, d)
			}
		}
		t.Logf("%s: %d ways agree", c.name, len(all))
	}
}

// TestEveryWay computes group norms with every kernel that can.
func TestEveryWay(t *testing.T) {
	card := openCard(t, Options{Deterministic: true}).(*Card)
	ref := cpuDevice(t)
	for _, c := range []opCase{
		groupNormCase(2, 32, 32, 320, 32, true, true), groupNormCase(2, 32, 32, 640, 32, true, false), groupNormCase(3, 7, 9, 640, 32, false, true),
		groupNormCase(2, 8, 8, 1280, 32, true, true), groupNormCase(2, 4, 4, 2560, 32, false, false), groupNormCase(1, 128, 128, 256, 32, true, false),
		groupNormCase(2, 32, 32, 128, 32, true, false), groupNormBothCase(2, 32, 32, 512, 32), groupNormBothCase(3, 7, 9, 96, 32), groupNormBothCase(2, 5, 5, 36, 6),
		groupNormBothCase(3, 128, 128, 128, 32),
	} {
		want, _ := evaluate(t, ref, c)
		tried := map[string]bool{}
		for i, n := 0, 1; i < n; i++ {
			kernel := ""
			card.tuner.forceWay = func(ways []way) way { n, kernel = len(ways), ways[i].kernel; return ways[i] }
			got, _ := evaluate(t, card, c)
			for j := range want {
				if d := distance(got[j], want[j]); !(d < 2e-3) {
					t.Errorf("%s by %s: result %d is off by %.3g", c.name, kernel, j, d)
				}
			}
			tried[kernel] = true
		}
		t.Logf("%s: %v", c.name, slices.Sorted(maps.Keys(tried)))
	}
}
