package vae

import "dreamcad/inference/device"

// tape remembers the operations of a forward pass and records their gradients
// with respect to their inputs in reverse. Every tensor on it is a whole value.
// A nil tape remembers nothing.
type tape struct {
	steps []func()
	grads map[device.ValueID]device.Tensor
	last  device.ValueID // the network's input, whose gradient goes to
	to    device.Tensor
}

func (t *tape) push(f func()) {
	if t != nil {
		t.steps = append(t.steps, f)
	}
}

func (t *tape) back() {
	for i := len(t.steps) - 1; i >= 0; i-- {
		t.steps[i]()
	}
}

// target is where the gradient of x goes: a new value, to which what is known of
// that gradient already is to be added.
func (t *tape) target(p *device.Program, x device.Tensor) (out, known device.Tensor) {
	known = t.grads[x.Value]
	out = p.Like(x, x.C)
	if x.Value == t.last {
		out = t.to
	}
	t.grads[x.Value] = out
	return out, known
}

// residual passes the gradient g of a sum on to its second term, which no
// operation behind the sum reads: nothing is known of its gradient yet.
func (t *tape) residual(x, g device.Tensor) {
	if x.Present() {
		t.grads[x.Value] = g
	}
}

func (t *tape) conv(p *device.Program, o *device.Conv) {
	t.push(func() {
		g := t.grads[o.Out.Value]
		t.residual(o.Residual, g)
		out, known := t.target(p, o.In)
		p.Add(&device.ConvGrad{Grad: g, Out: out, Residual: known, Weight: o.Weight, Stride: o.Stride, Top: o.Top, Left: o.Left, Bottom: o.Bottom, Right: o.Right})
	})
}

func (t *tape) linear(p *device.Program, o *device.Linear) {
	t.push(func() {
		g := t.grads[o.Out.Value]
		t.residual(o.Residual, g)
		out, known := t.target(p, o.In)
		p.Add(&device.LinearGrad{Grad: g, Out: out, Residual: known, Weight: o.Weight})
	})
}

func (t *tape) norm(p *device.Program, o *device.GroupNorm) {
	t.push(func() {
		g := t.grads[o.Out.Value]
		out, known := t.target(p, o.In)
		p.Add(&device.GroupNormGrad{In: o.In, Grad: g, Out: out, Residual: known, Gamma: o.Gamma, Beta: o.Beta, Groups: o.Groups, Eps: o.Eps, Silu: o.Silu})
	})
}

// attention: qkv (N, H, W, 3C) holds queries, keys and values, out (N, H, W, C).
func (t *tape) attention(p *device.Program, o *device.Attention, qkv, out device.Tensor) {
	t.push(func() {
		c, s := o.Q.C, o.Q.Shape
		g, _ := t.target(p, qkv)
		w := g.As(s.N, s.H, s.W)
		p.Add(&device.AttentionGrad{Q: o.Q, K: o.K, V: o.V, Grad: t.grads[out.Value].As(s.N, s.H, s.W),
			GradQ: w.Channels(0, c), GradK: w.Channels(c, c), GradV: w.Channels(2*c, c), Heads: o.Heads, Scale: o.Scale})
	})
}
