package inference

import (
	"fmt"

	"dreamcad/inference/device"
)

// compiled is a compiled program with its input and output buffers.
type compiled struct {
	exec    device.Exec
	in, out []device.Buffer
}

func (p *compiled) free() {
	if p.exec != nil {
		p.exec.Free()
	}
	for _, b := range append(p.in, p.out...) {
		b.Free()
	}
}

// compile builds a program between fresh buffers: inputs of full precision, results
// of the given one.
func (m *Model) compile(name string, in, out []device.Shape, results device.Precision, record func(p *device.Program, in, out []device.Tensor) error) (*compiled, error) {
	p, r := device.NewProgram(name), &compiled{}
	bind := func(shapes []device.Shape, of device.Precision, to *[]device.Buffer) (ts []device.Tensor, err error) {
		for _, s := range shapes {
			b, err := m.dev.NewBuffer(s, of)
			if err != nil {
				return nil, err
			}
			*to = append(*to, b)
			ts = append(ts, p.Bind(b))
		}
		return ts, nil
	}
	ins, err := bind(in, device.Full, &r.in)
	if err == nil {
		var outs []device.Tensor
		if outs, err = bind(out, results, &r.out); err == nil {
			err = record(p, ins, outs)
		}
	}
	if err == nil {
		r.exec, err = m.dev.Compile(p)
	}
	if err != nil {
		r.free()
		return nil, fmt.Errorf("prepare the %s of model %q: %w", name, m.Bundle.Name, err)
	}
	return r, nil
}

// start writes the inputs and runs; on a card that only queues the work.
func (p *compiled) start(in ...[]float32) error {
	for i, x := range in {
		if err := p.in[i].Write(x); err != nil {
			return err
		}
	}
	return p.exec.Run()
}

// run writes the inputs, executes and returns the first output.
func (p *compiled) run(in ...[]float32) ([]float32, error) {
	if err := p.start(in...); err != nil {
		return nil, err
	}
	out := make([]float32, p.out[0].Shape().Len())
	return out, p.out[0].Read(out)
}

// recent is a program whose latest results stay on the device, under names. A result
// that had to make room is computed again, to the same numbers.
type recent struct {
	*compiled
	kept    device.Buffer // of one result (N, H, W, C) after the other: (slots·N, H, W, C)
	results []kept
	clock   int
}

type kept struct {
	name string
	used int // when it was last asked for; 0: nothing is here
}

// keep takes over p, whose result is its first output, of working precision.
func (m *Model) keep(p *compiled, slots int) (*recent, error) {
	s := p.out[0].Shape()
	s.N *= slots
	b, err := m.dev.NewBuffer(s, device.Working)
	if err != nil {
		p.free()
		return nil, err
	}
	return &recent{compiled: p, kept: b, results: make([]kept, slots)}, nil
}

func (r *recent) free() {
	r.compiled.free()
	r.kept.Free()
}

// at is the first image of kept that belongs to the result of this name; compute
// starts the program when it is not there.
func (r *recent) at(name string, compute func() error) (int, error) {
	r.clock++
	n, slot := r.out[0].Shape().N, 0
	for i, k := range r.results {
		if k.used > 0 && k.name == name {
			r.results[i].used = r.clock
			return i * n, nil
		}
		if k.used < r.results[slot].used {
			slot = i
		}
	}
	r.results[slot].used = 0
	if err := compute(); err != nil {
		return 0, err
	}
	if err := r.kept.Copy(slot*n, r.out[0], 0, n); err != nil {
		return 0, err
	}
	r.results[slot] = kept{name, r.clock}
	return slot * n, nil
}
