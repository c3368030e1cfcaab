package device

import (
	"errors"
	"fmt"
)

// Program is a recorded network: operations over values. It is built by one
// goroutine; a recording error stays with it and surfaces in Compile.
type Program struct {
	Name   string
	Ops    []Op
	Values []Value
	err    error
}

// Value is memory that operations read and write: planned by the device, or an
// outside buffer.
type Value struct {
	Shape  Shape
	Buffer Buffer // nil for a planned value
}

// NewProgram starts an empty recording.
func NewProgram(name string) *Program { return &Program{Name: name} }

// New plans a value. Its contents are undefined until written.
func (p *Program) New(n, h, w, c int) Tensor {
	return p.value(Value{Shape: Shape{n, h, w, c}})
}

// Like plans a value of the pixels of t with c channels.
func (p *Program) Like(t Tensor, c int) Tensor { return p.New(t.N, t.H, t.W, c) }

// Bind makes a buffer readable and writable in the program.
func (p *Program) Bind(b Buffer) Tensor {
	return p.value(Value{Shape: b.Shape(), Buffer: b})
}

func (p *Program) value(v Value) Tensor {
	p.Values = append(p.Values, v)
	return Tensor{Shape: v.Shape, Value: ValueID(len(p.Values) - 1), Pitch: v.Shape.C}
}

// Err is the first error of the recording.
func (p *Program) Err() error { return p.err }

// Add appends an operation after checking its shapes.
func (p *Program) Add(o Op) {
	if p.err != nil {
		return
	}
	err := check(o)
	reads, writes := o.Operands()
	for _, t := range append(reads, writes...) {
		if err == nil && t.Present() {
			err = p.inside(t)
		}
	}
	if err != nil {
		p.err = fmt.Errorf("program %q, operation %d (%T): %w", p.Name, len(p.Ops), o, err)
		return
	}
	p.Ops = append(p.Ops, o)
}

func (p *Program) inside(t Tensor) error {
	if int(t.Value) >= len(p.Values) {
		return errors.New("operand of another program")
	}
	v := p.Values[t.Value].Shape
	if t.Row < 0 || t.Offset < 0 || t.Pitch != v.C || t.Offset+t.C > v.C || t.Row+t.Rows() > v.Rows() {
		return fmt.Errorf("window %+v exceeds value %+v", t, v)
	}
	return nil
}

func check(o Op) error {
	want := func(ok bool, what string, args ...any) error {
		if ok {
			return nil
		}
		return fmt.Errorf(what, args...)
	}
	same := func(t Tensor, s Shape) bool { return !t.Present() || t.Shape == s }
	size := func(p *Param, n int) bool { return p == nil || p.Len() == n }
	switch o := o.(type) {
	case *Linear:
		out := o.Out.C
		if o.Act == GEGLU {
			out *= 2
		}
		return want(o.Weight.Len() == out*o.In.C && o.In.Rows() == o.Out.Rows() && size(o.Bias, out) && (!o.Residual.Present() || o.Residual.Rows() == o.Out.Rows() && o.Residual.C == o.Out.C),
			"in %v, weight %v, out %v, residual %v", o.In.Shape, o.Weight.Shape, o.Out.Shape, o.Residual.Shape)
	case *Conv:
		kh, kw, err := kernel(o.Weight, o.Out.C, o.In.C)
		if err != nil {
			return err
		}
		up := 1
		if o.Upsample {
			up = 2
		}
		h, w := (up*o.In.H+o.Top+o.Bottom-kh)/o.Stride+1, (up*o.In.W+o.Left+o.Right-kw)/o.Stride+1
		return want(o.Out.Shape == Shape{o.In.N, h, w, o.Out.C} && size(o.Bias, o.Out.C) && same(o.Residual, o.Out.Shape), "in %v, out %v, residual %v", o.In.Shape, o.Out.Shape, o.Residual.Shape)
	case *ConvGrad:
		kh, kw, err := kernel(o.Weight, o.Grad.C, o.Out.C)
		if err != nil {
			return err
		}
		h, w := (o.Out.H+o.Top+o.Bottom-kh)/o.Stride+1, (o.Out.W+o.Left+o.Right-kw)/o.Stride+1
		return want(o.Grad.Shape == Shape{o.Out.N, h, w, o.Grad.C} && same(o.Residual, o.Out.Shape), "gradient %v, out %v", o.Grad.Shape, o.Out.Shape)
	case *LinearGrad:
		return want(o.Weight.Len() == o.Grad.C*o.Out.C && o.Grad.Rows() == o.Out.Rows() && same(o.Residual, o.Out.Shape), "gradient %v, weight %v, out %v", o.Grad.Shape, o.Weight.Shape, o.Out.Shape)
	case *GroupNorm:
		return want(o.In.Shape == o.Out.Shape && o.In.C%o.Groups == 0 && same(o.Add, Shape{o.In.N, 1, 1, o.In.C}) && size(o.Gamma, o.In.C) && size(o.Beta, o.In.C), "in %v, out %v, add %v, %d groups", o.In.Shape, o.Out.Shape, o.Add.Shape, o.Groups)
	case *GroupNormGrad:
		return want(o.In.Shape == o.Out.Shape && o.Grad.Shape == o.Out.Shape && same(o.Residual, o.Out.Shape) && o.In.C%o.Groups == 0, "in %v, gradient %v, out %v", o.In.Shape, o.Grad.Shape, o.Out.Shape)
	case *LayerNorm:
		return want(o.In.Rows() == o.Out.Rows() && o.In.C == o.Out.C && size(o.Gamma, o.In.C), "in %v, out %v", o.In.Shape, o.Out.Shape)
	case *Attention:
		return want(o.Q.Shape == o.Out.Shape && o.K.Shape == o.V.Shape && o.K.C == o.Q.C && o.Q.C%o.Heads == 0 && o.Q.N%o.K.N == 0 && o.Q.H == 1 && o.K.H == 1 && (!o.Causal || o.Q.W == o.K.W), "q %v, k %v, out %v, %d heads", o.Q.Shape, o.K.Shape, o.Out.Shape, o.Heads)
	case *AttentionGrad:
		s := o.Q.Shape
		ok := s.C%o.Heads == 0 && s.H == 1
		for _, t := range []Tensor{o.K, o.V, o.Grad, o.GradQ, o.GradK, o.GradV} {
			ok = ok && t.Shape == s
		}
		return want(ok, "shapes differ from q %v", s)
	case *Elementwise:
		return want(o.Out.N%o.In.N == 0 && o.Out.Rows()*o.In.N == o.In.Rows()*o.Out.N && o.In.C == o.Out.C && o.Act != GEGLU, "in %v, out %v", o.In.Shape, o.Out.Shape)
	case *Combine:
		ok := o.Coef.Shape == Shape{o.Out.N, 1, 1, 4}
		for _, t := range o.Terms {
			ok = ok && same(t, o.Out.Shape)
		}
		return want(ok, "coefficients %v, out %v", o.Coef.Shape, o.Out.Shape)
	}
	return fmt.Errorf("unknown operation")
}

func kernel(w *Param, out, in int) (kh, kw int, err error) {
	if len(w.Shape) != 4 || w.Shape[0] != out || w.Shape[1] != in {
		return 0, 0, fmt.Errorf("kernel %v between %d and %d channels", w.Shape, in, out)
	}
	return w.Shape[2], w.Shape[3], nil
}
