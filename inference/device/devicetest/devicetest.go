// Package devicetest is the conformance suite of devices: every operation, on
// odd sizes, windows and residuals, against plain loops in float64.
package devicetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"dreamcad/inference/device"
)

// Weights is a checkpoint in memory.
type Weights map[string]Tensor

// Tensor is one of its entries.
type Tensor struct {
	Shape []int
	Data  []float32
}

// Shape implements device.Weights.
func (w Weights) Shape(name string) ([]int, bool) { t, ok := w[name]; return t.Shape, ok }

// Float32 implements device.Weights.
func (w Weights) Float32(name string, offset int, dst []float32) error {
	if copy(dst, w[name].Data[offset:]) != len(dst) {
		return fmt.Errorf("tensor %q is too short", name)
	}
	return nil
}

// bench is one case: a program under construction and its plain counterpart.
type bench struct {
	t   *testing.T
	d   device.Device
	r   *rand.Rand
	p   *device.Program
	w   Weights
	buf map[device.ValueID]device.Buffer
	val map[device.ValueID][]float32 // contents before the run, then the expectation
}

func newBench(t *testing.T, d device.Device, seed uint64) *bench {
	return &bench{t: t, d: d, r: rand.New(rand.NewPCG(7, seed)), p: device.NewProgram("test"), w: Weights{},
		buf: map[device.ValueID]device.Buffer{}, val: map[device.ValueID][]float32{}}
}

func (b *bench) random(n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(b.r.NormFloat64() * scale)
	}
	return x
}

// tensor is a random outside buffer, wider than the window by some channels.
func (b *bench) tensor(n, h, w, c, extra int) device.Tensor {
	buf, err := b.d.NewBuffer(device.Shape{N: n, H: h, W: w, C: c + extra}, device.Full)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(buf.Free)
	t := b.p.Bind(buf)
	b.buf[t.Value] = buf
	b.val[t.Value] = b.random(n*h*w*(c+extra), 1)
	if err := buf.Write(b.val[t.Value]); err != nil {
		b.t.Fatal(err)
	}
	return t.Channels(extra/2, c)
}

func (b *bench) param(scale float64, shape ...int) *device.Param {
	name := fmt.Sprintf("p%d", len(b.w))
	n := 1
	for _, d := range shape {
		n *= d
	}
	b.w[name] = Tensor{shape, b.random(n, scale)}
	return &device.Param{Name: name, Shape: shape, Tensors: []string{name}, Source: b.w}
}

func (b *bench) weights(p *device.Param) []float32 { return b.w[p.Tensors[0]].Data }

// at is element (row, channel) of a window in the host's copy.
func (b *bench) at(t device.Tensor, row, c int) *float32 {
	return &b.val[t.Value][(t.Row+row)*t.Pitch+t.Offset+c]
}

// get is 0 for absent tensors.
func (b *bench) get(t device.Tensor, row, c int) float64 {
	if !t.Present() {
		return 0
	}
	return float64(*b.at(t, row, c))
}

// check runs the program twice (a second run must not depend on the first) and
// compares every buffer with what the loops left in val; old holds the contents
// before.
func (b *bench) check(want func(), tol float64) {
	b.t.Helper()
	old := map[device.ValueID][]float32{}
	for v, x := range b.val {
		old[v] = append([]float32(nil), x...)
	}
	e, err := b.d.Compile(b.p)
	if err != nil {
		b.t.Fatal(err)
	}
	defer e.Free()
	want()
	for range 2 {
		for v, buf := range b.buf {
			if err := buf.Write(old[v]); err != nil {
				b.t.Fatal(err)
			}
		}
		if err := e.Run(); err != nil {
			b.t.Fatal(err)
		}
		for v, buf := range b.buf {
			got := make([]float32, len(b.val[v]))
			if err := buf.Read(got); err != nil {
				b.t.Fatal(err)
			}
			var scale float64
			for _, x := range b.val[v] {
				scale = max(scale, math.Abs(float64(x)))
			}
			for i, x := range b.val[v] {
				if d := math.Abs(float64(got[i] - x)); !(d <= tol*scale) {
					b.t.Fatalf("value %d, element %d is %g, want %g", v, i, got[i], x)
				}
			}
		}
	}
}

