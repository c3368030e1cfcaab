//go:build cuda

package cuda

import (
	"fmt"

	"dreamcad/inference/device"
)

// mode is what a walk over the operations is for.
type mode int

const (
	modeDry    mode = iota // prepare weights, count scratch memory
	modeTune               // choose algorithms by measuring
	modeLaunch             // queue the kernels
)

// lowering turns operations into launches.
type lowering struct {
	launcher
	e          *exec
	mode       mode
	scratchAt  int64 // taken by the present operation
	scratchMax int64
}

func (e *exec) lowering(m mode) *lowering {
	return &lowering{launcher: launcher{card: e.card}, e: e, mode: m}
}

func (l *lowering) all() error {
	for i := 0; i < len(l.e.program.Ops); {
		n, err := l.next(i)
		if err == nil {
			err = l.err
		}
		if err != nil {
			return fmt.Errorf("operation %d (%T): %w", i, l.e.program.Ops[i], err)
		}
		i += n
	}
	return nil
}

// next lowers operation i, with the one behind it where both make one kernel, and returns how many these were.
func (l *lowering) next(i int) (int, error) {
	l.scratchAt = 0
	if norm, o := l.folds(i); norm != nil {
		return 2, l.linear(o, norm)
	}
	if o, ok := l.e.program.Ops[i].(*device.Linear); ok {
		return 1, l.linear(o, nil)
	}
	return 1, l.op(l.e.program.Ops[i])
}

// folds tells whether operation i is a layer norm that the linear layer right behind it can take over. In front of a gated
// layer, which has many tiles and a long end for each, a norm of its own was faster.
func (l *lowering) folds(i int) (*device.LayerNorm, *device.Linear) {
	ops := l.e.program.Ops
	if l.card.cc != 90 || i+1 == len(ops) {
		return nil, nil
	}
	norm, _ := ops[i].(*device.LayerNorm)
	o, _ := ops[i+1].(*device.Linear)
	if norm == nil || o == nil || o.In != norm.Out || o.In.C%64 != 0 || o.Act == device.GEGLU || l.e.readers[o.In.Value] != 1 || l.e.program.Values[o.In.Value].Buffer != nil {
		return nil, nil
	}
	in, out, residual := l.view(norm.In), l.view(o.Out), l.view(o.Residual)
	// The plan lets the norm's input end with the norm, so the layer's result may lie in its place.
	if !in.aligned() || !out.aligned() || (residual.C != 0 && !residual.aligned()) || in.overlaps(out) {
		return nil, nil
	}
	return norm, o
}

func (l *lowering) op(o device.Op) error {
	switch o := o.(type) {
	case *device.Conv:
		return l.conv(o)
	case *device.ConvGrad:
		return l.convGrad(o)
	case *device.LinearGrad:
		return l.linearGrad(o)
	case *device.GroupNormGrad:
		return l.groupNormGrad(o)
	case *device.AttentionGrad:
		return l.attentionGrad(o)
	case *device.GroupNorm:
		return l.groupNorm(o)
	case *device.LayerNorm:
		return l.layerNorm(o)
	case *device.Attention:
		return l.attention(o)
	case *device.Elementwise:
		return l.elementwise(o)
	case *device.Combine:
		return l.combine(o)
	}
	return fmt.Errorf("the card has no kernel for it yet; use the CPU device")
}

// view is a window in device memory.
type view struct {
	device.Shape
	h  Ptr // fp16, or 0
	f  Ptr // fp32, or 0
	ld int
}

func (l *lowering) view(t device.Tensor) view {
	if !t.Present() {
		return view{}
	}
	v := l.e.program.Values[t.Value]
	at := Ptr(t.Row)*Ptr(t.Pitch) + Ptr(t.Offset)
	out := view{Shape: t.Shape, ld: t.Pitch}
	if v.Buffer == nil {
		out.h = l.card.arena.ptr + Ptr(l.e.offsets[t.Value])*2 + at*2
		return out
	}
	b, ok := v.Buffer.(*buffer)
	if !ok || b.card != l.card {
		l.err = fmt.Errorf("a buffer of another device")
		return out
	}
	if b.full {
		out.f = b.ptr + at*4
	} else {
		out.h = b.ptr + at*2
	}
	return out
}

// overlaps tells whether two fp16 windows span common memory.
func (v view) overlaps(w view) bool {
	end := func(v view) Ptr { return v.h + Ptr(v.Rows()*v.ld)*2 }
	return v.h < end(w) && w.h < end(v)
}

// aligned tells whether rows of the window can be read by 16 bytes.
func (v view) aligned() bool {
	return v.f == 0 && v.C%8 == 0 && v.ld%8 == 0 && v.h%16 == 0
}

// room reserves scratch memory until the end of the operation.
func (l *lowering) room(bytes int64) Ptr {
	p := l.card.arena.ptr + Ptr(l.e.planned+partialBytes+l.scratchAt)
	l.scratchAt += (bytes + 255) &^ 255
	l.scratchMax = max(l.scratchMax, l.scratchAt)
	return p
}

