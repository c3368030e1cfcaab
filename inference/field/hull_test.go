package field

import (
	"slices"
	"testing"

	"dreamcad/inference/camera"
)

// TestHullKeepsSources: redrawn views that show too little do not take away what the
// source views show, and their contradicting pixels are told; redrawn views that agree
// change nothing.
func TestHullKeepsSources(t *testing.T) {
	const n, size = 48, 64
	views := ballViews(t, ball(t, n, 0.6), size)
	alone := NewHull(views, n)
	redrawn := func(r float32) []View {
		g := ball(t, n, float64(r))
		all := slices.Clone(views)
		for k := range 4 {
			c := Camera{camera.Camera{Azimuth: 90*float64(k) + 65, Elevation: 10}, lens}
			p := g.Render(c, size, 0.3)
			all = append(all, View{Camera: c, Image: p.Image, Mask: Mask(p.Image), Weight: 0.7})
		}
		return all
	}
	disputed := func(h *Hull) (count int) {
		for _, d := range h.Disputed {
			for _, v := range d {
				if v {
					count++
				}
			}
		}
		return count
	}
	covered := func(h *Hull) float64 {
		g, err := NewGrid(n)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range h.Distance {
			g.V[i*4] = d
		}
		seen, all := 0, 0
		for _, v := range views {
			for i, p := range g.Peak(v.Camera, size, -g.Voxel()) {
				if v.Mask[i] {
					all++
					if p > 0 {
						seen++
					}
				}
			}
		}
		return float64(seen) / float64(all)
	}
	agree := NewHull(redrawn(0.6), n)
	if d := disputed(agree); d > 0 || covered(agree) < covered(alone)-0.02 {
		t.Errorf("views that agree: %d pixels disputed, %.3f of the silhouettes covered, %.3f without them", d, covered(agree), covered(alone))
	}
	less := redrawn(0.45)
	h := NewHull(less, n)
	if d := disputed(h); d < 100 || covered(h) < 0.94 {
		t.Errorf("views that show less: %d pixels disputed, %.3f of the silhouettes covered", d, covered(h))
	}
	for c, d := range h.Disputed {
		for i, v := range d {
			if v && (less[c].Source || less[c].Mask[i]) {
				t.Fatalf("view %d: pixel %d is no background of a redrawn view", c, i)
			}
		}
	}
	var some, all Rays
	v := less[4]
	all.Add(v, 4)
	v.Unsure = h.Disputed[4]
	some.Add(v, 4)
	if some.Len() >= all.Len() {
		t.Errorf("%d rays with disputed pixels left out, %d with them", some.Len(), all.Len())
	}
}
