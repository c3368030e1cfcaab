package cpu

import (
	"math"
	"unsafe"
)

// portable is the code path of machines without assembly, and the reference of
// the others.
func portable() *kernels {
	return &kernels{name: "portable", mr: 4, nr: 8, lanes: 1, tile: tileGo,
		sums: sumsGo, layerNorm: layerNormGo, softmax: softmaxGo, affine: affineGo,
		affineSilu: affineSiluGo, silu: siluGo, gelu: geluGo, exp: expGo, geglu: gegluGo, addTo: addToGo}
}

// floats is the row of n floats that starts bytes behind p.
func floats(p *float32, bytes, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), bytes)), n)
}

func tileGo(t *tile) {
	const mr, nr = 4, 8
	var acc [mr][nr]float32
	for i := range acc {
		copy(acc[i][:], floats(t.b, 0, nr))
	}
	k := t.k / 4
	b := floats(t.b, 4*nr, t.ntaps*k*nr)
	for _, tap := range unsafe.Slice(t.taps, t.ntaps) {
		a0, a1, a2, a3 := floats(t.rows[0], tap, k), floats(t.rows[1], tap, k), floats(t.rows[2], tap, k), floats(t.rows[3], tap, k)
		for j := range k {
			w := (*[nr]float32)(b[:nr])
			b = b[nr:]
			x0, x1, x2, x3 := a0[j], a1[j], a2[j], a3[j]
			for c := range nr {
				acc[0][c] += x0 * w[c]
				acc[1][c] += x1 * w[c]
				acc[2][c] += x2 * w[c]
				acc[3][c] += x3 * w[c]
			}
		}
	}
	for i := range acc {
		if t.res != nil {
			for c, r := range floats(t.res, i*t.ldres, nr) {
				acc[i][c] += r
			}
		}
		copy(floats(t.c, i*t.ldc, nr), acc[i][:])
	}
}

// eachRow calls f with the destination and source rows.
func eachRow(r *rowArgs, f func(i int, dst, src []float32)) {
	for i := range r.rows {
		f(i, floats(r.dst, i*r.dstPitch, r.cols), floats(r.src, i*r.srcPitch, r.cols))
	}
}

func sumsGo(r *rowArgs) {
	a, b := floats(r.a, 0, r.cols), floats(r.b, 0, r.cols)
	for i := range r.rows {
		for c, x := range floats(r.src, i*r.srcPitch, r.cols) {
			a[c] += x
			b[c] += x * x
		}
	}
}

func layerNormGo(r *rowArgs) {
	a, b := floats(r.a, 0, r.cols), floats(r.b, 0, r.cols)
	eachRow(r, func(_ int, dst, src []float32) {
		var mean, sq float32
		for _, x := range src {
			mean += x
		}
		mean *= r.inv
		for _, x := range src {
			sq += (x - mean) * (x - mean)
		}
		s := 1 / float32(math.Sqrt(float64(sq*r.inv+r.eps)))
		for c, x := range src {
			dst[c] = (x-mean)*s*a[c] + b[c]
		}
	})
}

func softmaxGo(r *rowArgs) {
	m, sum, diff := floats(r.a, 0, r.rows), floats(r.b, 0, r.rows), floats(r.dst, 0, r.rows)
	for i := range r.rows {
		src := floats(r.src, i*r.srcPitch, r.cols)
		top := src[0]
		for _, x := range src {
			top = max(top, x)
		}
		top = max(top*r.eps, m[i])
		diff[i], m[i], sum[i] = m[i]-top, top, 0
		for c, x := range src {
			src[c] = exp32(x*r.eps - top)
			sum[i] += src[c]
		}
	}
}

func affineGo(r *rowArgs) {
	a, b := floats(r.a, 0, r.cols), floats(r.b, 0, r.cols)
	eachRow(r, func(_ int, dst, src []float32) {
		for c, x := range src {
			dst[c] = x*a[c] + b[c]
		}
	})
}

func affineSiluGo(r *rowArgs) {
	a, b := floats(r.a, 0, r.cols), floats(r.b, 0, r.cols)
	eachRow(r, func(_ int, dst, src []float32) {
		for c, x := range src {
			dst[c] = silu32(x*a[c] + b[c])
		}
	})
}

func siluGo(r *rowArgs) {
	eachRow(r, func(_ int, dst, src []float32) {
		for c, x := range src {
			dst[c] = silu32(x)
		}
	})
}

func geluGo(r *rowArgs) {
	eachRow(r, func(_ int, dst, src []float32) {
		for c, x := range src {
			dst[c] = gelu32(x)
		}
	})
}

func expGo(r *rowArgs) {
	eachRow(r, func(_ int, dst, src []float32) {
		for c, x := range src {
			dst[c] = exp32(x)
		}
	})
}

func gegluGo(r *rowArgs) {
	eachRow(r, func(i int, dst, src []float32) {
		gate := floats(r.a, i*r.aPitch, r.cols)
		for c, x := range src {
			dst[c] = x * gelu32(gate[c])
		}
	})
}

func addToGo(r *rowArgs) {
	eachRow(r, func(_ int, dst, src []float32) {
		for c, x := range src {
			dst[c] += x
		}
	})
}

func exp32(x float32) float32  { return float32(math.Exp(float64(max(x, -100)))) }
func silu32(x float32) float32 { return x / (1 + exp32(-x)) }
func gelu32(x float32) float32 {
	return float32(float64(x) * 0.5 * (1 + math.Erf(float64(x)/math.Sqrt2)))
}
