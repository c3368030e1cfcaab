// Package weights reads and writes files of named tensors: safetensors (mapped
// into memory, or bytes that are already there) and PyTorch's zip checkpoints.
//
// Nothing in a file is trusted: every offset, length and shape is checked
// before it is used, nothing in it is executed, and a bad file gives an error
// of one sentence that names the file and the tensor.
//
// Tensors are dense, row-major and little-endian. Names are the checkpoint's
// own, shapes are as PyTorch has them: linear weights (out, in), convolutions
// (out, in, kh, kw), scalars ().
package weights

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// DType is the element type of a stored tensor.
type DType uint8

// The element types of both formats.
const (
	F32 DType = iota + 1
	F16
	BF16
	F64
	I64
	I32
	I16
	I8
	U8
	Bool
)

var dtypes = [...]struct {
	name string
	size int
}{
	F32: {"F32", 4}, F16: {"F16", 2}, BF16: {"BF16", 2}, F64: {"F64", 8},
	I64: {"I64", 8}, I32: {"I32", 4}, I16: {"I16", 2}, I8: {"I8", 1}, U8: {"U8", 1}, Bool: {"BOOL", 1},
}

// String is the name that safetensors headers use, as "F16".
func (d DType) String() string {
	if int(d) < len(dtypes) && d != 0 {
		return dtypes[d].name
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Size is the number of bytes of one element.
func (d DType) Size() int { return dtypes[d].size }

// Float says whether Source.Float32 can convert tensors of this type.
func (d DType) Float() bool { return d == F32 || d == F16 || d == BF16 }

func dtypeByName(s string) (DType, bool) {
	for d := F32; int(d) < len(dtypes); d++ {
		if dtypes[d].name == s {
			return d, true
		}
	}
	return 0, false
}

// Info describes a stored tensor.
type Info struct {
	DType DType
	Shape []int // empty for a scalar; must not be modified
}

// Elements is the product of the shape, 1 for a scalar.
func (i Info) Elements() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// Bytes is the size of the data.
func (i Info) Bytes() int64 { return int64(i.Elements()) * int64(i.DType.Size()) }

// String is the type and the shape, as "F16 [320 4 3 3]".
func (i Info) String() string { return fmt.Sprintf("%v %v", i.DType, i.Shape) }

// Source is a file of named tensors. Its methods may be called by several
// goroutines at once, but not after Close.
type Source interface {
	// Keys lists the names of all tensors, sorted.
	Keys() []string
	// Lookup describes a tensor; false when there is none of that name.
	Lookup(name string) (Info, bool)
	// Raw returns the data of a tensor as stored: dense, row-major,
	// little-endian. It may be the mapped file itself, at any alignment: it
	// must not be written, nor used after Close.
	Raw(name string) ([]byte, error)
	// Float32 converts a tensor of type F32, F16 or BF16 into dst, whose
	// length must be the number of elements, or into a new slice when dst is
	// nil, and returns it.
	Float32(name string, dst []float32) ([]float32, error)
	// Close unmaps the file. Closing twice is harmless.
	Close() error
}

// Wanted is the shape that a tensor of a network must have.
type Wanted struct {
	Name  string
	Shape []int
}

// Diff is what Compare found. It is an error when a network could not be
// loaded: with Missing or Misshapen tensors.
type Diff struct {
	Missing   []string
	Misshapen []string // "name: F32 [4 4], not [4 8]"
	Extra     []string // harmless: not part of the network
}

// Compare accounts for every tensor of src and of want. Extra lists the names
// in src that want does not have.
func Compare(src Source, want []Wanted) Diff {
	var d Diff
	known := make(map[string]bool, len(want))
	for _, w := range want {
		known[w.Name] = true
		i, ok := src.Lookup(w.Name)
		switch {
		case !ok:
			d.Missing = append(d.Missing, w.Name)
		case !slices.Equal(i.Shape, w.Shape):
			d.Misshapen = append(d.Misshapen, fmt.Sprintf("%s: %v, not %v", w.Name, i, w.Shape))
		case !i.DType.Float():
			d.Misshapen = append(d.Misshapen, fmt.Sprintf("%s: %v is not a floating-point type", w.Name, i.DType))
		}
	}
	for _, k := range src.Keys() {
		if !known[k] {
			d.Extra = append(d.Extra, k)
		}
	}
	return d
}

// Err is nil when nothing is missing or misshapen; otherwise it names up to
// eight tensors of each sort and counts the rest.
func (d Diff) Err() error {
	if len(d.Missing)+len(d.Misshapen) == 0 {
		return nil
	}
	var parts []string
	if len(d.Missing) > 0 {
		parts = append(parts, fmt.Sprintf("%d missing: %s", len(d.Missing), some(d.Missing)))
	}
	if len(d.Misshapen) > 0 {
		parts = append(parts, fmt.Sprintf("%d of the wrong shape or type: %s", len(d.Misshapen), some(d.Misshapen)))
	}
	if len(d.Extra) > 0 {
		parts = append(parts, fmt.Sprintf("%d unknown: %s", len(d.Extra), some(d.Extra)))
	}
	return fmt.Errorf("the tensors are not those of the model: %s", strings.Join(parts, "; "))
}

func some(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// checkShape returns the number of bytes of a tensor, and an error when a
// dimension is negative or the size does not fit.
func checkShape(shape []int, d DType) (int64, error) {
	// The product is taken over the dimensions that are not zero, so that a
	// zero cannot hide an overflow from whoever multiplies in another order.
	n, zero := int64(1), false
	for _, v := range shape {
		switch {
		case v < 0:
			return 0, fmt.Errorf("shape %v has a negative size", shape)
		case v == 0:
			zero = true
		case n > math.MaxInt64/8/int64(v):
			return 0, fmt.Errorf("shape %v is too large", shape)
		default:
			n *= int64(v)
		}
	}
	if zero {
		return 0, nil
	}
	return n * int64(d.Size()), nil
}
