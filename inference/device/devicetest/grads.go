package devicetest

import (
	"fmt"
	"math"
	"testing"

	"dreamcad/inference/device"
)

// Grads tests the input gradients that the image encoder needs.
func Grads(t *testing.T, d device.Device, tol float64) {
	t.Run("ConvGrad", func(t *testing.T) { convGrad(t, d, tol) })
	t.Run("LinearGrad", func(t *testing.T) { linearGrad(t, d, tol) })
	t.Run("GroupNormGrad", func(t *testing.T) { groupNormGrad(t, d, tol) })
	t.Run("AttentionGrad", func(t *testing.T) { attentionGrad(t, d, tol) })
}

func convGrad(t *testing.T, d device.Device, tol float64) {
	for i, c := range []struct{ n, h, w, k, o, stride, top, left, bottom, right int }{
		{2, 7, 9, 3, 8, 1, 1, 1, 1, 1}, {1, 20, 12, 16, 40, 1, 1, 1, 1, 1}, {2, 8, 12, 8, 12, 2, 0, 0, 1, 1}, {1, 6, 6, 4, 4, 2, 1, 1, 1, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			b := newBench(t, d, uint64(500+i))
			oh, ow := (c.h+c.top+c.bottom-3)/c.stride+1, (c.w+c.left+c.right-3)/c.stride+1
			o := &device.ConvGrad{Grad: b.tensor(c.n, oh, ow, c.o, 2), Out: b.tensor(c.n, c.h, c.w, c.k, 0), Residual: b.tensor(c.n, c.h, c.w, c.k, 2),
				Weight: b.param(1/math.Sqrt(float64(9*c.o)), c.o, c.k, 3, 3), Stride: c.stride, Top: c.top, Left: c.left, Bottom: c.bottom, Right: c.right}
			b.p.Add(o)
			b.check(func() {
				y := make([]float64, o.Out.Len())
				for r := range o.Out.Rows() {
					for k := range c.k {
						y[r*c.k+k] = b.get(o.Residual, r, k)
					}
				}
				w := b.weights(o.Weight)
				for r := range o.Grad.Rows() {
					n, oy, ox := r/(oh*ow), r/ow%oh, r%ow
					for tap := range 9 {
						iy, ix := oy*c.stride+tap/3-c.top, ox*c.stride+tap%3-c.left
						if iy < 0 || ix < 0 || iy >= c.h || ix >= c.w {
							continue
						}
						for j := range c.o {
							for k := range c.k {
								y[((n*c.h+iy)*c.w+ix)*c.k+k] += b.get(o.Grad, r, j) * float64(w[(j*c.k+k)*9+tap])
							}
						}
					}
				}
				b.put(o.Out, y)
			}, tol)
		})
	}
}

// put writes a whole window.
func (b *bench) put(t device.Tensor, y []float64) {
	for i, v := range y {
		*b.at(t, i/t.C, i%t.C) = float32(v)
	}
}

func linearGrad(t *testing.T, d device.Device, tol float64) {
	b := newBench(t, d, 520)
	const rows, k, out = 45, 20, 36
	o := &device.LinearGrad{Grad: b.tensor(rows, 1, 1, out, 2), Out: b.tensor(rows, 1, 1, k, 0), Residual: b.tensor(rows, 1, 1, k, 0), Weight: b.param(0.2, out, k)}
	b.p.Add(o)
	b.check(func() {
		y := make([]float64, rows*k)
		for i := range y {
			y[i] = b.get(o.Residual, i/k, i%k)
			for j := range out {
				y[i] += b.get(o.Grad, i/k, j) * float64(b.weights(o.Weight)[j*k+i%k])
			}
		}
		b.put(o.Out, y)
	}, tol)
}

