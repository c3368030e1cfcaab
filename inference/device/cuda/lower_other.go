//go:build cuda

package cuda

import (
	"fmt"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cuda/driver"
)

func (l *lowering) groupNorm(o *device.GroupNorm) error {
	gamma, beta, err := l.card.weights.affine(o.Gamma, o.Beta)
	if err != nil {
		return err
	}
	in, out, add := l.view(o.In), l.view(o.Out), l.view(o.Add)
	if in.f != 0 || out.f != 0 || add.f != 0 {
		return fmt.Errorf("a group norm of a full-precision buffer is not there on the card")
	}
	p := GroupNormParams{X: in.h, Out: out.h, Add: add.h, Gamma: gamma.ptr, Beta: beta.ptr, HW: int32(o.In.H * o.In.W), C: int32(o.In.C),
		Ldx: int32(in.ld), Ldo: int32(out.ld), Lda: int32(add.ld), Groups: int32(o.Groups), Eps: o.Eps}
	if o.Silu {
		p.Silu = 1
	}
	if !o.Add.Present() {
		p.Kept = l.kept(o.In, o.Groups, o.Eps)
	}
	hw, c := o.In.H*o.In.W, o.In.C
	per := c / o.Groups
	wide := in.aligned() && out.aligned() && (add.C == 0 || add.aligned())
	even := per%2 == 0 && in.ld%2 == 0 && out.ld%2 == 0 && add.ld%2 == 0 && (in.h|out.h|add.h)%4 == 0
	var ways []way
	for _, k := range []struct {
		kernel         kernelID
		threads, pairs int
	}{{kGroup256, 256, 16}, {kGroup512, 512, 16}, {kGroup1024, 1024, 15}} {
		if even && hw*per/2 <= k.threads*k.pairs {
			ways = append(ways, way{kernelNames[k.kernel], func() {
				l.groupNormLaunch(k.kernel, grid{x: o.Groups, y: o.In.N, z: 1, threads: k.threads}, &p)
			}})
		}
	}
	if wide {
		for _, k := range []struct {
			kernel kernelID
			held   int
		}{{kGroupBundle, 10}, {kGroupBundle2, 2}} {
			if groups, threads := bundle(per, hw, k.held); threads != 0 && o.Groups%groups == 0 {
				q := p
				q.Chunks, q.Pixels = int32(groups), int32(groups*per)
				ways = append(ways, way{kernelNames[k.kernel], func() {
					l.groupNormLaunch(k.kernel, grid{x: o.Groups / groups, y: o.In.N, z: 1, threads: threads}, &q)
				}})
			}
		}
		ways = append(ways, way{kernelNames[kGroupApply], func() { l.groupNormTwice(p, o.In.N, o.In.N) }})
		if o.In.N > 1 {
			// One image after the other: what the first pass read is still in the cache for the second.
			ways = append(ways, way{"group_each", func() { l.groupNormTwice(p, o.In.N, 1) }})
		}
		p.Stats = l.room(int64(o.In.N) * (2*int64(l.card.info.Threads) + 1) * int64(o.Groups) * 8)
	}
	if len(ways) == 0 {
		ways = append(ways, way{kernelNames[kGroupAny], func() {
			l.groupNormLaunch(kGroupAny, grid{x: o.Groups, y: o.In.N, z: 1, threads: 256}, &p)
		}})
	}
	planned := l.e.program.Values[o.Out.Value].Buffer == nil
	l.best(fmt.Sprintf("group n%d hw%d c%d of %d", o.In.N, hw, c, o.Groups), planned, ways)
	return nil
}

// bundle is how many groups of so many channels make whole units of eight, and the threads of a block that keeps
// hw pixels of them with at most held for a thread, 0 when there are none.
func bundle(per, hw, held int) (groups, threads int) {
	if per < 8 && per != 4 {
		return 0, 0
	}
	groups = 1
	for groups*per%8 != 0 {
		groups *= 2
	}
	units := groups * per / 8
	step := units
	for step%32 != 0 {
		step += units
	}
	const most = 640
	for threads = step; threads <= most; threads += step {
		if pixels := threads / units; hw <= held*pixels && (hw <= 4*pixels || threads+step > 512) {
			return groups, threads
		}
	}
	return 0, 0
}

