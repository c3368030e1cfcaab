//go:build cuda

package cuda

import (
	"dreamcad/inference/device/cuda/driver"
)

// tile is one compiled form of the matrix kernel.
type tile struct {
	kernel  kernelID
	bm, bn  int
	stages  int
	threads int
	blocks  int // on a multiprocessor at once
	hopper  bool
	folding bool // normalises the rows of A
}

var genericTiles = []tile{
	{kernel: kGemm128x128, bm: 128, bn: 128, stages: 3, threads: 256, blocks: 1},
	{kernel: kGemm128x64, bm: 128, bn: 64, stages: 3, threads: 256, blocks: 2},
	{kernel: kGemm64x64, bm: 64, bn: 64, stages: 4, threads: 128, blocks: 3},
	{kernel: kGemm64x32, bm: 64, bn: 32, stages: 4, threads: 128, blocks: 4},
}

// hopperTiles need wgmma and the tensor memory accelerator: compute capability 9.0 exactly.
var hopperTiles = []tile{
	{kernel: kHopper64x4, bm: 128, bn: 64, stages: 4, threads: 288, blocks: 2, hopper: true},
	{kernel: kHopper80x4, bm: 128, bn: 80, stages: 4, threads: 288, blocks: 2, hopper: true},
	{kernel: kHopper128x3, bm: 128, bn: 128, stages: 3, threads: 288, blocks: 2, hopper: true},
	{kernel: kHopper80x8, bm: 128, bn: 80, stages: 8, threads: 288, blocks: 1, hopper: true},
	{kernel: kHopper128x6, bm: 128, bn: 128, stages: 6, threads: 288, blocks: 1, hopper: true},
	{kernel: kHopper160x6, bm: 128, bn: 160, stages: 6, threads: 288, blocks: 1, hopper: true},
	{kernel: kHopper192x5, bm: 128, bn: 192, stages: 5, threads: 288, blocks: 1, hopper: true},
	{kernel: kHopper256x4, bm: 128, bn: 256, stages: 4, threads: 288, blocks: 1, hopper: true},
	{kernel: kFolding64x4, bm: 128, bn: 64, stages: 4, threads: 288, blocks: 2, hopper: true, folding: true},
	{kernel: kFolding80x4, bm: 128, bn: 80, stages: 4, threads: 288, blocks: 2, hopper: true, folding: true},
	{kernel: kFolding128x3, bm: 128, bn: 128, stages: 3, threads: 288, blocks: 2, hopper: true, folding: true},
	{kernel: kFolding160x6, bm: 128, bn: 160, stages: 6, threads: 288, blocks: 1, hopper: true, folding: true},
	{kernel: kFolding256x4, bm: 128, bn: 256, stages: 4, threads: 288, blocks: 1, hopper: true, folding: true},
}

// evictFirst is the cache policy of weights: 1.7 GB of them pass through the second-level cache in a step of the
// denoiser and push out activations, which are read again.
const evictFirst = 0x12F0000000000000

// shared is the dynamic shared memory of a tile in bytes.
func (t tile) shared() int {
	staging := t.bm * (t.bn + 8) * 4
	if t.hopper {
		b := (t.bn*128 + 1023) &^ 1023
		return max(t.stages*(t.bm*128+b), staging) + t.stages*16 + t.bm*8 + t.bn*8 + 1024
	}
	return max(t.stages*(t.bm+t.bn)*128, staging)
}

// choice is how a product is computed.
type choice struct {
	Kernel string `json:"kernel"`
	Splits int    `json:"splits"`
	tile   tile
}

// fits tells whether a tile can compute the product.
func (t tile) fits(c *Card, p *GemmParams) bool {
	if t.shared() > c.maxShared || t.folding != (p.E.Fold != 0) {
		return false
	}
	if !t.hopper {
		return p.E.QuadH == 0
	}
	if c.cc != 90 || p.Batched != 0 || p.Shift != 0 || p.Stride > 2 {
		return false
	}
	if p.K == p.C && p.KW == 1 && p.Stride == 1 {
		return p.Top == 0 && p.Left == 0
	}
	if p.C%64 != 0 {
		return false
	}
	_, _, _, ok := box(int(p.OH), int(p.OW))
	return ok
}