func activate(a device.Activation, x float64) float64 {
	switch a {
	case device.SiLU:
		return x / (1 + math.Exp(-x))
	case device.GELU:
		return x * 0.5 * math.Erfc(-x/math.Sqrt2)
	}
	return x
}

// Run tests the forward operations of the device; tol is relative to the
// largest number of a result.
func Run(t *testing.T, d device.Device, tol float64) {
	t.Run("Linear", func(t *testing.T) { linear(t, d, tol) })
	t.Run("Conv", func(t *testing.T) { conv(t, d, tol) })
	t.Run("Norm", func(t *testing.T) { norms(t, d, tol) })
	t.Run("Attention", func(t *testing.T) { attention(t, d, tol) })
	t.Run("Rest", func(t *testing.T) { rest(t, d, tol) })
	t.Run("Copy", func(t *testing.T) { Copies(t, d) })
}

func linear(t *testing.T, d device.Device, tol float64) {
	for i, c := range []struct {
		rows, k, o int
		act        device.Activation
		bias, res  bool
	}{
		{1, 4, 3, device.None, false, false}, {13, 32, 32, device.None, true, true}, {100, 64, 192, device.None, true, false},
		{300, 17, 40, device.SiLU, true, false}, {64, 40, 33, device.GELU, true, true}, {130, 64, 512, device.GEGLU, true, false},
		{50, 24, 2 * 40, device.GEGLU, true, true},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			b := newBench(t, d, uint64(i))
			out := c.o
			if c.act == device.GEGLU {
				out /= 2
			}
			o := &device.Linear{In: b.tensor(c.rows, 1, 1, c.k, 6), Out: b.tensor(c.rows, 1, 1, out, 4), Weight: b.param(1/math.Sqrt(float64(c.k)), c.o, c.k), Act: c.act}
			if c.bias {
				o.Bias = b.param(1, c.o)
			}
			if c.res {
				o.Residual = b.tensor(c.rows, 1, 1, out, 2)
			}
			b.p.Add(o)
			b.check(func() {
				for r := range c.rows {
					y := make([]float64, c.o)
					for j := range y {
						if c.bias {
							y[j] = float64(b.weights(o.Bias)[j])
						}
						for k := range c.k {
							y[j] += b.get(o.In, r, k) * float64(b.weights(o.Weight)[j*c.k+k])
						}
					}
					for j := range out {
						z := activate(c.act, y[j])
						if c.act == device.GEGLU {
							z = y[j] * activate(device.GELU, y[out+j])
						}
						*b.at(o.Out, r, j) = float32(z + b.get(o.Residual, r, j))
					}
				}
			}, tol)
		})
	}
}

