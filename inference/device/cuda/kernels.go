//go:build cuda

package cuda

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"dreamcad/inference/device/cuda/driver"
)

//go:embed kernels/bin
var images embed.FS

// imageFor names the archive of a compute capability: native code where it was
// built, else PTX, which the driver compiles when the program starts.
func imageFor(cc int) string {
	switch {
	case cc == 90:
		return "sm_90a"
	case cc == 80, cc == 86, cc == 89, cc == 100, cc == 120:
		return fmt.Sprintf("sm_%d", cc)
	case cc < 90: // 8.7
		return "sm_80"
	}
	return "compute_80"
}

// readArchive unpacks what tools/kernels.py wrote.
func readArchive(name string) (map[string][]byte, error) {
	packed, err := images.ReadFile("kernels/bin/" + name + ".bin.gz")
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	if len(b) < 8 || string(b[:4]) != "DCK1" {
		return nil, errors.New("not an archive of kernels")
	}
	n := binary.LittleEndian.Uint32(b[4:])
	b = b[8:]
	take := func() []byte {
		k := binary.LittleEndian.Uint32(b)
		out := b[4 : 4+k]
		b = b[4+k:]
		return out
	}
	out := map[string][]byte{}
	for range n {
		unit := string(take())
		out[unit] = take()
	}
	return out, nil
}

// loadKernels finds every kernel that this card has.
func (c *Card) loadKernels() error {
	name := imageFor(c.cc)
	units, err := readArchive(name)
	if err != nil {
		return fmt.Errorf("read the kernels for %s: %w", name, err)
	}
	for _, unit := range kernelUnits {
		image, ok := units[unit.name]
		if !ok {
			continue
		}
		m, err := driver.Load(image)
		if err != nil {
			return &Unavailable{Reason: fmt.Sprintf("the driver does not accept the kernels built for %s; a newer driver may", name), Cause: err}
		}
		for k := unit.first; k < unit.end; k++ {
			want := min(max(sharedLimit(k), c.alone()), c.maxShared)
			if c.kernels[k], err = m.Function(kernelNames[k], want); err != nil {
				return err
			}
		}
	}
	return nil
}

// sharedLimit is the most dynamic shared memory that launches of a kernel ask for.
func sharedLimit(k kernelID) int {
	for _, t := range slices.Concat(genericTiles, hopperTiles) {
		if t.kernel == k {
			return t.shared()
		}
	}
	switch k {
	case kFlashHopper:
		return flashHopperBytes
	case kFlash64, kFlash32:
		return flashBytes(64)
	}
	return 0
}

// grid is how a kernel is spread.
type grid struct {
	x, y, z int
	threads int
	shared  int
}

// launcher queues kernels on the card's stream and remembers the first error.
type launcher struct {
	card *Card
	err  error
}

// alone is the dynamic shared memory with which one block only fits on a multiprocessor.
func (c *Card) alone() int { return c.maxShared/2 + 1<<10 }

func (l *launcher) launch(k kernelID, g grid, params unsafe.Pointer, size uintptr) {
	if l.err != nil || g.x == 0 || g.y == 0 || g.z == 0 {
		return
	}
	// A kernel with no more blocks than there are multiprocessors starts while its predecessor drains. The first blocks
	// would crowd on what is free first, so as much shared memory is asked for as lets one fit only.
	overlap := l.card.overlap && g.x*g.y*g.z <= l.card.info.Threads
	if overlap {
		g.shared = max(g.shared, l.card.alone())
	}
	if err := l.card.kernels[k].Launch([3]int{g.x, g.y, g.z}, g.threads, g.shared, l.card.raw(), overlap, params, size); err != nil {
		l.err = fmt.Errorf("kernel %s: %w", kernelNames[k], err)
	}
}
