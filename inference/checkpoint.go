package inference

import (
	"encoding/binary"
	"fmt"
	"math"

	"dreamcad/inference/weights"
)

// checkpoint shows the tensors of a file to the networks.
type checkpoint struct{ weights.Source }

// Shape implements device.Weights.
func (c checkpoint) Shape(name string) ([]int, bool) {
	i, ok := c.Lookup(name)
	return i.Shape, ok
}

// Float32 implements device.Weights.
func (c checkpoint) Float32(name string, offset int, dst []float32) error {
	i, ok := c.Lookup(name)
	if !ok {
		return fmt.Errorf("read weights: tensor %q is missing", name)
	}
	if offset == 0 && len(dst) == i.Elements() {
		_, err := c.Source.Float32(name, dst)
		return err
	}
	if offset < 0 || offset+len(dst) > i.Elements() {
		return fmt.Errorf("read weights: elements %d to %d of tensor %q, which has %d", offset, offset+len(dst), name, i.Elements())
	}
	raw, err := c.Source.Raw(name)
	if err != nil {
		return err
	}
	raw = raw[offset*i.DType.Size():]
	for k := range dst {
		switch i.DType {
		case weights.F32:
			dst[k] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*k:]))
		case weights.F16:
			dst[k] = weights.HalfToFloat(binary.LittleEndian.Uint16(raw[2*k:]))
		case weights.BF16:
			dst[k] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*k:])) << 16)
		default:
			return fmt.Errorf("read weights: tensor %q is of type %v", name, i.DType)
		}
	}
	return nil
}

// Raw implements device.RawWeights.
func (c checkpoint) Raw(name string) (dtype string, data []byte, ok bool) {
	i, ok := c.Lookup(name)
	if !ok {
		return "", nil, false
	}
	b, err := c.Source.Raw(name)
	return i.DType.String(), b, err == nil
}
