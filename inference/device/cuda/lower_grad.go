//go:build cuda

package cuda

import (
	"fmt"

	"dreamcad/inference/device"
)

func (l *lowering) groupNormGrad(o *device.GroupNormGrad) error {
	gamma, beta, err := l.card.weights.affine(o.Gamma, o.Beta)
	if err != nil {
		return err
	}
	in, grad, residual, out := l.view(o.In), l.view(o.Grad), l.view(o.Residual), l.view(o.Out)
	if in.f != 0 || grad.f != 0 || residual.f != 0 || out.f != 0 {
		return fmt.Errorf("the gradient of a group norm over full-precision buffers is not there on the card")
	}
	n, hw, c := o.In.N, o.In.H*o.In.W, o.In.C
	p := GroupNormGradParams{X: in.h, Grad: grad.h, Residual: residual.h, Out: out.h, Gamma: gamma.ptr, Beta: beta.ptr, HW: int32(hw), C: int32(c),
		Ldx: int32(in.ld), Ldg: int32(grad.ld), Ldr: int32(residual.ld), Ldo: int32(out.ld), Groups: int32(o.Groups), Eps: o.Eps}
	if o.Silu {
		p.Silu = 1
	}
	if !in.aligned() || !grad.aligned() || !out.aligned() || (residual.C != 0 && !residual.aligned()) || c > 8*256 {
		if l.mode == modeLaunch {
			l.launcher.groupNormGrad(kGroupGradAny, grid{x: o.Groups, y: n, z: 1, threads: 256}, &p)
		}
		return nil
	}
	// Large images go one by one, so that the second and the third reading find them in the cache.
	images := n
	if int64(hw)*int64(c)*4 <= cachedBytes && int64(n)*int64(hw)*int64(c)*4 > cachedBytes {
		images = 1
	}
	lanes := 256 / (c / 8)
	chunks := max(1, min(4*l.card.info.Threads/images, hw/(4*lanes)))
	p.Pixels = int32((hw + chunks - 1) / chunks)
	p.Chunks = int32((hw + int(p.Pixels) - 1) / int(p.Pixels))
	whole := int64(images) * int64(o.Groups) * 8
	parts := l.room(whole * int64(p.Chunks))
	p.Stats, p.Sums = l.room(whole), l.room(whole)
	kept := l.kept(o.In, o.Groups, o.Eps)
	if kept != 0 {
		p.Stats = kept
	}
	if l.mode != modeLaunch {
		return nil
	}
	total := func(out Ptr) {
		l.groupTotal(kGroupTotal, grid{x: images, y: 1, z: 1, threads: 1024}, &GroupTotalParams{Parts: parts, Out: out, Chunks: p.Chunks, Groups: p.Groups})
	}
	for first := 0; first < n; first += images {
		at := grid{x: int(p.Chunks), y: images, z: 1, threads: 256, shared: lanes * c * 8}
		if kept == 0 {
			l.launcher.groupNorm(kGroupStats, at, &GroupNormParams{X: p.X, Stats: parts, HW: p.HW, C: p.C, Ldx: p.Ldx, Groups: p.Groups, Chunks: p.Chunks, Pixels: p.Pixels})
			total(p.Stats)
		}
		at.shared += 4 * o.Groups * 4
		q := p
		q.Sums = parts
		l.launcher.groupNormGrad(kGroupGradSums, at, &q)
		total(p.Sums)
		l.launcher.groupNormGrad(kGroupGradApply, at, &p)
		if kept != 0 {
			p.Stats += Ptr(whole)
		}
		pixels := Ptr(images*hw) * 2
		p.X, p.Grad, p.Out = p.X+pixels*Ptr(in.ld), p.Grad+pixels*Ptr(grad.ld), p.Out+pixels*Ptr(out.ld)
		if p.Residual != 0 {
			p.Residual += pixels * Ptr(residual.ld)
		}
	}
	return nil
}

