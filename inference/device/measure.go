package device

import (
	"fmt"
	"time"
)

// MemoryTester is what a device with memory of its own may also offer: tests of
// that memory, for those who look after the machine.
type MemoryTester interface {
	// Memory is what can still be taken and what there is, in bytes.
	Memory() (free, total int64, err error)
	// TestMemory takes that many bytes, writes each, reads samples back and
	// frees them. The error says what was refused or read wrongly.
	TestMemory(bytes int64) error
	// TestCopy copies that many bytes from one place of the memory to another
	// and returns bytes per second, reading and writing counted.
	TestCopy(bytes int64) (float64, error)
}

// MeasureProduct times matrix products of n×n with n×n in the working precision,
// in series of growing length until one takes at least the given time, and
// returns floating-point operations per second (2·n³ a product).
func MeasureProduct(d Device, n int, least time.Duration) (float64, error) {
	in, err := d.NewBuffer(Shape{1, 1, n, n}, Working)
	if err != nil {
		return 0, fmt.Errorf("measure a product: %w", err)
	}
	defer in.Free()
	last, err := d.NewBuffer(Shape{1, 1, 1, 8}, Full)
	if err != nil {
		return 0, fmt.Errorf("measure a product: %w", err)
	}
	defer last.Free()
	ones := make([]float32, n*n)
	for i := range ones {
		ones[i] = 1
	}
	if err := in.Write(ones); err != nil {
		return 0, fmt.Errorf("measure a product: %w", err)
	}
	weight := &Param{Name: "measure", Shape: []int{n, n}, Tensors: []string{"measure"}, Source: flat{n}}
	for count := 4; ; count *= 4 {
		seconds, err := timeProducts(d, in, last, weight, count)
		if err != nil {
			return 0, fmt.Errorf("measure a product: %w", err)
		}
		if seconds >= least.Seconds() || count >= 1<<14 {
			return 2 * float64(n) * float64(n) * float64(n) * float64(count) / seconds, nil
		}
	}
}

// timeProducts runs count products as one program; the second run counts, and
// its result must be n·(1/n) = 1.
func timeProducts(d Device, in, last Buffer, weight *Param, count int) (seconds float64, err error) {
	p := NewProgram("measure a product")
	x := p.Bind(in)
	out := p.Like(x, x.C)
	for range count {
		p.Add(&Linear{In: x, Out: out, Weight: weight})
	}
	corner := out.Channels(0, 8)
	corner.W = 1
	p.Add(&Elementwise{In: corner, Out: p.Bind(last)})
	exec, err := d.Compile(p)
	if err != nil {
		return 0, err
	}
	defer exec.Free()
	got := make([]float32, 8)
	var begin time.Time
	for range 2 {
		begin = time.Now()
		if err := exec.Run(); err != nil {
			return 0, err
		}
		if err := last.Read(got); err != nil { // waits for a device that runs on its own
			return 0, err
		}
	}
	seconds = time.Since(begin).Seconds()
	for _, v := range got {
		if v < 0.99 || v > 1.01 {
			return 0, fmt.Errorf("a product came out as %g in place of 1", v)
		}
	}
	return seconds, nil
}

// flat is a weight of (n, n) whose elements are all 1/n.
type flat struct{ n int }

// Shape implements [Weights].
func (f flat) Shape(string) ([]int, bool) { return []int{f.n, f.n}, true }

// Float32 implements [Weights].
func (f flat) Float32(_ string, _ int, dst []float32) error {
	for i := range dst {
		dst[i] = 1 / float32(f.n)
	}
	return nil
}
