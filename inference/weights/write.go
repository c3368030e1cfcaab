package weights

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
)

// Entry is a tensor to be written. Data gives its bytes (dense, row-major,
// little-endian) when their turn comes, so that a file larger than memory can
// be written tensor by tensor.
type Entry struct {
	Name string
	Info
	Data func() ([]byte, error)
}

// alignment of the data in files that we write: a cache line, and enough for
// any copy engine.
const alignment = 64

// Write writes a safetensors file: widest elements first, then by name, so
// that every tensor is aligned to its element, with the header padded so that
// the data begins at a multiple of 64 bytes. The same tensors give the same
// bytes.
func Write(w io.Writer, meta map[string]string, entries []Entry) error {
	entries = slices.Clone(entries)
	sort.Slice(entries, func(i, j int) bool {
		a, b := entries[i], entries[j]
		if x, y := a.DType.Size(), b.DType.Size(); x != y {
			return x > y
		}
		return a.Name < b.Name
	})
	head, err := header(meta, entries)
	if err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	out := bufio.NewWriterSize(w, 1<<20)
	if err := binary.Write(out, binary.LittleEndian, uint64(len(head))); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if _, err := out.Write(head); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	for _, e := range entries {
		data, err := e.Data()
		if err != nil {
			return fmt.Errorf("write weights: tensor %q: %w", e.Name, err)
		}
		if int64(len(data)) != e.Bytes() {
			return fmt.Errorf("write weights: tensor %q of %v needs %d bytes, got %d", e.Name, e.Info, e.Bytes(), len(data))
		}
		if _, err := out.Write(data); err != nil {
			return fmt.Errorf("write weights: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	return nil
}

func header(meta map[string]string, entries []Entry) ([]byte, error) {
	type place struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	h := make(map[string]any, len(entries)+1) // encoding/json sorts the keys
	if len(meta) > 0 {
		h["__metadata__"] = meta
	}
	var at int64
	for _, e := range entries {
		size, err := checkShape(e.Shape, e.DType)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", e.Name, err)
		}
		if _, twice := h[e.Name]; twice || e.Name == "__metadata__" {
			return nil, fmt.Errorf("two tensors are named %q", e.Name)
		}
		shape := e.Shape
		if shape == nil {
			shape = []int{}
		}
		h[e.Name] = place{e.DType.String(), shape, [2]int64{at, at + size}}
		at += size
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	for (8+len(b))%alignment != 0 {
		b = append(b, ' ')
	}
	return b, nil
}
