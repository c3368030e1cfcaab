package mesh

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/field"

	"pgregory.net/rapid"
)

// lumpy is a closed surface of random blobs: several handles, thin bridges.
func lumpy(seed uint64, n, blobs int) *Mesh {
	r := rand.New(rand.NewPCG(seed, 1))
	v := make([]float32, n*n*n)
	for i := range v {
		v[i] = -1
	}
	for range blobs {
		c := Vec{r.Float32()*1.2 - 0.6, r.Float32()*1.2 - 0.6, r.Float32()*1.2 - 0.6}
		radius := 0.1 + 0.2*r.Float32()
		for i := range v {
			p := Vec{float32(i%n) + 0.5, float32(i/n%n) + 0.5, float32(i/n/n) + 0.5}.scale(2 / float32(n)).sub(Vec{1, 1, 1})
			v[i] = max(v[i], radius-p.sub(c).norm())
		}
	}
	return March(v, n, 0)
}

// TestDecimate: whatever the surface, decimation keeps it closed, manifold and of the
// same genus, and near its budget.
func TestDecimate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := lumpy(rapid.Uint64().Draw(t, "seed"), 16, rapid.IntRange(1, 14).Draw(t, "blobs"))
		before := m.Check()
		if !before.Manifold {
			t.Fatalf("before: %+v", before)
		}
		budget := rapid.IntRange(50, 400).Draw(t, "budget")
		d := m.Decimate(budget)
		after := d.Check()
		if !after.Manifold || after.Genus != before.Genus || after.Components != before.Components {
			t.Fatalf("before %+v, after %+v", before, after)
		}
		if len(d.Faces) > len(m.Faces) {
			t.Fatalf("%d faces became %d", len(m.Faces), len(d.Faces))
		}
	})
}

func TestDecimateSphere(t *testing.T) {
	const n = 32
	v := make([]float32, n*n*n)
	for i := range v {
		p := Vec{float32(i%n) + 0.5, float32(i/n%n) + 0.5, float32(i/n/n) + 0.5}.scale(2.0 / n).sub(Vec{1, 1, 1})
		v[i] = 0.7 - p.norm()
	}
	m := March(v, n, 0).Decimate(600)
	if len(m.Faces) > 600 || len(m.Faces) < 590 {
		t.Errorf("%d faces, budget 600", len(m.Faces))
	}
	for _, p := range m.Vertices {
		if r := p.norm(); r < 0.67 || r > 0.73 {
			t.Errorf("a vertex of the sphere of radius 0.7 went to %g", r)
		}
	}
	if r := m.Roughness(); r > 15 {
		t.Errorf("the sphere's roughness is %g°", r)
	}
}

func TestClean(t *testing.T) {
	m := lumpy(5, 24, 1)
	whole := m.Check()
	speck := lumpy(6, 40, 1)
	for i := range speck.Vertices {
		speck.Vertices[i] = speck.Vertices[i].scale(0.05).add(Vec{0.9, 0.9, 0.9})
	}
	cavity := lumpy(5, 24, 1)
	base := int32(len(m.Vertices))
	both := &Mesh{append(slices.Clone(m.Vertices), speck.Vertices...), slices.Clone(m.Faces)}
	for _, f := range speck.Faces {
		both.Faces = append(both.Faces, [3]int32{f[0] + base, f[1] + base, f[2] + base})
	}
	base = int32(len(both.Vertices))
	both.Vertices = append(both.Vertices, cavity.Vertices...)
	for _, f := range cavity.Faces { // turned inside out
		both.Faces = append(both.Faces, [3]int32{f[0] + base, f[2] + base, f[1] + base})
	}
	if c := both.Check(); c.Components != 3 {
		t.Fatalf("%+v", c)
	}
	if c := both.Clean(0.01).Check(); c.Components != 1 || c.Genus != whole.Genus || !c.Manifold {
		t.Errorf("after cleaning: %+v", c)
	}
}

