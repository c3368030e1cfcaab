// Package cpu is the device of the processor itself: fp32, Go assembly for AVX2
// and AVX-512, all cores. It is the specification of the others.
//
// Every heavy operation is a loop over independent tasks: a prologue brings a
// strip of the input (normalised, padded) into the worker's own memory, a matrix
// kernel multiplies it with prepacked weights without any packing of
// activations, and an epilogue writes the result. See matmul.go.
package cpu

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"dreamcad/inference/device"
)

// Options choose how the device runs.
type Options struct {
	Threads int    // 0 means all that the process may use
	Kernels string // "avx512", "avx2", "portable" or "" for the best
}

// Device is the processor.
type Device struct {
	mu     sync.Mutex // one program at a time, and the caches
	k      *kernels
	pool   *pool
	packed map[packKey]*pack
	closed bool
}

// New starts the device's workers; Close stops them.
func New(o Options) (*Device, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	for _, k := range available() {
		if o.Kernels == "" || o.Kernels == k.name {
			return &Device{k: k, pool: newPool(o.Threads), packed: map[packKey]*pack{}}, nil
		}
	}
	return nil, fmt.Errorf("this processor does not have %q; choose among %v", o.Kernels, KernelNames())
}

// KernelNames lists the code paths that this processor can run, best first.
func KernelNames() []string {
	var names []string
	for _, k := range available() {
		names = append(names, k.name)
	}
	return names
}

// Info implements device.Device.
func (d *Device) Info() device.Info {
	return device.Info{Kind: "cpu", Name: runtime.GOARCH, Features: d.k.name, Threads: len(d.pool.workers)}
}

// Close implements device.Device.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.pool.close()
		d.packed = nil
	}
	return nil
}

// buffer is memory outside of programs.
type buffer struct {
	d     *Device
	shape device.Shape
	data  []float32
}

// NewBuffer implements device.Device; every precision is fp32.
func (d *Device) NewBuffer(s device.Shape, _ device.Precision) (device.Buffer, error) {
	if s.N <= 0 || s.H <= 0 || s.W <= 0 || s.C <= 0 {
		return nil, fmt.Errorf("reserve a buffer of shape %v: empty", s)
	}
	return &buffer{d: d, shape: s, data: make([]float32, s.Len()+slack)}, nil
}

func (b *buffer) Shape() device.Shape { return b.shape }

func (b *buffer) Free() { b.data = nil }

func (b *buffer) Write(src []float32) error {
	if len(src) != b.shape.Len() || b.data == nil {
		return fmt.Errorf("write %d numbers to a buffer of %v", len(src), b.shape)
	}
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	copy(b.data, src)
	return nil
}

func (b *buffer) Read(dst []float32) error {
	if len(dst) != b.shape.Len() || b.data == nil {
		return fmt.Errorf("read %d numbers from a buffer of %v", len(dst), b.shape)
	}
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	copy(dst, b.data)
	return nil
}

func (b *buffer) Copy(at int, src device.Buffer, from, n int) error {
	s, ok := src.(*buffer)
	if !ok || s.d != b.d || s == b {
		return errors.New("copy from a buffer of another device, or from itself")
	}
	if err := device.CheckCopy(b.shape, at, s.shape, from, n); err != nil {
		return err
	}
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if b.data == nil || s.data == nil {
		return errors.New("copy between buffers that were freed")
	}
	image := b.shape.Len() / b.shape.N
	copy(b.data[at*image:(at+n)*image], s.data[from*image:])
	return nil
}

// slack elements stay readable behind each value, for kernels that read whole
// registers.
const slack = 64

// exec is a compiled program.
type exec struct {
	d     *Device
	arena []float32
	jobs  []*job
}

// Compile implements device.Device.
func (d *Device) Compile(p *device.Program) (device.Exec, error) {
	if p.Err() != nil {
		return nil, p.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("the device is closed")
	}
	c := &compiler{d: d, k: d.k, threads: len(d.pool.workers)}
	q := fuse(p)
	offsets, total := device.Plan(q, 16, slack)
	e := &exec{d: d, arena: make([]float32, total)}
	for i, v := range q.Values {
		switch {
		case v.Buffer != nil:
			b, ok := v.Buffer.(*buffer)
			if !ok || b.d != d {
				return nil, fmt.Errorf("program %q binds a buffer of another device", p.Name)
			}
			c.values = append(c.values, b.data)
		case offsets[i] < 0:
			c.values = append(c.values, nil)
		default:
			c.values = append(c.values, e.arena[offsets[i]:offsets[i]+v.Shape.Len()+slack])
		}
	}
	for k, o := range q.Ops {
		if err := c.compile(o); err != nil {
			return nil, fmt.Errorf("program %q, operation %d (%T): %w", p.Name, k, o, err)
		}
	}
	e.jobs = c.jobs
	for _, w := range d.pool.workers {
		w.scratch = grow(w.scratch, c.scratch)
		w.coef = grow(w.coef, c.coef)
		w.stage = grow(w.stage, 2*d.k.mr*d.k.nr)
	}
	return e, nil
}