func groupNormGrad(t *testing.T, d device.Device, tol float64) {
	for _, silu := range []bool{false, true} {
		t.Run(fmt.Sprint("silu ", silu), func(t *testing.T) {
			b := newBench(t, d, 530)
			const n, h, w, ch, groups = 3, 6, 5, 12, 3
			o := &device.GroupNormGrad{In: b.tensor(n, h, w, ch, 2), Grad: b.tensor(n, h, w, ch, 0), Out: b.tensor(n, h, w, ch, 4), Residual: b.tensor(n, h, w, ch, 0),
				Gamma: b.param(1, ch), Beta: b.param(1, ch), Groups: groups, Eps: 1e-5, Silu: silu}
			b.p.Add(o)
			b.check(func() {
				const px, per = h * w, ch / groups
				y := make([]float64, n*px*ch)
				for img := range n {
					for g := range groups {
						var sum, sq, m1, m2 float64
						each := func(f func(r, c int)) {
							for r := img * px; r < (img+1)*px; r++ {
								for c := g * per; c < (g+1)*per; c++ {
									f(r, c)
								}
							}
						}
						each(func(r, c int) { sum += b.get(o.In, r, c) / (px * per) })
						each(func(r, c int) { sq += math.Pow(b.get(o.In, r, c)-sum, 2) / (px * per) })
						inv := 1 / math.Sqrt(sq+1e-5)
						hat := func(r, c int) float64 { return (b.get(o.In, r, c) - sum) * inv }
						grad := func(r, c int) float64 {
							gamma := float64(b.weights(o.Gamma)[c])
							v := b.get(o.Grad, r, c) * gamma
							if silu {
								z := hat(r, c)*gamma + float64(b.weights(o.Beta)[c])
								s := 1 / (1 + math.Exp(-z))
								v *= s * (1 + z*(1-s))
							}
							return v
						}
						each(func(r, c int) {
							m1 += grad(r, c) / (px * per)
							m2 += grad(r, c) * hat(r, c) / (px * per)
						})
						each(func(r, c int) { y[r*ch+c] = inv*(grad(r, c)-m1-hat(r, c)*m2) + b.get(o.Residual, r, c) })
					}
				}
				b.put(o.Out, y)
			}, tol)
		})
	}
}

func attentionGrad(t *testing.T, d device.Device, tol float64) {
	b := newBench(t, d, 540)
	const n, l, heads, dim, ch, scale = 2, 19, 2, 8, 16, 0.4
	qkv, out := b.tensor(n, 1, l, 3*ch, 0), b.tensor(n, 1, l, 3*ch, 0)
	o := &device.AttentionGrad{Q: qkv.Channels(0, ch), K: qkv.Channels(ch, ch), V: qkv.Channels(2*ch, ch), Grad: b.tensor(n, 1, l, ch, 0),
		GradQ: out.Channels(0, ch), GradK: out.Channels(ch, ch), GradV: out.Channels(2*ch, ch), Heads: heads, Scale: scale}
	b.p.Add(o)
	b.check(func() {
		y := make([]float64, n*l*3*ch)
		for img := range n {
			for h := range heads {
				for i := range l {
					row := img*l + i
					var p, dp [l]float64
					var sum, mean float64
					for j := range l {
						for x := h * dim; x < (h+1)*dim; x++ {
							p[j] += b.get(o.Q, row, x) * b.get(o.K, img*l+j, x)
							dp[j] += b.get(o.Grad, row, x) * b.get(o.V, img*l+j, x)
						}
						p[j] = math.Exp(scale * p[j])
						sum += p[j]
					}
					for j := range l {
						p[j] /= sum
						mean += p[j] * dp[j]
					}
					for j := range l {
						ds := scale * p[j] * (dp[j] - mean)
						for x := h * dim; x < (h+1)*dim; x++ {
							y[row*3*ch+x] += ds * b.get(o.K, img*l+j, x)
							y[(img*l+j)*3*ch+ch+x] += ds * b.get(o.Q, row, x)
							y[(img*l+j)*3*ch+2*ch+x] += p[j] * b.get(o.Grad, row, x)
						}
					}
				}
			}
		}
		b.put(out, y)
	}, tol)
}
