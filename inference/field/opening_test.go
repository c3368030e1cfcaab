package field

import (
	"math"
	"testing"
)

// TestFindOpening: a filled cup may be open at the top, from rim to rim; a bottle may
// not: its shoulders are no lid, and its neck is too narrow.
func TestFindOpening(t *testing.T) {
	const n = 64
	turned := func(radius func(z float64) float64) *Grid {
		g, err := NewGrid(n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n * n * n {
			x, y, z := (float64(i%n)+0.5)*2/n-1, (float64(i/n%n)+0.5)*2/n-1, (float64(i/n/n)+0.5)*2/n-1
			g.V[i*4] = float32(min(radius(z)-math.Hypot(x, y), 0.6-math.Abs(z)))
		}
		return g
	}
	cup := FindOpening(turned(func(float64) float64 { return 0.4 }))
	if cup == nil {
		t.Fatal("a cup cannot be open")
	}
	for _, x := range []float64{0, 0.3} {
		if !cup.Lid([3]float64{x, 0, 0.58}) {
			t.Errorf("the cup's lid does not reach %g from its middle", x)
		}
	}
	if cup.Lid([3]float64{0.5, 0, 0.58}) || cup.Lid([3]float64{0, 0, 0}) {
		t.Error("the cup's lid goes beyond its top")
	}
	// Emptied, it keeps walls, and a thicker floor.
	g := turned(func(float64) float64 { return 0.4 })
	if !cup.Hollow(g, 2.3) {
		t.Fatal("nothing was emptied")
	}
	at := func(x, y, z int) float32 { return g.V[((z*n+y)*n+x)*4] }
	solid := func(from, to int, at func(i int) float32) (count int) {
		for i := from; i < to; i++ {
			if at(i) > 0 {
				count++
			}
		}
		return count
	}
	floor := solid(0, n, func(z int) float32 { return at(n/2, n/2, z) })
	wall := solid(n/2, n, func(x int) float32 { return at(x, n/2, n/2) })
	if wall < 2 || wall > 3 || floor < 3 || floor > 5 {
		t.Errorf("the wall is %d voxels thick, the floor %d", wall, floor)
	}
	bottle := turned(func(z float64) float64 { return min(0.4, max(0.12, 0.4-0.9*z)) })
	if FindOpening(bottle) != nil {
		t.Error("a bottle can be open from shoulder to shoulder")
	}
}
