package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"
)

// parallelFrom is the number of elements from which a conversion uses all
// cores; below it starting goroutines costs more than it gains.
const parallelFrom = 1 << 18

// toFloat32 converts data of type d into dst.
func toFloat32(dst []float32, data []byte, d DType) error {
	var f func(dst []float32, data []byte)
	switch d {
	case F32:
		f = fromF32
	case F16:
		f = fromF16
	case BF16:
		f = fromBF16
	default:
		return fmt.Errorf("%v is not a floating-point type that networks use", d)
	}
	if len(dst)*d.Size() != len(data) {
		return fmt.Errorf("%d bytes of %v are not %d elements", len(data), d, len(dst))
	}
	split(len(dst), func(at, end int) { f(dst[at:end], data[at*d.Size():end*d.Size()]) })
	return nil
}

// split calls f for ranges that together are 0 to n, on all cores when that
// pays.
func split(n int, f func(at, end int)) {
	if n < parallelFrom {
		f(0, n)
		return
	}
	workers := runtime.GOMAXPROCS(0)
	step := (n + workers - 1) / workers
	var wg sync.WaitGroup
	for at := 0; at < n; at += step {
		wg.Go(func() { f(at, min(at+step, n)) })
	}
	wg.Wait()
}

func fromF32(dst []float32, data []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
}

func fromBF16(dst []float32, data []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
	}
}

func fromF16(dst []float32, data []byte) {
	for i := range dst {
		dst[i] = HalfToFloat(binary.LittleEndian.Uint16(data[2*i:]))
	}
}

// HalfToFloat widens an IEEE 754 half. Moving exponent and fraction into place
// leaves a number that is 2^112 too small, subnormals included, so that one
// exact multiplication does the rest; infinities and NaNs need their exponent
// filled.
func HalfToFloat(h uint16) float32 {
	const scale = 1 << 112
	sign := uint32(h&0x8000) << 16
	magnitude := uint32(h&0x7fff) << 13
	if magnitude >= 0x7c00<<13 {
		return math.Float32frombits(sign | magnitude | 0x7f800000)
	}
	return math.Float32frombits(sign | math.Float32bits(math.Float32frombits(magnitude)*scale))
}

// FloatToHalf rounds to the nearest half, ties to even. Values too large
// become infinite; a NaN stays one.
func FloatToHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits>>16) & 0x8000
	abs := bits & 0x7fffffff
	switch {
	case abs > 0x7f800000: // NaN, made quiet
		return sign | 0x7e00 | uint16(abs>>13)&0x3ff
	case abs >= 0x477ff000: // 65520 and above
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14, subnormal or zero: adding 0.5 rounds at 2^-24
		return sign | uint16(math.Float32bits(math.Float32frombits(abs)+0.5)-0x3f000000)
	}
	// Rebias the exponent by -112, then round the 13 bits that fall away.
	abs -= 112 << 23
	abs += 0xfff + abs>>13&1
	return sign | uint16(abs>>13)
}

// EncodeF32 and EncodeF16 are the stored form of a tensor.
func EncodeF32(v []float32) []byte {
	b := make([]byte, 4*len(v))
	split(len(v), func(at, end int) {
		for i := at; i < end; i++ {
			binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v[i]))
		}
	})
	return b
}

// EncodeF16 rounds to halves; see FloatToHalf.
func EncodeF16(v []float32) []byte {
	b := make([]byte, 2*len(v))
	split(len(v), func(at, end int) {
		for i := at; i < end; i++ {
			binary.LittleEndian.PutUint16(b[2*i:], FloatToHalf(v[i]))
		}
	})
	return b
}