// box splits 128 consecutive output pixels into part of a row, rows or images.
func box(h, w int) (bw, bh, bb int, ok bool) {
	switch {
	case w%128 == 0:
		return 128, 1, 1, true
	case w > 128 || 128%w != 0:
		return 0, 0, 0, false
	case h*w%128 == 0:
		return w, 128 / w, 1, true
	case 128%(h*w) == 0:
		return w, h, 128 / (h * w), true
	}
	return 0, 0, 0, false
}

// steps is the depth in tiles of 64.
func (t tile) steps(p *GemmParams) int {
	if t.hopper {
		taps := int(p.K) / int(p.C)
		return taps * ((int(p.C) + 63) / 64)
	}
	return (int(p.K) + 63) / 64
}

// run queues the product computed in this way.
func (l *lowering) run(p *GemmParams, c choice) {
	t := c.tile
	q := *p
	q.E.Splits = int32(c.Splits)
	m, n := int(p.E.M), int(p.E.N)
	mt, nt := (m+t.bm-1)/t.bm, (n+t.bn-1)/t.bn
	z := max(c.Splits, int(p.Batched))
	if t.hopper {
		h, err := l.hopperParams(&q, t, nt)
		if err != nil {
			l.err = err
			return
		}
		l.hopper(t.kernel, grid{x: mt * nt, y: 1, z: z, threads: t.threads, shared: t.shared()}, h)
	} else {
		l.gemm(t.kernel, grid{x: nt, y: mt, z: z, threads: t.threads, shared: t.shared()}, &q)
	}
	if c.Splits > 1 {
		width := 8
		if q.E.Act == 3 {
			width = 16
		}
		units := m * ((n + width - 1) / width)
		l.reduce(kReduceSplit, grid{x: (units + 255) / 256, y: 1, z: 1, threads: 256}, &ReduceParams{E: q.E})
	}
}

func (l *lowering) hopperParams(p *GemmParams, t tile, nt int) (*HopperParams, error) {
	c, taps := int(p.C), int(p.K)/int(p.C)
	h := &HopperParams{E: p.E, Ksteps: int32((c + 63) / 64), Taps: int32(taps), KW: p.KW, Stride: p.Stride, Top: p.Top, Left: p.Left, Ntiles: int32(nt),
		Policy: evictFirst}
	ld := uint64(p.Lda) * 2
	var err error
	parts := uint64(1)
	if p.E.QuadH != 0 {
		parts = 4
	}
	if taps == 1 && p.KW == 1 && p.Stride == 1 {
		m := uint64(p.E.M)
		h.OW, h.OHW = p.E.M, p.E.M
		h.A, err = driver.NewTensorMap(uintptr(p.A), []uint64{uint64(c), m, 1, 1}, []uint64{ld, ld * m, ld * m}, []uint32{64, 128, 1, 1}, 1)
	} else {
		bw, bh, bb, _ := box(int(p.OH), int(p.OW))
		images := uint64(p.E.M) / (parts * uint64(p.OH*p.OW))
		w, hh := uint64(p.W), uint64(p.H)
		h.OW, h.OHW = p.OW, p.OH*p.OW
		h.A, err = driver.NewTensorMap(uintptr(p.A), []uint64{uint64(c), w, hh, images}, []uint64{ld, ld * w, ld * w * hh},
			[]uint32{64, uint32(bw), uint32(bh), uint32(bb)}, int(p.Stride))
	}
	if err != nil {
		return nil, err
	}
	h.W, err = driver.NewTensorMap(uintptr(p.Weights), []uint64{uint64(p.K), parts * uint64(p.E.N)}, []uint64{uint64(p.Ldw) * 2}, []uint32{64, uint32(t.bn)}, 1)
	return h, err
}
