//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cuda/driver"
)

// buffer implements [device.Buffer]: fp16 in the working precision, fp32 in full.
type buffer struct {
	card  *Card
	shape device.Shape
	full  bool
	ptr   Ptr
	bytes int64
}

// NewBuffer implements [device.Device].
func (c *Card) NewBuffer(s device.Shape, p device.Precision) (device.Buffer, error) {
	b := &buffer{card: c, shape: s, full: p == device.Full}
	b.bytes = int64(s.Len()) * b.size()
	err := c.do(func() error {
		var err error
		if b.ptr, err = c.allocate(max(b.bytes, 256), "a buffer"); err != nil {
			return err
		}
		return cu.MemsetD8Async(cu.DevicePtr(b.ptr), 0, max(b.bytes, 256), c.stream)
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (b *buffer) size() int64 {
	if b.full {
		return 4
	}
	return 2
}

// Shape implements [device.Buffer].
func (b *buffer) Shape() device.Shape { return b.shape }

// Write implements [device.Buffer].
func (b *buffer) Write(src []float32) error {
	if len(src) != b.shape.Len() {
		return fmt.Errorf("write %d numbers into a buffer of %d", len(src), b.shape.Len())
	}
	if len(src) == 0 {
		return nil
	}
	return b.card.do(func() error { return b.card.upload(b.ptr, b.full, src) })
}

// Read implements [device.Buffer].
func (b *buffer) Read(dst []float32) error {
	if len(dst) != b.shape.Len() {
		return fmt.Errorf("read %d numbers from a buffer of %d", len(dst), b.shape.Len())
	}
	if len(dst) == 0 {
		return nil
	}
	return b.card.do(func() error { return b.card.download(b.ptr, b.full, dst) })
}

// Copy implements [device.Buffer].
func (b *buffer) Copy(at int, src device.Buffer, from, n int) error {
	s, ok := src.(*buffer)
	if !ok || s.card != b.card || s == b || s.full != b.full {
		return errors.New("copy from a buffer of another device or precision, or from itself")
	}
	if err := device.CheckCopy(b.shape, at, s.shape, from, n); err != nil {
		return err
	}
	image := b.bytes / int64(b.shape.N)
	return b.card.do(func() error {
		return cu.MemcpyDtoDAsync(cu.DevicePtr(b.ptr+Ptr(int64(at)*image)), cu.DevicePtr(s.ptr+Ptr(int64(from)*image)), int64(n)*image, b.card.stream)
	})
}

// Free implements [device.Buffer].
func (b *buffer) Free() {
	_ = b.card.do(func() error {
		b.card.release(b.ptr, max(b.bytes, 256))
		b.ptr = 0
		return nil
	})
}

// transfer is page-locked host memory through which numbers travel, and room on
// the card for their fp32 form. The host part is used as a ring, so that several
// small writes can wait in the stream while the card still computes.
type transfer struct {
	host   []float32
	next   int
	device Ptr
}

const transferLen = 4 << 20 // elements

// copyWide copies src to the start of dst, much by several threads.
func copyWide(dst, src []float32) {
	const part = 256 << 10 // elements
	var wg sync.WaitGroup
	for len(src) > part {
		to, from := dst[:part], src[:part]
		wg.Go(func() { copy(to, from) })
		dst, src = dst[part:], src[part:]
	}
	copy(dst, src)
	wg.Wait()
}

// words are the bits of integers, for upload.
func words(v []int32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(v))), len(v))
}

func (c *Card) transferReady() error {
	if c.transfer.host != nil {
		return nil
	}
	p, err := driver.HostMemory(transferLen * 4)
	if err != nil {
		return err
	}
	if c.transfer.device, err = c.allocate(transferLen*4, "room for transfers"); err != nil {
		return err
	}
	c.transfer.host = unsafe.Slice((*float32)(p), transferLen)
	return nil
}

// upload queues the copy of src to dst, converted to fp16 unless full.
func (c *Card) upload(dst Ptr, full bool, src []float32) error {
	if err := c.transferReady(); err != nil {
		return err
	}
	t := &c.transfer
	for len(src) > 0 {
		n := min(len(src), transferLen)
		if t.next+n > transferLen {
			if err := c.synchronize(); err != nil { // the ring is full
				return err
			}
			t.next = 0
		}
		part := t.host[t.next : t.next+n]
		copyWide(part, src[:n])
		t.next += n
		to := dst
		if !full {
			to = t.device
		}
		if err := cu.MemcpyHtoDAsync(cu.DevicePtr(to), unsafe.Pointer(&part[0]), int64(n)*4, c.stream); err != nil {
			return err
		}
		if full {
			dst += Ptr(n) * 4
		} else {
			l := launcher{card: c}
			l.elementwise(kElementwise, spread(int64(n)), &ElementwiseParams{In32: t.device, Out: dst, Rows: int64(n), Inrows: int64(n), C: 1, Ldi: 1, Ldo: 1})
			if l.err != nil {
				return l.err
			}
			dst += Ptr(n) * 2
		}
		src = src[n:]
	}
	return nil
}

// download waits for the card and copies src to dst.
func (c *Card) download(src Ptr, full bool, dst []float32) error {
	if err := c.transferReady(); err != nil {
		return err
	}
	t := &c.transfer
	if err := c.synchronize(); err != nil {
		return err
	}
	t.next = 0
	for len(dst) > 0 {
		n := min(len(dst), transferLen)
		from := src
		if full {
			src += Ptr(n) * 4
		} else {
			from = t.device
			l := launcher{card: c}
			l.elementwise(kElementwise, spread(int64(n)), &ElementwiseParams{In: src, Out32: t.device, Rows: int64(n), Inrows: int64(n), C: 1, Ldi: 1, Ldo: 1})
			if l.err != nil {
				return l.err
			}
			src += Ptr(n) * 2
		}
		if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&t.host[0]), cu.DevicePtr(from), int64(n)*4, c.stream); err != nil {
			return err
		}
		if err := c.synchronize(); err != nil {
			return err
		}
		copyWide(dst, t.host[:n])
		dst = dst[n:]
	}
	return nil
}