func grow(s []float32, n int) []float32 {
	if len(s) < n+slack {
		return make([]float32, n+slack)
	}
	return s
}

// Run implements device.Exec.
func (e *exec) Run() error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if e.d.closed || e.jobs == nil {
		return errors.New("the program's device is closed or its memory freed")
	}
	for _, j := range e.jobs {
		e.d.pool.run(j)
	}
	return nil
}

func (e *exec) ArenaBytes() int64 { return 4 * int64(len(e.arena)) }

func (e *exec) Free() {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	e.arena, e.jobs = nil, nil
}

// compiler turns operations into jobs.
type compiler struct {
	d       *Device
	k       *kernels
	threads int
	values  [][]float32
	jobs    []*job
	scratch int // floats that a task needs of its worker
	coef    int
}

func (c *compiler) job(tasks int, run func(w *worker, task int)) {
	c.jobs = append(c.jobs, &job{tasks: tasks, run: run})
}

// mat is a window as a matrix: row r starts at data[r·pitch].
type mat struct {
	data  []float32
	pitch int
	rows  int
	cols  int
}

// mat of an absent tensor has no data.
func (c *compiler) mat(t device.Tensor) mat {
	if !t.Present() {
		return mat{}
	}
	return mat{c.values[t.Value][t.Row*t.Pitch+t.Offset:], t.Pitch, t.Rows(), t.C}
}

func (m mat) at(row int) *float32 { return &m.data[row*m.pitch] }

func (m mat) row(i int) []float32 { return m.data[i*m.pitch : i*m.pitch+m.cols] }

// chunks splits n items into at most want pieces of nearly equal size.
func chunks(n, want int) (size, count int) {
	want = max(1, min(want, n))
	size = (n + want - 1) / want
	return size, (n + size - 1) / size
}

// fused is a norm whose only reader is the product that follows it.
type fused struct {
	norm device.Op // GroupNorm or LayerNorm
	next device.Op // Conv or Linear
}

func (f *fused) Operands() (r, w []device.Tensor) {
	r, _ = f.norm.Operands()
	r2, w := f.next.Operands()
	return append(slices.Clone(r), r2[1:]...), w
}

func (f *fused) Params() []*device.Param { return append(f.norm.Params(), f.next.Params()...) }

// fuse joins norms with the products that read them, so that the normalised
// activation never goes through memory.
func fuse(p *device.Program) *device.Program {
	uses := map[device.ValueID]int{}
	for _, o := range p.Ops {
		r, w := o.Operands()
		for _, t := range append(r, w...) {
			if t.Present() {
				uses[t.Value]++
			}
		}
	}
	q := &device.Program{Name: p.Name, Values: p.Values}
	for i := 0; i < len(p.Ops); i++ {
		o := p.Ops[i]
		if i+1 < len(p.Ops) {
			_, w := o.Operands()
			private := uses[w[0].Value] == 2 && p.Values[w[0].Value].Buffer == nil
			next := p.Ops[i+1]
			var in, res device.Tensor
			switch next := next.(type) {
			case *device.Conv:
				in, res = next.In, next.Residual
			case *device.Linear:
				in, res = next.In, next.Residual
			}
			var src device.Tensor
			switch o := o.(type) {
			case *device.GroupNorm:
				src = o.In
			case *device.LayerNorm:
				if _, ok := next.(*device.Linear); ok {
					src = o.In
				}
			}
			_, out := next.Operands()
			// The input is now read while the output is written: they must differ.
			if src.Present() && in.Present() && private && in.Value == w[0].Value && in.Offset == w[0].Offset && in.C == w[0].C && in.Row == w[0].Row && in.Rows() == w[0].Rows() && (!res.Present() || res.Value != w[0].Value) && out[0].Value != src.Value {
				q.Ops = append(q.Ops, &fused{o, next})
				i++
				continue
			}
		}
		q.Ops = append(q.Ops, o)
	}
	return q
}
