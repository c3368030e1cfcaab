//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cuda/driver"
)

// Built tells whether this binary can use a card at all.
const Built = true

// Ptr is an address in device memory.
type Ptr uint64

// TensorMap describes a tensor to the tensor memory accelerator.
type TensorMap = driver.TensorMap

// Count is the number of cards that the driver shows, 0 without a driver.
func Count() int {
	n, err := cu.NumDevices()
	if err != nil {
		return 0
	}
	return n
}

// Card is the CUDA device.
type Card struct {
	info    device.Info
	options Options
	calls   chan call
	quit    chan struct{}
	stopped chan struct{}
	close   sync.Once

	// What follows belongs to the goroutine that owns the context.
	ctx        cu.CUContext
	stream     cu.Stream
	cc         int // compute capability, 90 for 9.0
	maxShared  int // bytes of shared memory that a block may ask for
	kernels    [kernelCount]driver.Function
	weights    weightStore
	arena      arena
	tuner      *tuner
	transfer   transfer
	fields     fields
	lost       error
	overlap    bool  // kernels wait for their predecessors themselves
	totalBytes int64 // device memory taken, for messages
}

type call struct {
	fn   func() error
	done chan error
}

// Open takes the card with this number. The error is an [Unavailable] when
// there is no driver, no such card or not enough of one.
func Open(number int, o Options) (device.Device, error) {
	code, found := driver.Status()
	switch {
	case !found:
		return nil, &Unavailable{Reason: "no CUDA driver"}
	case code == 100:
		return nil, &Unavailable{Reason: "the CUDA driver finds no card"}
	case code == 803 || code == 804: // system driver mismatch, compat not supported
		return nil, &Unavailable{Reason: "the CUDA driver is too old or does not fit the card", Cause: code}
	case code != 0:
		return nil, &Unavailable{Reason: "the CUDA driver does not start", Cause: code}
	}
	if u := tooOld(cu.Version()); u != nil {
		return nil, u
	}
	if n := Count(); number < 0 || number >= n {
		return nil, &Unavailable{Reason: fmt.Sprintf("no card cuda:%d (%d found)", number, n)}
	}
	c := &Card{options: o, calls: make(chan call), quit: make(chan struct{}), stopped: make(chan struct{})}
	ready := make(chan error, 1)
	go c.own(number, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return c, nil
}

// contextBytes is about what a context takes before anything is in it.
const contextBytes = 500 << 20

// tooOld judges the version that the driver serves, 12040 for CUDA 12.4. The
// kernels are built with CUDA 12; an older driver loads none of them.
func tooOld(version int) *Unavailable {
	if version >= 12000 {
		return nil
	}
	return &Unavailable{Reason: fmt.Sprintf("the CUDA driver is too old: it serves CUDA %d.%d, and 12.0 (driver 525 or newer) is needed", version/1000, version%1000/10)}
}

// own is the goroutine of the context: a context belongs to a thread, so all
// driver calls happen here, one after the other.
func (c *Card) own(number int, ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(c.stopped)
	err := c.start(number)
	ready <- err
	if err != nil {
		return
	}
	for open := true; open; {
		select {
		case call := <-c.calls:
			err := c.lost
			if err == nil {
				err = c.noteLost(call.fn())
			}
			call.done <- err
		case <-c.quit:
			open = false
		}
	}
	// Destroying the context frees every allocation and module in it, page-locked host memory too.
	c.transfer = transfer{}
	_ = c.ctx.Destroy()
}

func (c *Card) start(number int) error {
	dev, err := cu.GetDevice(number)
	if err != nil {
		return &Unavailable{Reason: fmt.Sprintf("card cuda:%d cannot be opened", number), Cause: err}
	}
	name, _ := dev.Name()
	major, minor, err := dev.ComputeCapability()
	if err != nil {
		return &Unavailable{Reason: "the card does not tell its generation", Cause: err}
	}
	c.cc = major*10 + minor
	if c.cc < 80 {
		return &Unavailable{Reason: fmt.Sprintf("card cuda:%d (%s, compute capability %d.%d) is too old: 8.0 (Ampere) or newer is needed", number, name, major, minor)}
	}
	sms, _ := dev.Attribute(cu.MultiprocessorCount)
	shared, _ := dev.Attribute(cu.DeviceAttribute(97)) // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
	c.maxShared = shared
	overlap := os.Getenv("DREAM_CUDA_OVERLAP") // 0 or 1, for comparisons; newer cards were not seen
	c.overlap = cu.Version() >= 12030 && (c.cc == 90 && overlap != "0" || c.cc > 90 && overlap == "1")
	total, _ := dev.TotalMem()
	if c.ctx, err = dev.MakeContext(cu.SchedAuto); err != nil {
		if resultCode(err) == int(cu.OutOfMemory) {
			err = &device.MemoryError{What: "the driver itself", Need: contextBytes, Total: total, Err: err}
		}
		return &Unavailable{Reason: fmt.Sprintf("card cuda:%d (%s) gives no context", number, name), Cause: err}
	}
	if err := c.prepare(); err != nil {
		_ = c.ctx.Destroy()
		return err
	}
	c.info = device.Info{Kind: "cuda", Name: name, Features: fmt.Sprintf("sm_%d", c.cc), Threads: sms, Memory: total}
	if id, err := dev.UUID(); err == nil {
		c.info.UUID = "GPU-" + id.String()
	}
	c.weights.card, c.arena.card, c.fields.card = c, c, c
	c.tuner = newTuner(c)
	return nil
}

func (c *Card) prepare() error {
	var err error
	if c.stream, err = cu.MakeStream(cu.DefaultStream); err != nil {
		return fmt.Errorf("make a stream: %w", err)
	}
	return c.loadKernels()
}

// do runs fn on the owning goroutine.
func (c *Card) do(fn func() error) error {
	done := make(chan error, 1)
	select {
	case c.calls <- call{fn, done}:
		return <-done
	case <-c.stopped:
		return errors.New("the CUDA device is closed")
	}
}

// Info implements [device.Device].
func (c *Card) Info() device.Info { return c.info }

// Wait implements [device.Waiter].
func (c *Card) Wait() error { return c.do(c.synchronize) }

// Close implements [device.Device].
func (c *Card) Close() error {
	c.close.Do(func() { close(c.quit) })
	<-c.stopped
	return nil
}

func (c *Card) raw() driver.Stream { return driver.Stream(unsafe.Pointer(c.stream.C())) }

// synchronize waits for the card. An error here means that the context is
// gone (an illegal access or an Xid): nothing can be done with this device any more.
func (c *Card) synchronize() error {
	if err := c.stream.Synchronize(); err != nil {
		return c.lose(err)
	}
	return nil
}

func (c *Card) lose(err error) error {
	if c.lost == nil {
		c.lost = fmt.Errorf("%w: the context of %s is gone: %w", device.ErrLost, c.info.Name, err)
	}
	return c.lost
}

// noteLost finds errors among a call's that the driver reports for a context
// that is gone. Kernels run behind their launch, so any call may bring the news.
func (c *Card) noteLost(err error) error {
	if err == nil || c.lost != nil {
		return err
	}
	if sticky(resultCode(err)) {
		return c.lose(err)
	}
	return err
}

// resultCode is the driver's number behind an error, 0 if there is none. The type
// of cu's errors is not exported.
func resultCode(err error) int {
	for next := err; next != nil; next = errors.Unwrap(err) {
		err = next
	}
	if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
		return int(v.Int())
	}
	return 0
}

