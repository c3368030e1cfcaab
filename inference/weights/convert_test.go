package weights

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/x448/float16"
)

// Every half widens and narrows as an independent implementation has it.
func TestAllHalves(t *testing.T) {
	for h := range 1 << 16 {
		want := float16.Frombits(uint16(h))
		got := HalfToFloat(uint16(h))
		if math.Float32bits(got) != math.Float32bits(want.Float32()) && !want.IsNaN() {
			t.Fatalf("%#04x: %v, not %v", h, got, want)
		}
		if want.IsNaN() != (got != got) {
			t.Fatalf("%#04x: %v", h, got)
		}
		if back := FloatToHalf(got); back != uint16(h) && !want.IsNaN() {
			t.Fatalf("%#04x came back as %#04x", h, back)
		}
	}
}

func TestRounding(t *testing.T) {
	try := func(f float32) {
		want := float16.Fromfloat32(f)
		if got := FloatToHalf(f); got != want.Bits() && f == f {
			t.Fatalf("%v (%#08x): %#04x, not %#04x", f, math.Float32bits(f), got, want.Bits())
		}
	}
	// Around every half: its value, the midpoint to the next one and the
	// neighbours of both; then a walk over all exponents.
	for h := range 0x7c00 {
		a, b := HalfToFloat(uint16(h)), HalfToFloat(uint16(h+1))
		mid := (a + b) / 2
		if h == 0x7bff {
			mid = 65520
		}
		for _, f := range []float32{a, mid, math.Nextafter32(mid, 0), math.Nextafter32(mid, 1e9)} {
			try(f)
			try(-f)
		}
	}
	for bits := uint64(0); bits < 1<<32; bits += 65521 {
		try(math.Float32frombits(uint32(bits)))
	}
	if h := FloatToHalf(float32(math.NaN())); HalfToFloat(h) == HalfToFloat(h) {
		t.Errorf("NaN became %#04x", h)
	}
}

// Large tensors are converted by several goroutines: no element may be left.
func TestLargeConversion(t *testing.T) {
	n := parallelFrom*3 + 7
	values := make([]float32, n)
	for i := range n {
		values[i] = float32(i % 1000)
	}
	half, brain := EncodeF16(values), make([]byte, 2*n)
	for i := range n {
		binary.LittleEndian.PutUint16(brain[2*i:], uint16(math.Float32bits(float32(i%256))>>16))
	}
	dst := make([]float32, n)
	if err := toFloat32(dst, half, F16); err != nil {
		t.Fatal(err)
	}
	for i, v := range dst {
		if v != float32(i%1000) {
			t.Fatalf("F16 element %d is %v", i, v)
		}
	}
	if err := toFloat32(dst, EncodeF32(values), F32); err != nil || !slices.Equal(dst, values) {
		t.Fatalf("F32 came back as something else: %v", err)
	}
	if err := toFloat32(dst, brain, BF16); err != nil {
		t.Fatal(err)
	}
	for i, v := range dst {
		if v != float32(i%256) {
			t.Fatalf("BF16 element %d is %v", i, v)
		}
	}
}

func BenchmarkHalfToFloat(b *testing.B) {
	n := 1 << 22
	data, dst := make([]byte, 2*n), make([]float32, n)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := toFloat32(dst, data, F16); err != nil {
			b.Fatal(err)
		}
	}
}