// groupNormTwice reads each batch of so many images twice, for the statistics and for the result.
func (l *lowering) groupNormTwice(p GroupNormParams, n, images int) {
	hw, c := int(p.HW), int(p.C)
	// Enough blocks to fill the card twice, each with at least a few rows of threads.
	lanes := max(1, 256/(c/8))
	chunks := max(1, min(2*l.card.info.Threads/images, hw/(4*lanes)))
	p.Pixels = int32((hw + chunks - 1) / chunks)
	p.Chunks = int32((hw + int(p.Pixels) - 1) / int(p.Pixels))
	q, parts := p, p.Stats // with many chunks a kernel of its own adds them up
	if p.Chunks > 64 {
		q.Stats, q.Chunks = parts+Ptr(images*int(p.Chunks)*int(p.Groups)*8), 1
	}
	for first := 0; first < n; first += images {
		l.groupNormLaunch(kGroupStats, grid{x: int(p.Chunks), y: images, z: 1, threads: 256, shared: lanes * c * 8}, &p)
		if q.Stats != parts {
			l.groupTotal(kGroupTotal, grid{x: images, y: 1, z: 1, threads: 1024}, &GroupTotalParams{Parts: parts, Out: q.Stats, Chunks: p.Chunks, Groups: p.Groups})
		}
		blocks := max(1, min(4*l.card.info.Threads/images, hw*c/8/512))
		l.groupNormLaunch(kGroupApply, grid{x: blocks, y: images, z: 1, threads: 256, shared: (2*c + 2*int(p.Groups)) * 4}, &q)
		p.X += Ptr(images*hw) * Ptr(p.Ldx) * 2
		q.X = p.X
		q.Out += Ptr(images*hw) * Ptr(p.Ldo) * 2
		if q.Kept != 0 {
			q.Kept += Ptr(images*int(p.Groups)) * 8
		}
		if p.Add != 0 {
			p.Add += Ptr(images) * Ptr(p.Lda) * 2
			q.Add = p.Add
		}
	}
}

func (l *lowering) groupNormLaunch(k kernelID, g grid, p *GroupNormParams) {
	l.launcher.groupNorm(k, g, p)
}

func (l *lowering) layerNorm(o *device.LayerNorm) error {
	gamma, beta, err := l.card.weights.affine(o.Gamma, o.Beta)
	if err != nil {
		return err
	}
	in, out := l.view(o.In), l.view(o.Out)
	if in.f != 0 || out.f != 0 {
		return fmt.Errorf("a layer norm of a full-precision buffer is not there on the card")
	}
	if l.mode != modeLaunch {
		return nil
	}
	k := kLayerNormAny
	if in.aligned() && out.aligned() {
		switch {
		case o.In.C <= 512:
			k = kLayerNorm512
		case o.In.C <= 1280:
			k = kLayerNorm1280
		case o.In.C <= 2048:
			k = kLayerNorm2048
		}
	}
	m := o.In.Rows()
	l.launcher.layerNorm(k, grid{x: (m + 7) / 8, y: 1, z: 1, threads: 256},
		&LayerNormParams{X: in.h, Out: out.h, Gamma: gamma.ptr, Beta: beta.ptr, M: int32(m), C: int32(o.In.C), Ldx: int32(in.ld), Ldo: int32(out.ld), Eps: o.Eps})
	return nil
}

// flashBytes is the shared memory of the fused attention for heads of d: queries, and two tiles of keys and values.
func flashBytes(d int) int { return 128*d*2 + 4*64*d*2 }

func (l *lowering) attention(o *device.Attention) error {
	q, k, v, out := l.view(o.Q), l.view(o.K), l.view(o.V), l.view(o.Out)
	if q.f != 0 || k.f != 0 || v.f != 0 || out.f != 0 {
		return fmt.Errorf("an attention over full-precision buffers is not there on the card")
	}
	d := o.Q.C / o.Heads
	p := AttentionParams{Q: q.h, K: k.h, V: v.h, Out: out.h, Lq: int32(o.Q.W), Lk: int32(o.K.W), Ldq: int32(q.ld), Ldk: int32(k.ld), Ldv: int32(v.ld), Ldo: int32(out.ld),
		Heads: int32(o.Heads), D: int32(d), Share: int32(o.Q.N / o.K.N), Scale: o.Scale}
	if o.Causal {
		p.Causal = 1
	}
	wide := q.aligned() && k.aligned() && v.aligned() && out.aligned()
	switch {
	case wide && d == 64 && l.card.cc == 90 && o.Out.C%8 == 0 && !o.Causal:
		return l.flash(o, q, k, v, out)
	case wide && (d == 32 || d == 64):
		if l.mode == modeLaunch {
			kernel := kFlash64
			if d == 32 {
				kernel = kFlash32
			}
			l.launcher.attention(kernel, grid{x: (o.Q.W + 127) / 128, y: o.Heads, z: o.Q.N, threads: 128, shared: flashBytes(d)}, &p)
		}
	case wide && d%8 == 0 && p.Share == 1 && o.K.W%8 == 0:
		l.attentionByProducts(o, q, k, v, out, d)
	default:
		if d > 8192/4 {
			return fmt.Errorf("attention heads of %d channels exceed what the card's kernel holds", d)
		}
		if l.mode == modeLaunch {
			l.launcher.attention(kAttentionAny, grid{x: (o.Q.W + 3) / 4, y: o.Heads, z: o.Q.N, threads: 128, shared: 4 * d * 4}, &p)
		}
	}
	return nil
}

