package mesh

import (
	"testing"

	"pgregory.net/rapid"
)

func TestMarchSphere(t *testing.T) {
	const n = 24
	v := make([]float32, n*n*n)
	for i := range v {
		p := Vec{float32(i%n) + 0.5, float32(i/n%n) + 0.5, float32(i/n/n) + 0.5}.scale(2.0 / n).sub(Vec{1, 1, 1})
		v[i] = 0.7 - p.norm()
	}
	m := March(v, n, 0)
	if c := m.Check(); !c.Manifold || c.Components != 1 || c.Genus != 0 {
		t.Fatalf("sphere: %+v", c)
	}
	for _, f := range m.Faces {
		if m.normal(f).dot(m.Vertices[f[0]]) <= 0 {
			t.Fatal("a face of the sphere looks inward")
		}
	}
	for _, p := range m.Vertices {
		if r := p.norm(); r < 0.69 || r > 0.71 {
			t.Fatalf("a vertex of the sphere of radius 0.7 is at %g", r)
		}
	}
}

// TestMarchRandom: whatever the samples, the surface is closed and manifold.
func TestMarchRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "n")
		bits := rapid.SliceOfN(rapid.IntRange(-2, 2), n*n*n, n*n*n).Draw(t, "samples")
		v := make([]float32, len(bits))
		for i, b := range bits {
			v[i] = float32(b)
		}
		m := March(v, n, 0)
		if len(m.Faces) == 0 {
			return
		}
		if c := m.Check(); !c.Manifold {
			t.Fatalf("%+v", c)
		}
	})
}