// cachedBytes is what of an operation's operands may be expected to stay in the second-level cache.
const cachedBytes = 36 << 20

// gradGain keeps the gradients of scores, which are smaller than other gradients by about the number of keys,
// inside the range of fp16; the products behind them take it out again.
const gradGain = 64

// attentionGrad computes scores and their gradients as whole matrices, one head after the other.
func (l *lowering) attentionGrad(o *device.AttentionGrad) error {
	q, k, v, g := l.view(o.Q), l.view(o.K), l.view(o.V), l.view(o.Grad)
	gq, gk, gv := l.view(o.GradQ), l.view(o.GradK), l.view(o.GradV)
	n, t, d := o.Q.N, o.Q.W, o.Q.C/o.Heads
	for _, x := range []view{q, k, v, g, gq, gk, gv} {
		if !x.aligned() || d%8 != 0 {
			return fmt.Errorf("the gradient of an attention with heads of %d channels is not there on the card: it takes fp16 and multiples of 8", d)
		}
	}
	ld := (t + 7) &^ 7
	square, flat := int64(n)*int64(t)*int64(ld)*2, int64(n)*int64(d)*int64(ld)*2
	scores, slopes, turned := l.room(square), l.room(square), l.room(square)
	narrow := l.room(flat)
	// batch is a product of every sequence: out (t, columns) = alpha · a (t, depth) · bᵀ, b of so many columns.
	type matrix struct {
		at     Ptr
		ld     int
		stride int64 // from one sequence to the next
	}
	of := func(v view, h int) matrix { return matrix{v.h + Ptr(h*d)*2, v.ld, int64(t) * int64(v.ld)} }
	full := func(p Ptr) matrix { return matrix{p, ld, int64(t) * int64(ld)} }
	batch := func(a, b, out matrix, columns, depth int, alpha float32) {
		e := EpilogueParams{Out: out.at, Ldo: int32(out.ld), M: int32(t), N: int32(columns), Splits: 1, Alpha: alpha, Wide: 1}
		l.product(&GemmParams{A: a.at, Weights: b.at, Ldw: int32(b.ld), BatchA: a.stride, BatchW: b.stride, BatchOut: out.stride, E: e,
			K: int32(depth), H: 1, W: int32(t), OH: 1, OW: int32(t), C: int32(depth), Lda: int32(a.ld), KW: 1, Stride: 1, Batched: int32(n)})
	}
	turn := func(in matrix, columns int, out Ptr) {
		if l.mode == modeLaunch {
			l.transpose(kTranspose, grid{x: (columns + 31) / 32, y: (t + 31) / 32, z: n, threads: 256},
				&TransposeParams{In: in.at, Out: out, B: int32(n), R: int32(t), C: int32(columns), Ldi: int32(in.ld), Ldo: int32(ld)})
		}
	}
	across := matrix{narrow, ld, int64(d) * int64(ld)}
	for h := range o.Heads {
		batch(of(q, h), of(k, h), full(scores), t, d, o.Scale)
		batch(of(g, h), of(v, h), full(slopes), t, d, 1)
		if l.mode == modeLaunch {
			l.launcher.attentionGrad(kAttentionGradRows, grid{x: n * t, y: 1, z: 1, threads: 256},
				&AttentionGradParams{P: scores, D: slopes, M: int32(n * t), C: int32(t), Ld: int32(ld), Gain: gradGain})
		}
		turn(of(k, h), d, narrow)
		batch(full(slopes), across, of(gq, h), d, ld, o.Scale/gradGain)
		turn(of(q, h), d, narrow)
		turn(full(slopes), t, turned)
		batch(full(turned), across, of(gk, h), d, ld, o.Scale/gradGain)
		turn(of(g, h), d, narrow)
		turn(full(scores), t, turned)
		batch(full(turned), across, of(gv, h), d, ld, 1)
	}
	return nil
}
