//go:build cuda

package cuda

import (
	"fmt"
	"runtime"

	"gorgonia.org/cu"

	"dreamcad/inference/field"
)

// fields implements [field.Engine] with the kernels of kernels/field.cu. What it holds
// belongs to the goroutine that owns the context.
type fields struct {
	card *Card
	idle []room
	list *rayList // the last one, for the next fit
}

// Fields is the card's engine for fields. Its sums have no fixed order, so a card
// that was opened to be deterministic leaves fields to the processor.
func (c *Card) Fields() field.Engine {
	if c.options.Deterministic {
		return field.CPU{}
	}
	return &c.fields
}

// room is device memory that fits and pictures take turns in.
type room struct {
	ptr   Ptr
	bytes int64
}

const mostIdle = 3

func (f *fields) take(bytes int64) (room, error) {
	best := -1
	for i, r := range f.idle {
		if r.bytes >= bytes && (best < 0 || r.bytes < f.idle[best].bytes) {
			best = i
		}
	}
	if best >= 0 {
		r := f.idle[best]
		f.idle = append(f.idle[:best], f.idle[best+1:]...)
		return r, nil
	}
	p, err := f.card.allocate(bytes, "a field")
	return room{p, bytes}, err
}

func (f *fields) give(r room) {
	f.idle = append(f.idle, r)
	if len(f.idle) <= mostIdle {
		return
	}
	least := 0
	for i, r := range f.idle {
		if r.bytes < f.idle[least].bytes {
			least = i
		}
	}
	f.card.release(f.idle[least].ptr, f.idle[least].bytes)
	f.idle = append(f.idle[:least], f.idle[least+1:]...)
}

// rayList is a [field.Rays] on the card. Rays only grow, so fits of one object share
// what is there already.
type rayList struct {
	rays  *field.Rays
	len   int
	ptr   Ptr
	bytes int64
	users int // fits, and one while it is the last
}

func (f *fields) rays(r *field.Rays) (*rayList, error) {
	const bytes = field.RayBytes
	n := r.Len()
	l := f.list
	if l == nil || l.rays != r || int64(n)*bytes > l.bytes {
		room := int64(n) * bytes * field.RayGrowth
		p, err := f.card.allocate(room, "the rays of a field")
		if err != nil {
			return nil, err
		}
		f.drop(l)
		l = &rayList{rays: r, ptr: p, bytes: room, users: 1}
		f.list = l
	}
	if n > l.len {
		packed := make([]float32, (n-l.len)*field.RayFloats)
		r.Pack(l.len, packed)
		if err := f.card.upload(l.ptr+Ptr(l.len*bytes), true, packed); err != nil {
			return nil, err
		}
		l.len = n
	}
	l.users++
	return l, nil
}

func (f *fields) drop(l *rayList) {
	if l == nil {
		return
	}
	if l.users--; l.users == 0 {
		f.card.release(l.ptr, l.bytes)
	}
}

// held is what a fit has on the card.
type held struct {
	fields *fields
	room   room
	rays   *rayList
}

func (h *held) release() {
	h.fields.give(h.room)
	h.fields.drop(h.rays)
}

// fit implements [field.Fitter].
type fit struct {
	card    *Card
	plan    *field.Plan
	grid    *field.Grid
	end     int
	it      int
	p       FitParams
	held    *held
	cleanup runtime.Cleanup
}