// kept is where the statistics of a group norm stay for its gradient, 0 when they do not.
func (l *lowering) kept(in device.Tensor, groups int, eps float32) Ptr {
	at, ok := l.e.kept[keptKey{in, groups, eps}]
	if !ok {
		return 0
	}
	return l.card.arena.ptr + Ptr(l.e.planned+l.e.scratch-l.e.keptBytes+at)
}

func (l *lowering) partials() Ptr { return l.card.arena.ptr + Ptr(l.e.planned) }

// epilogue fills the common part; out and residual are windows of n columns.
func (l *lowering) epilogue(out, residual view, m, n int, act device.Activation, bias Ptr) EpilogueParams {
	e := EpilogueParams{
		Out: out.h, Out32: out.f, Ldo: int32(out.ld), Residual: residual.h, Residual32: residual.f, Ldr: int32(residual.ld),
		Bias: bias, Partial: l.partials(), M: int32(m), N: int32(n), Act: activation(act), Splits: 1, Alpha: 1,
	}
	if out.aligned() && (residual.C == 0 || residual.aligned()) {
		e.Wide = 1
	}
	return e
}

// activation is the number that the kernels know.
func activation(a device.Activation) int32 {
	switch a {
	case device.SiLU:
		return 1
	case device.GELU:
		return 2
	case device.GEGLU:
		return 3
	}
	return 0
}

// linear computes a linear layer, of normalised rows when there is a norm.
func (l *lowering) linear(o *device.Linear, norm *device.LayerNorm) error {
	in, out := l.view(o.In), l.view(o.Out)
	rows, n := o.In.Rows(), o.Out.C
	wf, bf := formMatrix, formVector
	if o.Act == device.GEGLU {
		if n%8 != 0 {
			return fmt.Errorf("a gated linear layer of width %d: the card needs a multiple of 8", n)
		}
		n *= 2
		wf, bf = formGEGLU, formVectors
	}
	if norm != nil {
		f, err := l.card.weights.folded(o, norm, wf, bf)
		if err != nil {
			return err
		}
		e := l.epilogue(out, l.view(o.Residual), rows, n, o.Act, f.shift)
		e.Fold, e.FoldEps, e.FoldScale = f.sums, norm.Eps, 1/float32(o.In.C)
		l.matrix(l.view(norm.In), rows, o.In.C, f.weight, e)
		return nil
	}
	w, err := l.card.weights.get(o.Weight, wf)
	if err != nil {
		return err
	}
	b, err := l.card.weights.get(o.Bias, bf)
	if err != nil {
		return err
	}
	l.matrix(in, rows, o.In.C, w, l.epilogue(out, l.view(o.Residual), rows, n, o.Act, b.ptr))
	return nil
}

// matrix computes rows of in times w.
func (l *lowering) matrix(in view, rows, k int, w weight, e EpilogueParams) {
	if !in.aligned() {
		in = l.gathered(in, device.Shape{N: rows, H: 1, W: 1, C: k}, geometry{kh: 1, kw: 1, stride: 1, oh: 1, ow: 1})
		k = in.C
	}
	l.product(&GemmParams{A: in.h, Weights: w.ptr, Ldw: int32(w.ld), E: e, K: int32(k), H: 1, W: int32(rows), OH: 1, OW: int32(rows),
		C: int32(k), Lda: int32(in.ld), KW: 1, Stride: 1})
}

// geometry of a convolution in source pixels (after enlarging).
type geometry struct {
	kh, kw, stride, top, left, oh, ow int
	shift, parity                     int32
}

// gathered copies the source of a convolution into rows that the matrix kernels can read.
func (l *lowering) gathered(in view, s device.Shape, g geometry) view {
	k := g.kh * g.kw * s.C
	ld := (k + 7) &^ 7
	m := int64(s.N) * int64(g.oh) * int64(g.ow)
	out := view{Shape: device.Shape{N: int(m), H: 1, W: 1, C: ld}, ld: ld, h: l.room(m * int64(ld) * 2)}
	if l.mode == modeLaunch {
		l.gather(kGather, spread(m*int64(ld)), &GatherParams{In: in.h, In32: in.f, Out: out.h, M: m, H: int32(s.H), W: int32(s.W), OH: int32(g.oh), OW: int32(g.ow),
			C: int32(s.C), Ldi: int32(in.ld), KH: int32(g.kh), KW: int32(g.kw), Stride: int32(g.stride), Top: int32(g.top), Left: int32(g.left),
			Shift: g.shift, Parity: g.parity, Ldo: int32(ld)})
	}
	return out
}

