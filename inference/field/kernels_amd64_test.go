package field

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"dreamcad/inference/camera"
)

// fill makes k random values from lo to hi.
func fill(r *rand.Rand, k int, lo, hi float32) []float32 {
	v := make([]float32, k)
	for i := range v {
		v[i] = lo + (hi-lo)*r.Float32()
	}
	return v
}

func compare(t *testing.T, name string, got, want []float32, tolerance float32) {
	t.Helper()
	for i := range want {
		if d := got[i] - want[i]; !(max(d, -d) <= tolerance*max(1, want[i], -want[i])) {
			t.Fatalf("%s: value %d is %g, portable %g", name, i, got[i], want[i])
		}
	}
}

// TestRayKernels sends rays through a rough shell and holds every step of a ray
// against the portable functions.
func TestRayKernels(t *testing.T) {
	if !hasAVX2 {
		t.Skip("this processor has no AVX2")
	}
	r := rand.New(rand.NewPCG(3, 4))
	const n, beta = 24, 0.02
	g, err := NewGrid(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n * n * n {
		x, y, z := float64(i%n)-11.5, float64(i/n%n)-11.5, float64(i/n/n)-11.5
		d := math.Abs(math.Sqrt(x*x+y*y+z*z)-7) - 1.5 // hollow, so that rays leave and enter again
		copy(g.V[i*4:], fill(r, 4, 0, 1))
		g.V[i*4] = float32(-d/12) + 0.05*(r.Float32()-0.5)
	}
	occ := newOccupancy(n)
	occ.markAll(g.V, -cutoff*beta)
	cam := Camera{camera.FromFront(30, 20), camera.Lens{FOV: 40, Distance: 2.8}}
	pr := cam.Projection(32)
	a, b := new(samples), new(samples)
	a.step[lead-1], b.step[lead-1] = -9, -9
	rays, differ, seen, long := 0, 0, 0, 0
	for i := range 32 * 32 {
		q, ok := newRay(&pr, i%32, i/32)
		if !ok {
			continue
		}
		m := occ.start(&q, g.Voxel()*0.3, r.Float32())
		again := m
		count := walk(a, marchPortable, &m, &occ)
		rays++
		if hasAVX512 {
			// Rounding may put a sample on the other side of a cell's border.
			if walk(b, marchWide, &again, &occ) != count {
				differ++
				continue
			}
			for k := lead; k < lead+count; k++ {
				if a.step[k] != b.step[k] {
					t.Fatalf("ray %d: sample %d is number %d of the lattice, portable %d", i, k-lead, b.step[k], a.step[k])
				}
				for c, p := range [3][2]float32{
					{float32(a.idx[k]%n) + a.fx[k], float32(b.idx[k]%n) + b.fx[k]},
					{float32(a.idx[k]/n%n) + a.fy[k], float32(b.idx[k]/n%n) + b.fy[k]},
					{float32(a.idx[k]/n/n) + a.fz[k], float32(b.idx[k]/n/n) + b.fz[k]},
				} {
					if d := p[0] - p[1]; max(d, -d) > 1e-4 {
						t.Fatalf("ray %d, sample %d, axis %d: at %g, portable %g", i, k-lead, c, p[1], p[0])
					}
				}
			}
		}
		if count == 0 {
			continue
		}
		seen++
		*b = *a
		gatherPortable(a, g.V, lead, count, n, n*n)
		gatherVector(b, g.V, lead, count, n, n*n)
		compare(t, "gather", b.val[lead*4:(lead+count)*4], a.val[lead*4:(lead+count)*4], 1e-5)
		*b = *a
		ca, cb := [4]float32{0, 0, 0, 1}, [4]float32{0, 0, 0, 1}
		// In two parts, so that a part begins in the middle of a segment.
		part := min(count, 5)
		used := compositePortable(a, lead, part, 1/beta, &ca)
		if used == part && count > part {
			used += compositePortable(a, lead+part, count-part, 1/beta, &ca)
		}
		if used < count {
			long++
		}
		dc := [4]float32{0.3, -0.7, 0.2, 0.5}
		if hasAVX512 {
			got := compositeWide(b, lead, part, 1/beta, &cb)
			if got == part && count > part {
				got += compositeWide(b, lead+part, count-part, 1/beta, &cb)
			}
			if got != used {
				t.Fatalf("ray %d: %d samples used of %d, portable %d", i, got, count, used)
			}
			compare(t, "composite: colour and light", cb[:], ca[:], 1e-5)
			for _, v := range []struct {
				name      string
				got, want []float32
			}{
				{"phi", b.phi[:], a.phi[:]}, {"alpha", b.alpha[:], a.alpha[:]}, {"light", b.light[:], a.light[:]},
				{"red", b.mr[:], a.mr[:]}, {"green", b.mg[:], a.mg[:]}, {"blue", b.mb[:], a.mb[:]},
			} {
				compare(t, "composite: "+v.name, v.got[lead:lead+used], v.want[lead:lead+used], 1e-4)
			}
			*b = *a
			backwardPortable(a, used, 1/beta, &dc)
			backwardWide(b, used, 1/beta, &dc)
			compare(t, "backward", b.gv[lead*4:(lead+used)*4], a.gv[lead*4:(lead+used)*4], 1e-3)
		}
		backwardPortable(a, used, 1/beta, &dc)
		x, y := make([]float32, len(g.V)), make([]float32, len(g.V))
		scatterVector(x, a, used, n, n*n)
		scatterPortable(y, a, used, n, n*n)
		compare(t, "scatter", x, y, 1e-4)
	}
	if differ*50 > rays || seen < rays/3 || long < seen/10 {
		t.Errorf("of %d rays %d differ in length, %d meet something, %d end inside", rays, differ, seen, long)
	}
}

// TestVoxelKernels holds the assembly over voxels against the portable functions.
func TestVoxelKernels(t *testing.T) {
	if !hasAVX2 {
		t.Skip("this processor has no AVX2")
	}
	r := rand.New(rand.NewPCG(1, 2))
	const n = 12
	grid := fill(r, n*n*n*4, -1, 1)
	a, b := make([]float32, 32), make([]float32, 32)
	x, y := make([]float32, len(grid)), make([]float32, len(grid))
	val := fill(r, 32*4, -3, 3)
	occlusionVector(a, val, 32, 40)
	occlusionPortable(b, val, 32, 40)
	compare(t, "occlusion", a, b, 2e-6)

	start, count := (3*n+4)*n+2, 8
	laplacianVector(x, grid, start, count, n, n*n)
	laplacianPortable(y, grid, start, count, n, n*n)
	compare(t, "laplacian", x, y, 1e-5)

	s1, s2 := fill(r, 64, -1, 1), make([]float32, 64)
	copy(s2, s1)
	d1, d2 := fill(r, 64, -1, 1), make([]float32, 64)
	copy(d2, d1)
	mergeVector(d1, s1, 8, 48)
	mergePortable(d2, s2, 8, 48)
	compare(t, "merge", d1, d2, 0)
	compare(t, "merge source", s1, s2, 0)

	f := &Fit{grid: &Grid{N: n}, active: 100, it: 7, cfg: DefaultSchedule()}
	f.cfg.Iterations, f.cfg.Bilaplace, f.cfg.Laplace, f.cfg.Eikonal = 20, 5, 0.3, 2
	p := f.constants(0.4, 2.0/n)
	lap := fill(r, len(grid), -1, 1)
	type state struct{ dst, grad, m, v []float32 }
	grad, m, v := fill(r, len(grid), -.1, .1), fill(r, len(grid), -.1, .1), fill(r, len(grid), 0.01, .1)
	count = 6
	update := func(f func(dst, grid, lap, grad, m, v []float32, i, n, strideY, strideZ int, p *stepConstants)) state {
		s := state{make([]float32, len(grid)), slices.Clone(grad), slices.Clone(m), slices.Clone(v)}
		f(s.dst, grid, lap, s.grad, s.m, s.v, start, count, n, n*n, p)
		return s
	}
	want := update(updatePortable)
	got := []state{update(updateVector)}
	if hasAVX512 {
		got = append(got, update(updateWide))
	}
	for _, s := range got {
		compare(t, "update: m", s.m, want.m, 1e-4)
		compare(t, "update: v", s.v, want.v, 1e-4)
		compare(t, "update: grad", s.grad, want.grad, 0)
		compare(t, "update", s.dst, want.dst, 1e-4)
	}
}

// BenchmarkUpdate is a step over the voxels of a full grid of 96, and of what an
// iteration does it is the memory's part.
func BenchmarkUpdate(b *testing.B) {
	const n = 96
	r := rand.New(rand.NewPCG(1, 2))
	k := n * n * n * 4
	dst, grid, lap, grad, m, v := make([]float32, k), fill(r, k, 0, 1), fill(r, k, 0, 1), make([]float32, k), fill(r, k, 0, 1), fill(r, k, 0, 1)
	f := &Fit{grid: &Grid{N: n}, active: 100, it: 7, cfg: DefaultSchedule()}
	f.cfg.Iterations, f.cfg.Bilaplace, f.cfg.Eikonal = 20, 5, 2
	p := f.constants(0.4, 2.0/n)
	for _, c := range []struct {
		name string
		f    func(dst, grid, lap, grad, m, v []float32, i, n, strideY, strideZ int, p *stepConstants)
	}{{"portable", updatePortable}, {"avx2", updateVector}, {"avx512", updateWide}} {
		if c.name == "avx2" && !hasAVX2 || c.name == "avx512" && !hasAVX512 {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				for z := 24; z < 72; z++ {
					for y := 24; y < 72; y++ {
						c.f(dst, grid, lap, grad, m, v, (z*n+y)*n+24, 48, n, n*n, p)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(48*48*48), "ns/voxel")
		})
	}
}
