package devicetest

import (
	"fmt"
	"math"
	"testing"

	"dreamcad/inference/device"
)

func norms(t *testing.T, d device.Device, tol float64) {
	for i, c := range []struct{ n, h, w, c, groups int }{{1, 3, 5, 8, 2}, {4, 16, 16, 64, 8}, {2, 40, 40, 32, 8}, {3, 4, 4, 20, 4}} {
		t.Run(fmt.Sprint("group", c), func(t *testing.T) {
			b := newBench(t, d, uint64(200+i))
			o := &device.GroupNorm{In: b.tensor(c.n, c.h, c.w, c.c, 2), Out: b.tensor(c.n, c.h, c.w, c.c, 0), Gamma: b.param(1, c.c), Beta: b.param(1, c.c), Groups: c.groups, Eps: 1e-6}
			b.p.Add(o)
			b.check(func() {
				for j, y := range b.groupNorm(o) {
					*b.at(o.Out, j/c.c, j%c.c) = float32(y)
				}
			}, tol)
		})
		t.Run(fmt.Sprint("group and product", c), func(t *testing.T) {
			b := newBench(t, d, uint64(220+i))
			x, y := b.tensor(c.n, c.h, c.w, c.c, 2), b.p.New(c.n, c.h, c.w, c.c)
			norm := &device.GroupNorm{In: x, Out: y, Gamma: b.param(1, c.c), Beta: b.param(1, c.c), Groups: c.groups, Eps: 1e-6}
			o := &device.Linear{In: y, Out: b.tensor(c.n, c.h, c.w, 24, 0), Weight: b.param(0.2, 24, c.c)}
			b.p.Add(norm)
			b.p.Add(o)
			b.check(func() {
				z := b.groupNorm(norm)
				for r := range x.Rows() {
					for j := range 24 {
						var s float64
						for k := range c.c {
							s += z[r*c.c+k] * float64(b.weights(o.Weight)[j*c.c+k])
						}
						*b.at(o.Out, r, j) = float32(s)
					}
				}
			}, tol)
		})
	}
	for i, c := range []struct{ rows, c int }{{1, 8}, {77, 64}, {200, 40}, {5, 1280}} {
		t.Run(fmt.Sprint("layer", c), func(t *testing.T) {
			b := newBench(t, d, uint64(240+i))
			o := &device.LayerNorm{In: b.tensor(1, 1, c.rows, c.c, 2), Out: b.tensor(1, 1, c.rows, c.c, 0), Gamma: b.param(1, c.c), Beta: b.param(1, c.c), Eps: 1e-5}
			y := b.p.New(1, 1, c.rows, c.c)
			second := *o
			second.Out = y
			product := &device.Linear{In: y, Out: b.tensor(1, 1, c.rows, 36, 0), Weight: b.param(0.1, 36, c.c)}
			b.p.Add(o)
			b.p.Add(&second)
			b.p.Add(product)
			b.check(func() {
				for r := range c.rows {
					var mean, sq float64
					for j := range c.c {
						mean += b.get(o.In, r, j) / float64(c.c)
					}
					for j := range c.c {
						sq += math.Pow(b.get(o.In, r, j)-mean, 2) / float64(c.c)
					}
					z := make([]float64, c.c)
					for j := range z {
						z[j] = (b.get(o.In, r, j)-mean)/math.Sqrt(sq+1e-5)*float64(b.weights(o.Gamma)[j]) + float64(b.weights(o.Beta)[j])
						*b.at(o.Out, r, j) = float32(z[j])
					}
					for j := range 36 {
						var s float64
						for k := range z {
							s += z[k] * float64(b.weights(product.Weight)[j*c.c+k])
						}
						*b.at(product.Out, r, j) = float32(s)
					}
				}
			}, tol)
		})
	}
}

func attention(t *testing.T, d device.Device, tol float64) {
	for i, c := range []struct {
		n, nk, lq, lk, heads, dim int
		causal                    bool
	}{
		{1, 1, 5, 7, 1, 8, false}, {2, 2, 32, 32, 2, 64, true}, {8, 8, 16, 77, 2, 32, false}, {4, 2, 20, 32, 3, 16, false},
		{1, 1, 70, 1040, 1, 32, false}, {1, 1, 530, 530, 1, 24, true}, {1, 1, 20, 20, 1, 512, false},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			b := newBench(t, d, uint64(300+i))
			ch := c.heads * c.dim
			kv := b.tensor(c.nk, 1, c.lk, 2*ch, 0)
			o := &device.Attention{Q: b.tensor(c.n, 1, c.lq, ch, 2*ch), K: kv.Channels(0, ch), V: kv.Channels(ch, ch), Out: b.tensor(c.n, 1, c.lq, ch, 0),
				Heads: c.heads, Scale: float32(2 / math.Sqrt(float64(c.dim))), Causal: c.causal}
			b.p.Add(o)
			b.check(func() {
				s := make([]float64, c.lk)
				for n := range c.n {
					for h := range c.heads {
						for q := range c.lq {
							keys := c.lk
							if c.causal {
								keys = q + 1
							}
							top, sum := math.Inf(-1), 0.0
							kn := n * c.nk / c.n
							for k := range keys {
								s[k] = 0
								for x := range c.dim {
									s[k] += b.get(o.Q, n*c.lq+q, h*c.dim+x) * b.get(o.K, kn*c.lk+k, h*c.dim+x)
								}
								s[k] *= float64(o.Scale)
								top = max(top, s[k])
							}
							for k := range keys {
								s[k] = math.Exp(s[k] - top)
								sum += s[k]
							}
							for x := range c.dim {
								var y float64
								for k := range keys {
									y += s[k] / sum * b.get(o.V, kn*c.lk+k, h*c.dim+x)
								}
								*b.at(o.Out, n*c.lq+q, h*c.dim+x) = float32(y)
							}
						}
					}
				}
			}, tol)
		})
	}
}

func rest(t *testing.T, d device.Device, tol float64) {
	for _, act := range []device.Activation{device.None, device.SiLU, device.GELU} {
		t.Run(fmt.Sprint("elementwise", act), func(t *testing.T) {
			b := newBench(t, d, uint64(400+act))
			o := &device.Elementwise{In: b.tensor(2, 3, 5, 20, 2), Out: b.tensor(6, 3, 5, 20, 4), Act: act}
			b.p.Add(o)
			b.check(func() {
				for r := range o.Out.Rows() {
					for c := range 20 {
						*b.at(o.Out, r, c) = float32(activate(act, b.get(o.In, r%30, c)))
					}
				}
			}, tol)
		})
	}
	t.Run("combine", func(t *testing.T) {
		b := newBench(t, d, 410)
		x, eps := b.tensor(3, 4, 4, 4, 0), b.tensor(6, 4, 4, 4, 0)
		o := &device.Combine{Terms: [4]device.Tensor{x, eps.Images(0, 3), eps.Images(3, 3)}, Coef: b.tensor(3, 1, 1, 4, 0), Out: x}
		b.p.Add(o)
		b.check(func() {
			for r := range x.Rows() {
				for c := range 4 {
					var s float64
					for k, term := range o.Terms {
						s += b.get(o.Coef, r/16, k) * b.get(term, r, c)
					}
					*b.at(x, r, c) = float32(s)
				}
			}
		}, tol)
	})
}
