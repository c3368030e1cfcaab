package field

import (
	"slices"
	"testing"
)

// TestPlan holds what other engines get against what the CPU uses.
func TestPlan(t *testing.T) {
	const n, size = 16, 24
	views := ballViews(t, ball(t, 32, 0.6), size)
	h := NewHull(views, n)
	g, err := h.Start(views)
	if err != nil {
		t.Fatal(err)
	}
	var rays Rays
	for _, v := range views {
		rays.Add(v, 2)
	}
	c := DefaultSchedule()
	c.Iterations, c.Beta, c.Bilaplace, c.Eikonal = 40, [2]float64{1, 0.5}, 5, 1
	f, err := NewFit(g, h.Active, &rays, c, 3)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan(g, h.Active, &rays, c, 3)
	if err != nil {
		t.Fatal(err)
	}
	voxels := p.Voxels()
	if len(voxels) != f.Active() || !slices.IsSorted(voxels) {
		t.Errorf("%d voxels, want %d in order", len(voxels), f.Active())
	}
	packed := make([]float32, RayFloats*(rays.Len()-1))
	rays.Pack(1, packed)
	lo, hi := p.Box()
	for i, q := range f.rays[1:] {
		r := packed[i*RayFloats:]
		near, far := r[6], r[7]
		for k := range 3 {
			a, b := (lo[k]-r[k])/r[3+k], (hi[k]-r[k])/r[3+k]
			near, far = max(near, min(a, b)), min(far, max(a, b))
		}
		if near != q.near || far != q.far || r[8] != q.colour[0] || r[11] != q.opacity || r[12] != q.weight {
			t.Fatalf("ray %d: %v, clipped %v to %v, the CPU has %+v", i+1, r[:RayFloats], near, far, q)
		}
	}
	if k := p.Constants(16); !k.Look || k.InvBeta <= p.Constants(15).InvBeta || p.Constants(15).Look || k.Bilaplace == 0 || k.Laplace != 0 || k.ColourTV == 0 {
		t.Errorf("constants %+v", k)
	}
	if _, err := NewPlan(g, h.Active[1:], &rays, c, 3); err == nil {
		t.Error("an active map of the wrong size was accepted")
	}
}