// Fit implements [field.Engine].
func (f *fields) Fit(g *field.Grid, active []bool, rays *field.Rays, cfg field.Schedule, seed uint64) (field.Fitter, error) {
	plan, err := field.NewPlan(g, active, rays, cfg, seed)
	if err != nil {
		return nil, err
	}
	voxels := plan.Voxels()
	lo, hi := plan.Box()
	n := int64(g.N)
	cells := n * n * n
	h := g.Voxel()
	t := &fit{card: f.card, plan: plan, grid: g, end: cfg.Iterations}
	t.p = FitParams{
		Seed: int64(seed), N: int32(n), Active: int32(len(voxels)), Count: int32(rays.Len()), Rays: int32(cfg.Rays), Dt: h * field.StepLength,
		X0: lo[0], Y0: lo[1], Z0: lo[2], X1: hi[0], Y1: hi[1], Z1: hi[2],
		Colour: cfg.Colour / float32(cfg.Rays), Opacity: cfg.Opacity / float32(cfg.Rays), InverseH: 1 / h,
	}
	err = f.card.do(func() error {
		room, err := f.take(field.FitBytes(g.N, len(voxels)))
		if err != nil {
			return err
		}
		list, err := f.rays(rays)
		if err != nil {
			f.give(room)
			return err
		}
		t.held = &held{f, room, list}
		t.p.List = list.ptr
		at := room.ptr
		part := func(bytes int64) Ptr {
			p := at
			at += Ptr((bytes + 255) &^ 255)
			return p
		}
		t.p.Grid, t.p.Next = part(16*cells), part(16*cells)
		zero := at
		t.p.Grad, t.p.M, t.p.V, t.p.Lap = part(16*cells), part(16*cells), part(16*cells), part(4*cells)
		zeros := int64(at - zero)
		t.p.Cell, t.p.Voxels = part(cells), part(4*int64(len(voxels)))
		if err := t.fill(voxels, zero, zeros); err != nil {
			t.held.release()
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fit a field on the card: %w", err)
	}
	// A fit that is given up before its end leaves its memory to the collector.
	t.cleanup = runtime.AddCleanup(t, func(h *held) {
		go func() {
			_ = h.fields.card.do(func() error {
				h.release()
				return nil
			})
		}()
	}, t.held)
	return t, nil
}

func (t *fit) fill(voxels []int32, zero Ptr, zeros int64) error {
	c := t.card
	if err := c.upload(t.p.Grid, true, t.grid.V); err != nil {
		return err
	}
	if err := cu.MemcpyDtoDAsync(cu.DevicePtr(t.p.Next), cu.DevicePtr(t.p.Grid), int64(len(t.grid.V))*4, c.stream); err != nil {
		return err
	}
	if err := cu.MemsetD8Async(cu.DevicePtr(zero), 0, zeros, c.stream); err != nil {
		return err
	}
	return c.upload(t.p.Voxels, true, words(voxels))
}

// Step implements [field.Fitter]. It queues the iterations; only the last waits for the
// card.
func (t *fit) Step(n int) (bool, error) {
	if t.it >= t.end {
		return true, nil
	}
	err := t.card.do(func() error {
		l := launcher{card: t.card}
		for end := min(t.it+n, t.end); t.it < end; t.it++ {
			if err := t.iterate(&l); err != nil {
				return err
			}
		}
		if l.err != nil || t.it < t.end {
			return l.err
		}
		t.cleanup.Stop()
		defer t.held.release()
		return t.card.download(t.p.Grid, true, t.grid.V)
	})
	if err != nil {
		return false, fmt.Errorf("fit a field on the card: %w", err)
	}
	return t.it >= t.end, nil
}

func (t *fit) iterate(l *launcher) error {
	q, k := t.p, t.plan.Constants(t.it)
	p := &q // alone in its memory: what is passed to C may not lie beside pointers
	p.It, p.InverseBeta, p.Threshold = int32(t.it), k.InvBeta, k.Threshold
	p.Bilaplace, p.Laplace, p.Eikonal, p.ColourTv = k.Bilaplace, k.Laplace, k.Eikonal, k.ColourTV
	p.Rate, p.ColourRate, p.Bias = k.Rate, k.ColourRate, k.Bias
	voxels := blocks(int(p.Active), fieldThreads)
	if k.Look {
		if err := l.look(p, int64(p.N)*int64(p.N)*int64(p.N)); err != nil {
			return err
		}
	}
	l.fit(kFitTrace, along(blocks(int(p.Rays), fieldThreads/32)+voxels), p)
	l.fit(kFitUpdate, along(voxels), p)
	t.p.Grid, t.p.Next = t.p.Next, t.p.Grid
	return nil
}

// look marks the cells of a grid where a sample may be visible.
func (l *launcher) look(p *FitParams, cells int64) error {
	if err := cu.MemsetD8Async(cu.DevicePtr(p.Cell), 0, cells, l.card.stream); err != nil {
		return err
	}
	l.fit(kFitMark, along(blocks(int(p.Active), fieldThreads)), p)
	return nil
}

const fieldThreads = 128 // of a block, in every kernel of fields

func blocks(n, size int) int { return (n + size - 1) / size }

func along(n int) grid { return grid{x: n, y: 1, z: 1, threads: fieldThreads} }

// Render implements [field.Engine].
func (f *fields) Render(g *field.Grid, cams []field.Camera, size int, beta float64) ([]field.Picture, error) {
	if len(cams) == 0 {
		return nil, nil
	}
	cameras := make([]float32, len(cams)*field.CameraFloats)
	for i, c := range cams {
		field.PackCamera(c, size, cameras[i*field.CameraFloats:])
	}
	pixels := len(cams) * size * size
	out := make([]float32, pixels*5)
	b := float32(beta) * g.Voxel()
	err := f.card.do(func() error {
		cells := int64(g.N) * int64(g.N) * int64(g.N)
		r, err := f.take(field.DrawBytes(g.N, len(cams), size))
		if err != nil {
			return err
		}
		defer f.give(r)
		look := FitParams{Grid: r.ptr, Cell: r.ptr + Ptr(16*cells), N: int32(g.N), Active: int32(cells), Threshold: -field.Cutoff * b}
		at := (look.Cell + Ptr(cells) + 255) &^ 255
		p := DrawParams{Grid: r.ptr, Cell: look.Cell, Image: at, Alpha: at + Ptr(pixels)*12, Depth: at + Ptr(pixels)*16, Cameras: at + Ptr(pixels)*20,
			N: int32(g.N), Size: int32(size), Pictures: int32(len(cams)), Dt: g.Voxel() * field.DrawLength, InverseBeta: 1 / b}
		if err := f.card.upload(p.Grid, true, g.V); err != nil {
			return err
		}
		if err := f.card.upload(p.Cameras, true, cameras); err != nil {
			return err
		}
		l := launcher{card: f.card}
		if err := l.look(&look, cells); err != nil {
			return err
		}
		l.draw(kFieldDraw, along(blocks(pixels, fieldThreads/32)), &p)
		if l.err != nil {
			return l.err
		}
		return f.card.download(p.Image, true, out)
	})
	if err != nil {
		return nil, fmt.Errorf("draw a field on the card: %w", err)
	}
	pictures := make([]field.Picture, len(cams))
	area := size * size
	part := func(start, i, n int) []float32 { return out[start+i*n : start+(i+1)*n : start+(i+1)*n] }
	for i := range pictures {
		pictures[i] = field.Picture{
			Image:   field.Image{Size: size, Pix: part(0, i, 3*area)},
			Opacity: part(3*pixels, i, area), Depth: part(4*pixels, i, area),
		}
	}
	return pictures, nil
}