// flash is the Hopper form: 128 queries a block, keys and values in tiles of 128.
func (l *lowering) flash(o *device.Attention, q, k, v, out view) error {
	if l.mode != modeLaunch {
		return nil
	}
	p := FlashParams{Out: out.h, Lq: int32(o.Q.W), Lk: int32(o.K.W), Ldo: int32(out.ld), Share: int32(o.Q.N / o.K.N), Scale: o.Scale}
	for _, m := range []struct {
		to *TensorMap
		v  view
	}{{&p.Q, q}, {&p.K, k}, {&p.V, v}} {
		row := uint64(m.v.ld) * 2
		var err error
		*m.to, err = driver.NewTensorMap(uintptr(m.v.h), []uint64{uint64(m.v.C), uint64(m.v.W), uint64(m.v.N)}, []uint64{row, row * uint64(m.v.W)}, []uint32{64, 128, 1}, 1)
		if err != nil {
			return err
		}
	}
	l.launcher.flash(kFlashHopper, grid{x: (o.Q.W + 127) / 128, y: o.Heads, z: o.Q.N, threads: 288, shared: flashHopperBytes}, &p)
	return nil
}

// flashHopperBytes is its shared memory: one tile of queries, two each of keys and values, barriers, alignment.
const flashHopperBytes = 5*128*64*2 + 128 + 1024

// attentionByProducts serves wide heads (the VAE's 512): scores, softmax and sums as three steps.
func (l *lowering) attentionByProducts(o *device.Attention, q, k, v, out view, d int) {
	g, lq, lk := o.Q.N, o.Q.W, o.K.W
	scores := l.room(int64(g) * int64(lq) * int64(lk) * 2)
	turned := l.room(int64(g) * int64(d) * int64(lk) * 2)
	for h := range o.Heads {
		at := Ptr(h*d) * 2
		e := EpilogueParams{Out: scores, Ldo: int32(lk), M: int32(lq), N: int32(lk), Splits: 1, Alpha: o.Scale, Wide: 1}
		l.product(&GemmParams{A: q.h + at, Weights: k.h + at, Ldw: int32(k.ld), BatchA: int64(lq) * int64(q.ld), BatchW: int64(lk) * int64(k.ld), BatchOut: int64(lq) * int64(lk), E: e,
			K: int32(d), H: 1, W: int32(lq), OH: 1, OW: int32(lq), C: int32(d), Lda: int32(q.ld), KW: 1, Stride: 1, Batched: int32(g)})
		if l.mode == modeLaunch {
			s := SoftmaxParams{X: scores, M: int32(g * lq), C: int32(lk), Ld: int32(lk), Rows: int32(lq)}
			if o.Causal {
				s.Causal = 1
			}
			l.softmax(kSoftmaxRows, grid{x: g * lq, y: 1, z: 1, threads: 256}, &s)
			l.transpose(kTranspose, grid{x: (d + 31) / 32, y: (lk + 31) / 32, z: g, threads: 256},
				&TransposeParams{In: v.h + at, Out: turned, B: int32(g), R: int32(lk), C: int32(d), Ldi: int32(v.ld), Ldo: int32(lk)})
		}
		e = EpilogueParams{Out: out.h + at, Ldo: int32(out.ld), M: int32(lq), N: int32(d), Splits: 1, Alpha: 1, Wide: 1}
		l.product(&GemmParams{A: scores, Weights: turned, Ldw: int32(lk), BatchA: int64(lq) * int64(lk), BatchW: int64(d) * int64(lk), BatchOut: int64(lq) * int64(out.ld), E: e,
			K: int32(lk), H: 1, W: int32(lq), OH: 1, OW: int32(lq), C: int32(lk), Lda: int32(lk), KW: 1, Stride: 1, Batched: int32(g)})
	}
}

func (l *lowering) elementwise(o *device.Elementwise) error {
	if l.mode != modeLaunch {
		return nil
	}
	in, out := l.view(o.In), l.view(o.Out)
	p := ElementwiseParams{In: in.h, In32: in.f, Out: out.h, Out32: out.f, Rows: int64(o.Out.Rows()), Inrows: int64(o.In.Rows()), C: int32(o.In.C),
		Ldi: int32(in.ld), Ldo: int32(out.ld), Act: activation(o.Act)}
	k, n := kElementwise, p.Rows*int64(p.C)
	if in.aligned() && out.aligned() {
		k, n = kElementwiseWide, n/8
	}
	l.launcher.elementwise(k, spread(n), &p)
	return nil
}

func (l *lowering) combine(o *device.Combine) error {
	if l.mode != modeLaunch {
		return nil
	}
	var t [4]view
	for i := range t {
		t[i] = l.view(o.Terms[i])
	}
	coef, out := l.view(o.Coef), l.view(o.Out)
	m := int64(o.Out.Rows())
	l.launcher.combine(kCombine, spread(m*int64(o.Out.C)), &CombineParams{T0: t[0].h, T1: t[1].h, T2: t[2].h, T3: t[3].h, F0: t[0].f, F1: t[1].f, F2: t[2].f, F3: t[3].f,
		Coef: coef.h, Coef32: coef.f, Out: out.h, Out32: out.f, M: m, C: int32(o.Out.C), Rows: int32(o.Out.H * o.Out.W),
		Ld0: int32(t[0].ld), Ld1: int32(t[1].ld), Ld2: int32(t[2].ld), Ld3: int32(t[3].ld), Ldc: int32(coef.ld), Ldo: int32(out.ld)})
	return nil
}
