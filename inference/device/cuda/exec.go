//go:build cuda

package cuda

import (
	"fmt"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cuda/driver"
)

// arena is the memory of planned values and of what operations need beside
// them. Programs take turns and nothing planned outlives a run, so all share
// one arena as large as the largest wants. Growing it moves every address;
// programs notice by the generation and capture their graph again.
type arena struct {
	card       *Card
	ptr        Ptr
	bytes      int64
	generation int
}

func (a *arena) ensure(bytes int64) error {
	if bytes <= a.bytes {
		return nil
	}
	if err := a.card.synchronize(); err != nil {
		return err
	}
	a.card.release(a.ptr, a.bytes)
	a.ptr, a.bytes = 0, 0
	a.generation++
	p, err := a.card.allocate(bytes, "the working memory of a network")
	if err != nil {
		return err
	}
	a.ptr, a.bytes = p, bytes
	return nil
}

// partialBytes is the room for sums of a split depth, at the start of the scratch memory.
const partialBytes = 32 << 20

// exec implements [device.Exec].
type exec struct {
	card       *Card
	program    *device.Program
	offsets    []int // of planned values, elements
	readers    map[device.ValueID]int
	planned    int64 // bytes
	scratch    int64 // bytes, with kept
	kept       map[keptKey]int64
	keptBytes  int64
	graph      driver.Graph
	captured   bool
	generation int
}

// Compile implements [device.Device].
func (c *Card) Compile(p *device.Program) (device.Exec, error) {
	if err := p.Err(); err != nil {
		return nil, err
	}
	e := &exec{card: c, program: p, readers: map[device.ValueID]int{}}
	for _, o := range p.Ops {
		reads, _ := o.Operands()
		for _, r := range reads {
			if r.Present() {
				e.readers[r.Value]++
			}
		}
	}
	e.keep()
	var total int
	e.offsets, total = device.Plan(p, 128, 0)
	e.planned = int64(total) * 2
	err := c.do(func() error {
		// Converts weights and measures the scratch memory.
		dry := e.lowering(modeDry)
		if err := dry.all(); err != nil {
			return err
		}
		e.scratch = partialBytes + dry.scratchMax + e.keptBytes
		if err := c.weights.settle(); err != nil {
			return err
		}
		if err := c.arena.ensure(e.planned + e.scratch); err != nil {
			return err
		}
		if err := e.lowering(modeTune).all(); err != nil {
			return err
		}
		c.tuner.save()
		return e.capture()
	})
	if err != nil {
		return nil, fmt.Errorf("compile %q for the card: %w", p.Name, err)
	}
	return e, nil
}

// keptKey names the statistics of a group norm.
type keptKey struct {
	in     device.Tensor
	groups int
	eps    float32
}

// keep finds the group norms whose statistics their gradients can use, and their places behind the scratch memory.
func (e *exec) keep() {
	wanted := map[keptKey]bool{}
	for _, o := range e.program.Ops {
		if g, ok := o.(*device.GroupNormGrad); ok {
			wanted[keptKey{g.In, g.Groups, g.Eps}] = true
		}
	}
	e.kept = map[keptKey]int64{}
	for _, o := range e.program.Ops {
		n, ok := o.(*device.GroupNorm)
		if !ok || n.Add.Present() || !wanted[keptKey{n.In, n.Groups, n.Eps}] {
			continue
		}
		e.kept[keptKey{n.In, n.Groups, n.Eps}] = e.keptBytes
		e.keptBytes += (int64(n.In.N)*int64(n.Groups)*8 + 255) &^ 255
	}
}

func (e *exec) capture() error {
	if e.captured {
		_ = e.graph.Destroy()
		e.captured = false
	}
	stream := e.card.raw()
	if err := driver.Capture(stream); err != nil {
		return err
	}
	err := e.lowering(modeLaunch).all()
	graph, ferr := driver.Finish(stream)
	if err != nil {
		return err
	}
	if ferr != nil {
		return ferr
	}
	e.graph, e.captured, e.generation = graph, true, e.card.arena.generation
	return nil
}

// Run implements [device.Exec]: it queues the graph; reading a buffer waits for it.
func (e *exec) Run() error {
	return e.card.do(func() error {
		if !e.captured || e.generation != e.card.arena.generation {
			if err := e.card.arena.ensure(e.planned + e.scratch); err != nil {
				return err
			}
			if err := e.capture(); err != nil {
				return err
			}
		}
		return e.graph.Launch(e.card.raw())
	})
}

// ArenaBytes implements [device.Exec].
func (e *exec) ArenaBytes() int64 { return e.planned + e.scratch }

// Free implements [device.Exec].
func (e *exec) Free() {
	_ = e.card.do(func() error {
		if e.captured {
			e.captured = false
			return e.graph.Destroy()
		}
		return nil
	})
}
