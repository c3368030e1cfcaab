// Package device is what a network needs of the hardware it runs on.
//
// A network is recorded once as a [Program]: a list of operations over planned
// values. A [Device] compiles the program into an [Exec], which fixes every
// address, every packed weight and every launch; running it makes no host
// decision and no allocation, so that a CUDA device can capture a whole UNet
// step as one graph. What crosses the border of a program lives in a [Buffer]:
// inputs are written before Run, results are read after it, and a buffer may be
// the output of one program and the input of another (cross-attention keys and
// values are computed once per prompt and read in every step).
//
// Activations are channels-last. Letters used for shapes:
//
//	N  images or sequences     H, W  pixel rows and columns (1, tokens for text)
//	C  channels                L     tokens a sequence       D     channels a head
//	K  input channels of a weight    O  output channels of a weight
//
// The CPU device is the specification: another device must agree with it.
package device

import (
	"errors"
	"fmt"
	"strings"
)

// Device runs programs. Its methods are safe for concurrent use, but runs of
// different Execs of one device take turns.
type Device interface {
	// Info describes the hardware.
	Info() Info
	// NewBuffer reserves memory outside of programs, zeroed.
	NewBuffer(s Shape, p Precision) (Buffer, error)
	// Compile prepares weights (once for each [Param], shared by later
	// programs), plans the arena and fixes the launches. It returns the
	// program's own error if its recording failed.
	Compile(p *Program) (Exec, error)
	// Close frees everything; Execs and Buffers are unusable afterwards.
	Close() error
}

// Limited is what a Device with memory of its own is besides.
type Limited interface {
	// FreeMemory is the memory that could be had at the moment, in bytes.
	FreeMemory() (int64, error)
}

// Waiter is what a Device whose work goes on behind the caller's back is besides.
type Waiter interface {
	// Wait returns when everything queued so far has been done.
	Wait() error
}

// Wait returns when the device has done everything that was asked of it.
func Wait(d Device) error {
	if w, ok := d.(Waiter); ok {
		return w.Wait()
	}
	return nil
}

// MemoryError says that a device could not reserve memory.
type MemoryError struct {
	What  string // needs it
	Need  int64  // bytes
	Free  int64
	Total int64
	Own   int64  // held by this process
	UUID  string // of the card, as in Info
	Err   error
}

func (e *MemoryError) Error() string {
	gib := func(n int64) float64 { return float64(n) / (1 << 30) }
	return fmt.Sprintf("%s needs %.2f GiB of device memory, but %.2f of %.2f GiB are free (this process holds %.2f)",
		e.What, gib(e.Need), gib(e.Free), gib(e.Total), gib(e.Own))
}

// Unwrap gives the driver's error.
func (e *MemoryError) Unwrap() error { return e.Err }

// Info names a device.
type Info struct {
	Kind     string // "cpu" or "cuda"
	Name     string // the model, for people
	Features string // what selects its code paths, for example "avx512" or "sm_90"
	Threads  int    // worker threads of a CPU, multiprocessors of a card
	Memory   int64  // bytes of its own memory, 0 when it shares the host's
	UUID     string // of a card, "GPU-…" as the driver's tools show it
}

// String names the device in manifests and to people: "cpu amd64 avx512".
func (i Info) String() string {
	return strings.Join(strings.Fields(i.Kind+" "+i.Name+" "+i.Features), " ")
}

// Buffer is device memory that outlives programs: (N, H, W, C), dense.
type Buffer interface {
	Shape() Shape
	// Write copies from the host; src holds exactly Shape().Len() numbers.
	Write(src []float32) error
	// Read copies to the host, after everything queued before it.
	Read(dst []float32) error
	// Copy makes images at, at+1, … those that src holds from image from on, n in
	// all, behind everything queued before it. src is another buffer of the same
	// device with images of the same shape and precision.
	Copy(at int, src Buffer, from, n int) error
	// Free releases the memory. It must not be in use by a program that runs.
	Free()
}

// CheckCopy says why a Copy between buffers of these shapes cannot be done.
func CheckCopy(dst Shape, at int, src Shape, from, n int) error {
	d, s := dst, src
	d.N, s.N = 1, 1
	if d != s || n < 1 || at < 0 || from < 0 || at+n > dst.N || from+n > src.N {
		return fmt.Errorf("copy %d images from %d of %v to %d of %v", n, from, src, at, dst)
	}
	return nil
}

// ErrLost says that the device failed in a way that only a new process can cure:
// everything that it held is gone, and every further call fails.
var ErrLost = errors.New("the device is lost")

// Exec is a compiled program.
type Exec interface {
	// Run executes the whole program, or queues it on a [Waiter]; then its results may be read.
	Run() error
	// ArenaBytes is the memory of its planned values.
	ArenaBytes() int64
	// Free releases the arena; weights stay with the device.
	Free()
}

// Precision says how a buffer is stored.
type Precision int

const (
	// Working precision: fp32 on a CPU, fp16 on a card. All planned values have it.
	Working Precision = iota
	// Full precision is fp32 everywhere: latents, noise, coefficients.
	Full
)

// Shape of an activation (N, H, W, C).
type Shape struct{ N, H, W, C int }

// Rows is N·H·W, the rows of the activation seen as a matrix (Rows, C).
func (s Shape) Rows() int { return s.N * s.H * s.W }

// Len is the number of elements.
func (s Shape) Len() int { return s.Rows() * s.C }

// Tensor is a window on a value of a program: some of its rows and channels.
// Row r of the window starts at element (Row+r)·Pitch + Offset of the value.
// The zero Tensor means "absent" where an operation has an optional operand.
type Tensor struct {
	Shape
	Value  ValueID
	Row    int // first row of the value
	Offset int // first channel of the value
	Pitch  int // channels from one row of the value to the next
}

// ValueID numbers the values of one program.
type ValueID int

// Present tells a real operand from an absent one.
func (t Tensor) Present() bool { return t.C != 0 }

// Channels is the window on n channels from channel from.
func (t Tensor) Channels(from, n int) Tensor {
	t.Offset += from
	t.C = n
	return t
}

// Images is the window on n images from image from.
func (t Tensor) Images(from, n int) Tensor {
	t.Row += from * t.H * t.W
	t.N = n
	return t
}

// As regroups the rows: n·h·w must equal Rows().
func (t Tensor) As(n, h, w int) Tensor {
	t.N, t.H, t.W = n, h, w
	return t
}