func conv(t *testing.T, d device.Device, tol float64) {
	for i, c := range []struct {
		n, h, w, k, o, size, stride      int
		top, left, bottom, right         int
		up, res, norm, emb, silu, shared bool
	}{
		{n: 1, h: 5, w: 7, k: 3, o: 5, size: 3, stride: 1, top: 1, left: 1, bottom: 1, right: 1},
		{n: 2, h: 16, w: 16, k: 20, o: 64, size: 3, stride: 1, top: 1, left: 1, bottom: 1, right: 1, res: true, norm: true, silu: true, emb: true},
		{n: 3, h: 4, w: 4, k: 32, o: 40, size: 3, stride: 1, top: 1, left: 1, bottom: 1, right: 1, norm: true, silu: true},
		{n: 2, h: 4, w: 4, k: 16, o: 32, size: 3, stride: 1, top: 1, left: 1, bottom: 1, right: 1, norm: true, shared: true},
		{n: 5, h: 8, w: 8, k: 16, o: 24, size: 3, stride: 2, top: 1, left: 1, bottom: 1, right: 1},
		{n: 2, h: 10, w: 12, k: 8, o: 8, size: 3, stride: 2, bottom: 1, right: 1},
		{n: 2, h: 9, w: 6, k: 16, o: 33, size: 3, stride: 1, top: 1, left: 1, bottom: 1, right: 1, up: true, res: true},
		{n: 1, h: 6, w: 5, k: 12, o: 16, size: 1, stride: 1},
		{n: 1, h: 40, w: 30, k: 20, o: 3, size: 3, stride: 1, top: 1, left: 1, bottom: 1, right: 1, norm: true, silu: true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			b := newBench(t, d, uint64(100+i))
			up := 1
			if c.up {
				up = 2
			}
			oh, ow := (up*c.h+c.top+c.bottom-c.size)/c.stride+1, (up*c.w+c.left+c.right-c.size)/c.stride+1
			x := b.tensor(c.n, c.h, c.w, c.k, 4)
			in := x
			var norm *device.GroupNorm
			if c.norm {
				in = b.p.Like(x, c.k)
				norm = &device.GroupNorm{In: x, Out: in, Gamma: b.param(1, c.k), Beta: b.param(1, c.k), Groups: 4, Eps: 1e-5, Silu: c.silu}
				if c.emb {
					norm.Add = b.tensor(c.n, 1, 1, c.k, 3)
				}
				b.p.Add(norm)
			}
			o := &device.Conv{In: in, Out: b.tensor(c.n, oh, ow, c.o, 2), Weight: b.param(1/math.Sqrt(float64(9*c.k)), c.o, c.k, c.size, c.size), Bias: b.param(1, c.o),
				Stride: c.stride, Top: c.top, Left: c.left, Bottom: c.bottom, Right: c.right, Upsample: c.up}
			if c.res {
				o.Residual = o.Out // in place
			}
			b.p.Add(o)
			if c.shared { // a second reader forbids fusing the norm
				b.p.Add(&device.Elementwise{In: in, Out: b.tensor(c.n, c.h, c.w, c.k, 0)})
			}
			b.check(func() {
				y := make([]float64, c.n*c.h*c.w*c.k)
				for r := range c.n * c.h * c.w {
					for k := range c.k {
						y[r*c.k+k] = b.get(x, r, k)
					}
				}
				if c.norm {
					y = b.groupNorm(norm)
				}
				if c.shared {
					for j := range y {
						b.val[device.ValueID(len(b.p.Values)-1)][j] = float32(y[j])
					}
				}
				w := b.weights(o.Weight)
				for n := range c.n {
					for oy := range oh {
						for ox := range ow {
							for j := range c.o {
								s := float64(b.weights(o.Bias)[j])
								for ky := range c.size {
									for kx := range c.size {
										iy, ix := oy*c.stride+ky-c.top, ox*c.stride+kx-c.left
										if iy < 0 || ix < 0 || iy >= up*c.h || ix >= up*c.w {
											continue
										}
										for k := range c.k {
											s += y[((n*c.h+iy/up)*c.w+ix/up)*c.k+k] * float64(w[((j*c.k+k)*c.size+ky)*c.size+kx])
										}
									}
								}
								r := (n*oh+oy)*ow + ox
								*b.at(o.Out, r, j) = float32(s + b.get(o.Residual, r, j))
							}
						}
					}
				}
			}, tol)
		})
	}
}

// groupNorm is the plain form.
func (b *bench) groupNorm(o *device.GroupNorm) []float64 {
	ch, px := o.In.C, o.In.H*o.In.W
	y := make([]float64, o.In.Len())
	per := ch / o.Groups
	for n := range o.In.N {
		for g := range o.Groups {
			var sum, sq float64
			for r := n * px; r < (n+1)*px; r++ {
				for c := g * per; c < (g+1)*per; c++ {
					y[r*ch+c] = b.get(o.In, r, c) + b.get(o.Add, n, c)
					sum += y[r*ch+c]
				}
			}
			mean := sum / float64(px*per)
			for r := n * px; r < (n+1)*px; r++ {
				for c := g * per; c < (g+1)*per; c++ {
					sq += (y[r*ch+c] - mean) * (y[r*ch+c] - mean)
				}
			}
			dev := math.Sqrt(sq/float64(px*per) + float64(o.Eps))
			for r := n * px; r < (n+1)*px; r++ {
				for c := g * per; c < (g+1)*per; c++ {
					z := (y[r*ch+c]-mean)/dev*float64(b.weights(o.Gamma)[c]) + float64(b.weights(o.Beta)[c])
					if o.Silu {
						z = activate(device.SiLU, z)
					}
					y[r*ch+c] = z
				}
			}
		}
	}
	return y
}
