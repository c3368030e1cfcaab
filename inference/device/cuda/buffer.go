//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/x448/float16"
	"gorgonia.org/cu"

	"dreamcad/inference/device"
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
	p := unsafe.Pointer(&src[0])
	if !b.full {
		h := make([]float16.Float16, len(src))
		for i, v := range src {
			h[i] = float16.Fromfloat32(v)
		}
		p = unsafe.Pointer(&h[0])
	}
	return b.card.do(func() error {
		return cu.MemcpyHtoDAsync(cu.DevicePtr(b.ptr), p, b.bytes, b.card.stream)
	})
}

// Read implements [device.Buffer].
func (b *buffer) Read(dst []float32) error {
	if len(dst) != b.shape.Len() {
		return fmt.Errorf("read %d numbers from a buffer of %d", len(dst), b.shape.Len())
	}
	if len(dst) == 0 {
		return nil
	}
	p := unsafe.Pointer(&dst[0])
	var h []float16.Float16
	if !b.full {
		h = make([]float16.Float16, len(dst))
		p = unsafe.Pointer(&h[0])
	}
	err := b.card.do(func() error {
		if err := b.card.synchronize(); err != nil {
			return err
		}
		return cu.MemcpyDtoH(p, cu.DevicePtr(b.ptr), b.bytes)
	})
	for i, v := range h {
		dst[i] = v.Float32()
	}
	return err
}

// Free implements [device.Buffer].
func (b *buffer) Free() {
	_ = b.card.do(func() error {
		b.card.release(b.ptr, max(b.bytes, 256))
		b.ptr = 0
		return nil
	})
}
