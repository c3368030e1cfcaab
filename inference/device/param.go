package device

import (
	"fmt"
	"slices"
	"sync"
)

// Weights gives a network the tensors of a checkpoint by their key.
type Weights interface {
	// Shape of a tensor, false if there is none of that name.
	Shape(name string) ([]int, bool)
	// Float32 converts len(dst) elements from element offset on.
	Float32(name string, offset int, dst []float32) error
}

// RawWeights is what a Weights may also offer: the stored bytes, so that a
// device of the same element type can copy them without a detour.
type RawWeights interface {
	// Raw returns the little-endian elements, dtype "F16", "BF16" or "F32".
	Raw(name string) (dtype string, data []byte, ok bool)
}

// Param is a weight as operations name it. It may stack several tensors of the
// checkpoint along the first dimension (to_q, to_k, to_v become one Linear).
// A device converts it at the first Compile that mentions it and keeps the
// result by the Param's address: share Params between the programs of a network.
type Param struct {
	Name    string   // for messages
	Shape   []int    // of the whole: [O, K], [O, K, kh, kw] or [C]
	Tensors []string // keys of the stacked tensors
	Source  Weights
}

// Len is the number of elements.
func (p *Param) Len() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Load converts the weight to fp32; dst has Len() elements.
func (p *Param) Load(dst []float32) error {
	for _, name := range p.Tensors {
		shape, _ := p.Source.Shape(name)
		n := 1
		for _, d := range shape {
			n *= d
		}
		if n > len(dst) {
			return fmt.Errorf("load weight %q: its parts exceed %v", p.Name, p.Shape)
		}
		if err := p.Source.Float32(name, 0, dst[:n]); err != nil {
			return fmt.Errorf("load weight %q: %w", name, err)
		}
		dst = dst[n:]
	}
	return nil
}

// Loader makes the Params of one checkpoint. It gives the same Param for the same
// key each time, and it remembers the first thing that was wrong, so that a
// network is built without an error check at each weight.
type Loader struct {
	prefix string
	shared *loaded
}

type loaded struct {
	source Weights
	mu     sync.Mutex
	params map[string]*Param
	err    error
}

// NewLoader reads tensors whose keys start with prefix.
func NewLoader(src Weights, prefix string) *Loader {
	return &Loader{prefix, &loaded{source: src, params: map[string]*Param{}}}
}

// In is a loader for the keys below a further prefix; it shares the error.
func (l *Loader) In(prefix string) *Loader { return &Loader{l.prefix + prefix, l.shared} }

// Err is the first missing or wrongly shaped weight.
func (l *Loader) Err() error {
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	return l.shared.err
}

// Param finds one tensor and demands its shape. A 1×1 kernel may be asked for
// as a matrix and the reverse: trailing ones do not count.
func (l *Loader) Param(name string, shape ...int) *Param {
	s := l.shared
	name = l.prefix + name
	got, ok := s.source.Shape(name)
	p := s.once(&Param{Name: name, Shape: shape, Tensors: []string{name}, Source: s.source})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
	case !ok:
		s.err = fmt.Errorf("the weights hold no tensor %q", name)
	case !slices.Equal(trim(got), trim(shape)):
		s.err = fmt.Errorf("tensor %q has shape %v, but the model needs %v", name, got, shape)
	}
	return p
}

// Stack puts params of this checkpoint over each other along the first dimension.
func (l *Loader) Stack(name string, ps ...*Param) *Param {
	out := &Param{Name: name, Shape: slices.Clone(ps[0].Shape), Source: l.shared.source}
	out.Shape[0] = 0
	for _, p := range ps {
		out.Shape[0] += p.Shape[0]
		out.Tensors = append(out.Tensors, p.Tensors...)
	}
	return l.shared.once(out)
}

// once returns the first Param of these tensors in this shape.
func (s *loaded) once(p *Param) *Param {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(p.Shape, p.Tensors)
	if q := s.params[key]; q != nil {
		return q
	}
	s.params[key] = p
	return p
}

func trim(s []int) []int {
	for len(s) > 1 && s[len(s)-1] == 1 {
		s = s[:len(s)-1]
	}
	return s
}
