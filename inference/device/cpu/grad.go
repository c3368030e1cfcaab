package cpu

import (
	"fmt"

	"dreamcad/inference/device"
)

// convGrad is a convolution of the gradient with the kernel turned around and
// transposed; with stride 2, four of them, one for each parity of the input pixel.
func (c *compiler) convGrad(o *device.ConvGrad) error {
	outs, ins, kh, kw := o.Weight.Shape[0], o.Weight.Shape[1], o.Weight.Shape[2], o.Weight.Shape[3]
	l := layout{outs: ins, chans: outs, so: kh * kw, sc: ins * kh * kw}
	src, err := c.source(o.Grad, nil)
	if err != nil {
		return err
	}
	out, res := c.mat(o.Out), c.mat(o.Residual)
	switch {
	case o.Stride == 1:
		for t := range kh * kw {
			l.taps = append(l.taps, []int{kh*kw - 1 - t})
		}
		p, err := c.weight(o.Weight, nil, packGrad, l)
		if err != nil {
			return err
		}
		c.convolve(src, o.Grad.Shape, o.Out.Shape, kh, kw, 1, kh-1-o.Top, kw-1-o.Left, p, out, res)
		return nil
	case o.Stride == 2 && kh == 3 && kw == 3 && o.Out.H == 2*o.Grad.H && o.Out.W == 2*o.Grad.W:
		var phases [4]phase
		for i := range phases {
			// Input pixel 2y+py meets kernel row ky at output row y + (py+top-ky)/2.
			l.taps = nil
			for ky := range kh {
				for kx := range kw {
					dy, dx := i/2+o.Top-ky, i%2+o.Left-kx
					if dy%2 == 0 && dx%2 == 0 {
						l.taps = append(l.taps, []int{ky*kw + kx})
						phases[i].offsets = append(phases[i].offsets, [2]int{dy/2 + 1, dx/2 + 1})
					}
				}
			}
			if phases[i].pack, err = c.weight(o.Weight, nil, packGrad+packKind(i), l); err != nil {
				return err
			}
		}
		c.phased(src, o.Grad, phases, out, res)
		return nil
	}
	return fmt.Errorf("the gradient of a %d×%d kernel with stride %d from %v is not implemented", kh, kw, o.Stride, o.Grad.Shape)
}

// linearGrad multiplies by the weight instead of its transpose.
func (c *compiler) linearGrad(o *device.LinearGrad) error {
	p, err := c.weight(o.Weight, nil, packGrad, layout{outs: o.Out.C, chans: o.Grad.C, so: 1, sc: o.Out.C, taps: [][]int{{0}}})
	if err != nil {
		return err
	}
	return c.product(&output{k: c.k, out: c.mat(o.Out), res: c.mat(o.Residual)}, p, o.Grad, nil)
}

// groupNormGrad: with x̂ the normalised input, z = γx̂ + β and g the gradient with
// respect to z, dx = r·(γg - mean(γg) - x̂·mean(γg·x̂)) over each group.
func (c *compiler) groupNormGrad(o *device.GroupNormGrad) error {
	g, err := c.groupNorm(&device.GroupNorm{In: o.In, Gamma: o.Gamma, Beta: o.Beta, Groups: o.Groups, Eps: o.Eps, Silu: o.Silu})
	if err != nil {
		return err
	}
	if o.Residual.Present() && o.Residual.Value == o.Out.Value {
		return fmt.Errorf("the gradient of a norm cannot be added in place")
	}
	x, dy, out, res := c.mat(o.In), c.mat(o.Grad), c.mat(o.Out), c.mat(o.Residual)
	ch, per, px := o.In.C, o.In.C/o.Groups, g.pixels
	c.scratch = max(c.scratch, 2*ch)
	k := c.k
	c.job(o.In.N, func(w *worker, n int) {
		means, rs := make([]float32, ch), make([]float32, ch)
		for grp := range o.Groups {
			m, r := g.moments(n, grp)
			for i := grp * per; i < (grp+1)*per; i++ {
				means[i], rs[i] = float32(m), float32(r)
			}
		}
		z, e := w.scratch[:ch], w.scratch[ch:2*ch]
		first, second := make([]float64, ch), make([]float64, ch)
		for r := n * px; r < (n+1)*px; r++ {
			in, grad, dst := x.row(r), dy.row(r), out.row(r)
			if o.Silu {
				for i, v := range in {
					z[i] = (v-means[i])*rs[i]*g.gamma[i] + g.beta[i]
					e[i] = min(-z[i], 80)
				}
				w.row = rowArgs{dst: &e[0], src: &e[0], rows: 1, cols: ch}
				k.exp(&w.row)
				for i, v := range grad {
					s := 1 / (1 + e[i])
					dst[i] = v * s * (1 + z[i]*(1-s)) * g.gamma[i]
				}
			} else {
				for i, v := range grad {
					dst[i] = v * g.gamma[i]
				}
			}
			for i, v := range dst {
				first[i] += float64(v)
				second[i] += float64(v * (in[i] - means[i]) * rs[i])
			}
		}
		a, b := z, e
		for grp := range o.Groups {
			var s1, s2 float64
			for i := grp * per; i < (grp+1)*per; i++ {
				s1 += first[i]
				s2 += second[i]
			}
			for i := grp * per; i < (grp+1)*per; i++ {
				a[i], b[i] = float32(s1/float64(per*px)), float32(s2/float64(per*px))
			}
		}
		for r := n * px; r < (n+1)*px; r++ {
			in, dst := x.row(r), out.row(r)
			for i, v := range dst {
				dst[i] = rs[i] * (v - a[i] - (in[i]-means[i])*rs[i]*b[i])
			}
			if res.data != nil {
				for i, v := range res.row(r) {
					dst[i] += v
				}
			}
		}
	})
	return nil
}

// attentionGrad takes one query at a time, so that it holds one row of scores.
func (c *compiler) attentionGrad(o *device.AttentionGrad) error {
	q, k, v, g := c.mat(o.Q), c.mat(o.K), c.mat(o.V), c.mat(o.Grad)
	dq, dk, dv := c.mat(o.GradQ), c.mat(o.GradK), c.mat(o.GradV)
	l, d := o.Q.W, o.Q.C/o.Heads
	c.scratch = max(c.scratch, 2*l)
	c.job(o.Q.N*o.Heads, func(w *worker, task int) {
		n, h := task/o.Heads, task%o.Heads
		head := func(m mat, i int) []float32 { return m.data[(n*l+i)*m.pitch+h*d:][:d] }
		for j := range l {
			clear(head(dk, j))
			clear(head(dv, j))
		}
		p, dp := w.scratch[:l], w.scratch[l:2*l]
		for i := range l {
			qi, gi := head(q, i), head(g, i)
			top := float32(-1e30)
			for j := range l {
				p[j] = o.Scale * dot(qi, head(k, j))
				top = max(top, p[j])
			}
			var sum, mean float32
			for j := range l {
				p[j] = exp32(p[j] - top)
				sum += p[j]
			}
			for j := range l {
				p[j] /= sum
				dp[j] = dot(gi, head(v, j))
				mean += p[j] * dp[j]
			}
			di := head(dq, i)
			clear(di)
			for j := range l {
				ds := o.Scale * p[j] * (dp[j] - mean)
				kj, dkj, dvj := head(k, j), head(dk, j), head(dv, j)
				for x := range d {
					di[x] += ds * kj[x]
					dkj[x] += ds * qi[x]
					dvj[x] += p[j] * gi[x]
				}
			}
		}
	})
	return nil
}

func dot(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s += x * b[i]
	}
	return s
}