// TestUnwrap: no two faces of different place share a texel, every face is in the
// square, and faces keep their handedness.
func TestUnwrap(t *testing.T) {
	for seed := range uint64(4) {
		m := lumpy(seed, 24, 8).Decimate(1500)
		const size = 256
		a := m.Unwrap(size)
		if len(a.Faces) != len(m.Faces) {
			t.Fatalf("%d faces in the atlas of %d", len(a.Faces), len(m.Faces))
		}
		const fine = 4 // samples a texel
		owner := make([]int32, size*fine*size*fine)
		overlaps, flipped := 0, 0
		for i, f := range a.Faces {
			var p [3][2]float32
			for k, v := range f {
				if a.Source[v] != m.Faces[i][k] {
					t.Fatalf("face %d: atlas vertex %d stands for %d, not %d", i, v, a.Source[v], m.Faces[i][k])
				}
				uv := a.UV[v]
				if uv[0] < 0 || uv[0] > 1 || uv[1] < 0 || uv[1] > 1 {
					t.Fatalf("face %d is at %v", i, uv)
				}
				p[k] = [2]float32{uv[0] * size * fine, uv[1] * size * fine}
			}
			// v grows downwards, so counter-clockwise faces have negative area here.
			if area := (p[1][0]-p[0][0])*(p[2][1]-p[0][1]) - (p[1][1]-p[0][1])*(p[2][0]-p[0][0]); area > 0 {
				flipped++
			}
			cover(p, size*fine, func(s int) {
				if owner[s] != 0 {
					overlaps++
				}
				owner[s] = int32(i + 1)
			})
		}
		if overlaps > 0 {
			t.Errorf("seed %d: %d samples belong to two faces", seed, overlaps)
		}
		if flipped > 0 && flipped < len(a.Faces) {
			t.Errorf("seed %d: %d of %d faces are mirrored", seed, flipped, len(a.Faces))
		}
		if a.Fill < 0.4 {
			t.Errorf("seed %d: only %.2f of the texture is used", seed, a.Fill)
		}
	}
}

// TestSurfaceOfField takes a ball through extraction, atlas and baking.
func TestSurfaceOfField(t *testing.T) {
	const n = 48
	g, err := field.NewGrid(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n * n * n {
		p := Vec{float32(i%n) + 0.5, float32(i/n%n) + 0.5, float32(i/n/n) + 0.5}.scale(2.0 / n).sub(Vec{1, 1, 1})
		copy(g.V[i*4:], []float32{0.6 - p.norm(), 0.9, 0.3 + 0.2*p[2], 0.1})
	}
	var views []field.View
	for k := range 4 {
		c := field.Camera{Camera: camera.Camera{Azimuth: float64(90 * k), Elevation: 25}, Lens: camera.Lens{FOV: 40, Distance: 2.8}}
		im := g.Render(c, 96, 0.3).Image
		views = append(views, field.View{Camera: c, Image: im, Mask: field.Mask(im), Weight: 1, Source: true})
	}
	m, err := Surface(g, views, Options{Faces: 2000, Texture: 256})
	if err != nil {
		t.Fatal(err)
	}
	if c := m.Check(); !c.Manifold || c.Genus != 0 || c.Components != 1 || len(m.Faces) > 2000 {
		t.Fatalf("%d faces, %+v", len(m.Faces), c)
	}
	tex := m.Bake(m.Unwrap(256), views)
	for _, v := range views {
		im, cover := tex.Draw(v.Camera, 96)
		in := make([]bool, len(cover))
		for i, c := range cover {
			in[i] = c > 0.5
		}
		if iou := IoU(in, v.Mask); iou < 0.96 {
			t.Errorf("azimuth %g: silhouettes overlap by %.3f", v.Camera.Azimuth, iou)
		}
		// Away from the silhouette, where a pixel's share of background decides.
		outside := make([]bool, len(v.Mask))
		for i, m := range v.Mask {
			outside[i] = !m
		}
		inner := field.Dilate(outside, 96, 3)
		for i := range inner {
			inner[i] = !inner[i]
		}
		if p := PSNR(im, v.Image, inner); p < 32 {
			t.Errorf("azimuth %g: %.1f dB", v.Camera.Azimuth, p)
		}
	}
	if d := m.Depth(); d > 0.05 {
		t.Errorf("a ball has a hollow of %.2f of its height", d)
	}
}

func TestSurfaceOfNothing(t *testing.T) {
	g, _ := field.NewGrid(16)
	for i := range g.V {
		g.V[i] = -1
	}
	if _, err := Surface(g, nil, DefaultOptions()); err == nil {
		t.Error("an empty field has a surface")
	}
}

func TestRasteriseDepth(t *testing.T) {
	// A unit square that faces the camera at azimuth 90 (+x), one unit before it.
	m := &Mesh{Vertices: []Vec{{0, -.5, -.5}, {0, .5, -.5}, {0, .5, .5}, {0, -.5, .5}}, Faces: [][3]int32{{0, 1, 2}, {0, 2, 3}}}
	c := field.Camera{Camera: camera.Camera{Azimuth: 90}, Lens: camera.Lens{FOV: 90, Distance: 1}}
	b := m.Rasterise(c, 64)
	count := 0
	for i, f := range b.Face {
		if f >= 0 {
			count++
			if math.Abs(float64(b.Depth[i])-1) > 1e-4 {
				t.Fatalf("depth %g, want 1", b.Depth[i])
			}
		}
	}
	if count != 32*32 {
		t.Errorf("the square covers %d pixels, want %d", count, 32*32)
	}
}
