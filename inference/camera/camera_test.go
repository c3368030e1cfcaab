package camera

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The four matrices were printed by get_camera of bytedance/MVDream at elevation 15.
func TestMatrixMatchesUpstream(t *testing.T) {
	const s, c = 0.258819, 0.965926
	want := map[float64][16]float64{
		0:   {1, 0, 0, 0, 0, s, -c, -c, 0, c, s, s, 0, 0, 0, 1},
		90:  {0, -s, c, c, 1, 0, 0, 0, 0, c, s, s, 0, 0, 0, 1},
		180: {-1, 0, 0, 0, 0, -s, c, c, 0, c, s, s, 0, 0, 0, 1},
		270: {0, s, -c, -c, -1, 0, 0, 0, 0, c, s, s, 0, 0, 0, 1},
	}
	for az, w := range want {
		m := Camera{Azimuth: az, Elevation: 15}.Matrix()
		for i := range w {
			if math.Abs(float64(m[i])-w[i]) > 2e-6 {
				t.Errorf("azimuth %g: element %d is %g, want %g", az, i, m[i], w[i])
			}
		}
	}
}

func TestFrontIsSeenFromPlusX(t *testing.T) {
	p, _, _ := FromFront(0, 0).Basis()
	if math.Abs(p[0]-1) > 1e-12 {
		t.Fatalf("the camera at the front stands at %v, want (1, 0, 0)", p)
	}
	if a := (Camera{Azimuth: 20}).FrontAzimuth(); a != 290 {
		t.Fatalf("azimuth 20 counts as %g from the front, want 290", a)
	}
	// Counter-clockwise from above: 90 degrees from the front is +y.
	if p, _, _ := FromFront(90, 0).Basis(); math.Abs(p[1]-1) > 1e-12 {
		t.Fatalf("the camera at 90 stands at %v, want (0, 1, 0)", p)
	}
}

func TestRayUndoesProject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := func(name string, lo, hi float64) float64 { return rapid.Float64Range(lo, hi).Draw(t, name) }
		c := Camera{f("azimuth", -720, 720), f("elevation", -80, 80)}
		l := Lens{f("fov", 20, 70), f("distance", 2, 4)}
		p := [3]float64{f("x", -0.7, 0.7), f("y", -0.7, 0.7), f("z", -0.7, 0.7)}
		u, v, depth := l.Project(c, p)
		o, d := l.Ray(c, u, v)
		pos, _, _ := c.Basis()
		s := depth / -dot(d, pos)
		for i := range 3 {
			if q := o[i] + s*d[i]; math.Abs(q-p[i]) > 1e-9 {
				t.Fatalf("coordinate %d comes back as %g, want %g", i, q, p[i])
			}
		}
	})
}
