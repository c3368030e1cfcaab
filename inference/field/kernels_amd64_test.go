package field

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/cpu"
)

// TestVectorKernels holds the assembly against the portable functions.
func TestVectorKernels(t *testing.T) {
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		t.Skip("this processor has no AVX2")
	}
	r := rand.New(rand.NewPCG(1, 2))
	const n = 12
	fill := func(k int, lo, hi float32) []float32 {
		v := make([]float32, k)
		for i := range v {
			v[i] = lo + (hi-lo)*r.Float32()
		}
		return v
	}
	compare := func(name string, got, want []float32, tolerance float32) {
		t.Helper()
		for i := range want {
			if d := got[i] - want[i]; !(max(d, -d) <= tolerance*max(1, want[i], -want[i])) {
				t.Fatalf("%s: value %d is %g, portable %g", name, i, got[i], want[i])
			}
		}
	}
	grid := fill(n*n*n*4, -1, 1)
	const samples = 29
	idx, frac := make([]int32, samples), fill(samples*4, 0, 1)
	for i := range idx {
		idx[i] = int32((r.IntN(n-1)*n+r.IntN(n-1))*n + r.IntN(n-1))
	}
	a, b := make([]float32, samples*4), make([]float32, samples*4)
	gatherVector(a, grid, idx, frac, samples, n, n*n)
	gatherPortable(b, grid, idx, frac, samples, n, n*n)
	compare("gather", a, b, 1e-5)

	x, y := make([]float32, len(grid)), make([]float32, len(grid))
	gv := fill(samples*4, -1, 1)
	scatterVector(x, gv, idx, frac, samples, n, n*n)
	scatterPortable(y, gv, idx, frac, samples, n, n*n)
	compare("scatter", x, y, 1e-5)

	val := fill(32*4, -3, 3)
	occlusionVector(a, val, 32, 40)
	occlusionPortable(b, val, 32, 40)
	compare("occlusion", a[:32], b[:32], 2e-6)

	start, count := (3*n+4)*n+2, 8
	clear(x)
	clear(y)
	laplacianVector(x, grid, start, count, n, n*n)
	laplacianPortable(y, grid, start, count, n, n*n)
	compare("laplacian", x, y, 1e-5)

	s1, s2 := fill(64, -1, 1), make([]float32, 64)
	copy(s2, s1)
	d1, d2 := fill(64, -1, 1), make([]float32, 64)
	copy(d2, d1)
	mergeVector(d1, s1, 8, 48)
	mergePortable(d2, s2, 8, 48)
	compare("merge", d1, d2, 0)
	compare("merge source", s1, s2, 0)

	f := &Fit{grid: &Grid{N: n}, active: 100, it: 7, cfg: DefaultSchedule()}
	f.cfg.Iterations, f.cfg.Bilaplace, f.cfg.Laplace, f.cfg.Eikonal = 20, 5, 0.3, 2
	p := f.constants(0.4, 2.0/n)
	lap := fill(len(grid), -1, 1)
	type state struct{ dst, grad, m, v []float32 }
	var st [2]state
	grad, m, v := fill(len(grid), -.1, .1), fill(len(grid), -.1, .1), fill(len(grid), 0.01, .1)
	for i := range st {
		st[i] = state{make([]float32, len(grid)), append([]float32(nil), grad...), append([]float32(nil), m...), append([]float32(nil), v...)}
	}
	updateVector(st[0].dst, grid, lap, st[0].grad, st[0].m, st[0].v, start, count, n, n*n, p)
	updatePortable(st[1].dst, grid, lap, st[1].grad, st[1].m, st[1].v, start, count, n, n*n, p)
	compare("update: m", st[0].m, st[1].m, 1e-4)
	compare("update: v", st[0].v, st[1].v, 1e-4)
	compare("update: grad", st[0].grad, st[1].grad, 0)
	compare("update", st[0].dst, st[1].dst, 1e-4)
}
