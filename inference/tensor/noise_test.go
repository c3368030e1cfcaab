package tensor

import (
	"math"
	"slices"
	"testing"
)

// Known answers of Philox 4x32-10 from the Random123 distribution (kat_vectors).
func TestPhiloxKnownAnswers(t *testing.T) {
	f := uint32(0xffffffff)
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{f, f, f, f}, [2]uint32{f, f}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(c.counter, c.key); got != c.want {
			t.Errorf("philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

func TestNormalHasItsMoments(t *testing.T) {
	x, y := make([]float32, 1<<16), make([]float32, 1<<16)
	Normal(x, 42, 0)
	Normal(y, 42, 0)
	if !slices.Equal(x, y) {
		t.Fatal("the same seed and call gave different numbers")
	}
	Normal(y, 42, 1)
	var mean, sq, cross float64
	for i := range x {
		mean += float64(x[i]) / float64(len(x))
		sq += float64(x[i]*x[i]) / float64(len(x))
		cross += float64(x[i]*y[i]) / float64(len(x))
	}
	if math.Abs(mean) > 0.02 || math.Abs(sq-1) > 0.03 || math.Abs(cross) > 0.02 {
		t.Fatalf("mean %g, square %g, product with the next call %g", mean, sq, cross)
	}
}

func TestToLast(t *testing.T) {
	planes := []float32{0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112} // 2 images of 2 planes of 3 pixels
	last := make([]float32, len(planes))
	ToLast(last, planes, 2, 2, 3)
	if want := []float32{0, 10, 1, 11, 2, 12, 100, 110, 101, 111, 102, 112}; !slices.Equal(last, want) {
		t.Fatalf("%v became %v, want %v", planes, last, want)
	}
}