// sticky tells result codes after which every call of the context fails.
func sticky(code int) bool {
	switch code {
	case 214, 220, 226, // uncorrectable errors of memory, NVLink, contained ones
		700, 702, 709, 710, // illegal address, timeout, context destroyed, assertion
		714, 715, 716, 717, 718, 719, 999: // faults of a kernel; unknown, which is how a card that fell off the bus reads
		return true
	}
	return false
}

// allocate reserves device memory and explains a failure.
func (c *Card) allocate(bytes int64, what string) (Ptr, error) {
	p, err := cu.MemAlloc(bytes)
	if err != nil {
		free, total, _ := cu.MemInfo()
		return 0, &device.MemoryError{What: what, Need: bytes, Free: free, Total: total, Own: c.totalBytes, UUID: c.info.UUID, Err: err}
	}
	c.totalBytes += bytes
	return Ptr(p), nil
}

func (c *Card) release(p Ptr, bytes int64) {
	if p != 0 {
		_ = cu.MemFree(cu.DevicePtr(p))
		c.totalBytes -= bytes
	}
}

// FreeMemory implements [device.Limited].
func (c *Card) FreeMemory() (int64, error) {
	var free int64
	err := c.do(func() (err error) {
		free, _, err = cu.MemInfo()
		return err
	})
	return free, err
}
