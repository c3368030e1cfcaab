//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"dreamcad/inference/device"
)

var _ device.MemoryTester = (*Card)(nil)

// Memory implements [device.MemoryTester].
func (c *Card) Memory() (free, total int64, err error) {
	err = c.do(func() error {
		free, total, err = cu.MemInfo()
		return err
	})
	return free, total, err
}

// testPiece is the size of the parts that TestMemory takes, in bytes.
const testPiece = 1 << 30

// TestMemory implements [device.MemoryTester]. Each piece of a gibibyte holds
// its own pattern, looked at every 16 MiB and at its end after all were written.
func (c *Card) TestMemory(bytes int64) error {
	return c.do(func() error {
		type piece struct {
			at   Ptr
			size int64
		}
		var pieces []piece
		defer func() {
			for _, p := range pieces {
				c.release(p.at, p.size)
			}
		}()
		for left := bytes &^ 3; left > 0; {
			size := min(left, testPiece)
			at, err := c.allocate(size, fmt.Sprintf("the memory test, at byte %d", bytes-left))
			if err != nil {
				return err
			}
			pieces = append(pieces, piece{at, size})
			if err := cu.MemsetD32Async(cu.DevicePtr(at), uint(pattern(len(pieces))), size/4, c.stream); err != nil {
				return fmt.Errorf("write the card's memory: %w", err)
			}
			left -= size
		}
		if err := c.synchronize(); err != nil {
			return err
		}
		for i, p := range pieces {
			want := pattern(i + 1)
			for at := int64(0); ; at = min(at+16<<20, p.size-4) {
				var got uint32
				if err := cu.MemcpyDtoH(unsafe.Pointer(&got), cu.DevicePtr(p.at+Ptr(at)), 4); err != nil {
					return fmt.Errorf("read the card's memory: %w", err)
				}
				if got != want {
					return fmt.Errorf("the card's memory holds %08x at byte %d in place of %08x", got, int64(i)*testPiece+at, want)
				}
				if at == p.size-4 {
					break
				}
			}
		}
		return nil
	})
}

// pattern differs from piece to piece in every byte.
func pattern(i int) uint32 { return uint32(i) * 0x9e3779b1 }

// TestCopy implements [device.MemoryTester]: the best of five copies.
func (c *Card) TestCopy(bytes int64) (float64, error) {
	best := 0.0
	err := c.do(func() error {
		from, err := c.allocate(bytes, "the copy test")
		if err != nil {
			return err
		}
		defer c.release(from, bytes)
		to, err := c.allocate(bytes, "the copy test")
		if err != nil {
			return err
		}
		defer c.release(to, bytes)
		if err := cu.MemsetD8Async(cu.DevicePtr(from), 0x5a, bytes, c.stream); err != nil {
			return fmt.Errorf("write the card's memory: %w", err)
		}
		var marks [2]cu.Event
		for i := range marks {
			if marks[i], err = cu.MakeEvent(cu.DefaultEvent); err != nil {
				return fmt.Errorf("make an event: %w", err)
			}
		}
		for range 6 { // the first warms up
			_ = marks[0].Record(c.stream)
			if err := cu.MemcpyDtoDAsync(cu.DevicePtr(to), cu.DevicePtr(from), bytes, c.stream); err != nil {
				return fmt.Errorf("copy the card's memory: %w", err)
			}
			_ = marks[1].Record(c.stream)
			if err := c.synchronize(); err != nil {
				return err
			}
			ms, err := marks[0].Elapsed(marks[1])
			if err != nil {
				return fmt.Errorf("time a copy: %w", err)
			}
			best = max(best, 2*float64(bytes)/(ms/1e3))
		}
		return nil
	})
	return best, err
}