func (l *lowering) conv(o *device.Conv) error {
	b, err := l.card.weights.get(o.Bias, formVector)
	if err != nil {
		return err
	}
	e := l.epilogue(l.view(o.Out), l.view(o.Residual), o.Out.Rows(), o.Out.C, device.None, b.ptr)
	if l.quads(o.Upsample, o.In, o.Out.H, o.Out.W, o.Weight) {
		return l.quad(l.view(o.In), o.Weight, formQuad, e)
	}
	w, err := l.card.weights.get(o.Weight, formMatrix)
	if err != nil {
		return err
	}
	g := geometry{kh: o.Weight.Shape[2], kw: o.Weight.Shape[3], stride: o.Stride, top: o.Top, left: o.Left, oh: o.Out.H, ow: o.Out.W}
	if o.Upsample {
		g.shift = 1
	}
	l.convolve(l.view(o.In), g, w, e)
	return nil
}

// quads tells whether an operation that makes an image of h×w, twice the size of in, with the kernel p can be
// computed as four convolutions of 2×2: one for each place in a square of four pixels.
func (l *lowering) quads(doubles bool, in device.Tensor, h, w int, p *device.Param) bool {
	if !doubles || l.card.cc != 90 || in.C%64 != 0 || h != 2*in.H || w != 2*in.W || p.Shape[2] != 3 || p.Shape[3] != 3 {
		return false
	}
	_, _, _, ok := box(in.H, in.W)
	v := l.view(in)
	return ok && v.aligned() && in.Rows()%128 == 0
}

func (l *lowering) quad(in view, p *device.Param, f form, e EpilogueParams) error {
	w, err := l.card.weights.get(p, f)
	if err != nil {
		return err
	}
	e.QuadH, e.QuadW = int32(in.H), int32(in.W)
	l.product(&GemmParams{A: in.h, Weights: w.ptr, Ldw: int32(w.ld), E: e, K: int32(4 * in.C), H: int32(in.H), W: int32(in.W), OH: int32(in.H), OW: int32(in.W),
		C: int32(in.C), Lda: int32(in.ld), KW: 2, Stride: 1, Top: 1, Left: 1})
	return nil
}

func (l *lowering) convolve(in view, g geometry, w weight, e EpilogueParams) {
	if !in.aligned() {
		rows := l.gathered(in, in.Shape, g)
		l.matrix(rows, rows.N, rows.C, w, e)
		return
	}
	if g.shift == 1 && g.parity == 0 && l.card.cc == 90 && in.C%64 == 0 {
		// The Hopper kernel reads boxes of the tensor, so the enlarged image has to exist.
		big := view{Shape: device.Shape{N: in.N, H: 2 * in.H, W: 2 * in.W, C: in.C}, ld: in.C}
		big.h = l.room(int64(big.Len()) * 2)
		if l.mode == modeLaunch {
			l.elementwiseParams(big, in)
		}
		in, g.shift = big, 0
	}
	l.product(&GemmParams{A: in.h, Weights: w.ptr, Ldw: int32(w.ld), E: e, K: int32(g.kh * g.kw * in.C), H: int32(in.H), W: int32(in.W), OH: int32(g.oh), OW: int32(g.ow),
		C: int32(in.C), Lda: int32(in.ld), KW: int32(g.kw), Stride: int32(g.stride), Top: int32(g.top), Left: int32(g.left), Shift: g.shift, Parity: g.parity})
}

// elementwiseParams enlarges src twice into dst.
func (l *lowering) elementwiseParams(dst, src view) {
	l.enlarge(kEnlarge, spread(int64(dst.Len()/8)), &EnlargeParams{In: src.h, Out: dst.h, N: int64(dst.Len() / 8), W: int32(dst.W), H: int32(dst.H), C: int32(dst.C), Ldi: int32(src.ld)})
}

func (l *lowering) convGrad(o *device.ConvGrad) error {
	kh, kw := o.Weight.Shape[2], o.Weight.Shape[3]
	e := l.epilogue(l.view(o.Out), l.view(o.Residual), o.Out.Rows(), o.Out.C, device.None, 0)
	if l.quads(o.Stride == 2 && o.Top == o.Left && o.Top <= 1, o.Grad, o.Out.H, o.Out.W, o.Weight) {
		return l.quad(l.view(o.Grad), o.Weight, formQuadGrad+form(o.Top), e)
	}
	w, err := l.card.weights.get(o.Weight, formGrad)
	if err != nil {
		return err
	}
	g := geometry{kh: kh, kw: kw, stride: 1, top: kh - 1 - o.Top, left: kw - 1 - o.Left, oh: o.Out.H, ow: o.Out.W}
	switch o.Stride {
	case 1:
	case 2:
		g.shift, g.parity = 1, 1
	default:
		return fmt.Errorf("the gradient of a convolution of stride %d is not there on the card", o.Stride)
	}
	l.convolve(l.view(o.Grad), g, w, e)
	return nil
}

func (l *lowering) linearGrad(o *device.LinearGrad) error {
	w, err := l.card.weights.get(o.Weight, formGrad)
	if err != nil {
		return err
	}
	rows := o.Out.Rows()
	l.matrix(l.view(o.Grad), rows, o.Grad.C, w, l.epilogue(l.view(o.Out), l.view(o.Residual), rows, o.Out.C, device.None, 0))
	return nil
}
