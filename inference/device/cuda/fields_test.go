//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"dreamcad/inference"
	"dreamcad/inference/camera"
	"dreamcad/inference/field"
	"dreamcad/inference/field/shapes"
	"dreamcad/inference/mesheval"
)

var fieldLens = camera.Lens{FOV: 40, Distance: 2.8}

// lump is a grid of a rough coloured ball.
func lump(t testing.TB, n int, r float64, roughness float32, rng *rand.Rand) *field.Grid {
	t.Helper()
	g, err := field.NewGrid(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n * n * n {
		var p [3]float64
		for k, c := range [3]int{i % n, i / n % n, i / n / n} {
			p[k] = (float64(c)+0.5)*2/float64(n) - 1
		}
		g.V[i*4] = float32(r-math.Sqrt(p[0]*p[0]+p[1]*p[1]+p[2]*p[2])) + roughness*(rng.Float32()-0.5)
		for k := range 3 {
			g.V[i*4+1+k] = float32(0.5+0.4*math.Sin(5*p[k]+float64(k))) + 0.1*(rng.Float32()-0.5)
		}
	}
	return g
}

type fieldCase struct {
	grid  *field.Grid
	hull  *field.Hull
	rays  *field.Rays
	cfg   field.Schedule
	views []field.View
}

func newFieldCase(t testing.TB, n, size int, rng *rand.Rand) fieldCase {
	t.Helper()
	var c fieldCase
	truth := lump(t, 48, 0.6, 0, rng)
	for k := range 5 {
		cam := field.Camera{Camera: camera.Camera{Azimuth: 72*float64(k) + 20, Elevation: float64(25 - 10*k)}, Lens: fieldLens}
		p := truth.Render(cam, size, 0.3)
		c.views = append(c.views, field.View{Camera: cam, Image: p.Image, Mask: field.Mask(p.Image), Weight: 1 - 0.1*float32(k), Source: true})
	}
	c.hull = field.NewHull(c.views, n)
	c.grid = lump(t, n, 0.55, 0.06, rng)
	c.rays = &field.Rays{}
	for _, v := range c.views {
		c.rays.Add(v, 3)
	}
	c.cfg = field.DefaultSchedule()
	c.cfg.Iterations, c.cfg.Beta, c.cfg.Rays = 40, [2]float64{1, 0.4}, 1000
	c.cfg.Bilaplace, c.cfg.Laplace, c.cfg.Eikonal = 5, 0.2, 1
	return c
}

// relative is ‖a − b‖₂/‖b‖₂.
func relative(a, b []float32) float64 {
	var d, s float64
	for i := range a {
		x := float64(a[i] - b[i])
		d += x * x
		s += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / s)
}

// TestFieldGradient compares the rays' gradient of single iterations with the CPU's.
func TestFieldGradient(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	for i, n := range []int{16, 30, 46, 96} {
		rng := rand.New(rand.NewPCG(uint64(n), 7))
		c := newFieldCase(t, n, []int{24, 33, 47, 128}[i], rng)
		c.cfg.Rays = []int{64, 333, 1001, 4096}[i]
		work, err := card.Fields().Fit(c.grid, c.hull.Active, c.rays, c.cfg, 5)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := field.NewPlan(c.grid, c.hull.Active, c.rays, c.cfg, 5)
		if err != nil {
			t.Fatal(err)
		}
		f := work.(*fit)
		for _, it := range []int{0, 17, 39} {
			k := plan.Constants(it)
			got := make([]float32, len(c.grid.V))
			err := card.do(func() error {
				l := launcher{card: card}
				p := f.p
				p.It, p.InverseBeta, p.Threshold = int32(it), k.InvBeta, k.Threshold
				if err := l.look(&p, int64(n*n*n)); err != nil {
					return err
				}
				l.fit(kFitTrace, along(blocks(c.cfg.Rays, fieldThreads/32)), &p)
				if l.err != nil {
					return l.err
				}
				if err := card.download(p.Grad, true, got); err != nil {
					return err
				}
				return card.upload(p.Grad, true, make([]float32, len(got)))
			})
			if err != nil {
				t.Fatal(err)
			}
			want := plan.Gradient(c.rays, it)
			e := relative(got, want)
			t.Logf("grid %d, %d rays, iteration %d: error %.1e", n, c.cfg.Rays, it, e)
			if !(e < 2e-3) {
				t.Errorf("grid %d, iteration %d: the gradient is off by %.1e", n, it, e)
			}
		}
		for done := false; !done; {
			if done, err = work.Step(100); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFieldFit compares whole fits: Adam's steps amplify rounding where a gradient is
// nearly zero, so most values must agree closely and the pictures of the results well.
func TestFieldFit(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	for _, v := range []struct {
		name   string
		n      int
		its    int
		change func(*field.Schedule)
	}{
		{"one iteration", 30, 1, func(*field.Schedule) {}},
		{"no regularisers", 32, 3, func(s *field.Schedule) { s.Bilaplace, s.Laplace, s.Eikonal, s.ColourTV = 0, 0, 0, 0 }},
		{"colours only", 46, 20, func(s *field.Schedule) { s.FreezeShape = true }},
		{"all", 46, 40, func(*field.Schedule) {}},
		{"fine", 96, 60, func(s *field.Schedule) { s.Rays, s.Bilaplace, s.Laplace, s.Eikonal = 4096, 30, 0, 3 }},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := newFieldCase(t, v.n, 64, rand.New(rand.NewPCG(uint64(v.n), 9)))
			c.cfg.Iterations = v.its
			v.change(&c.cfg)
			var grids [2]*field.Grid
			for i, e := range []field.Engine{field.CPU{}, card.Fields()} {
				g := &field.Grid{N: v.n, V: slices.Clone(c.grid.V)}
				f, err := e.Fit(g, c.hull.Active, c.rays, c.cfg, 3)
				if err != nil {
					t.Fatal(err)
				}
				for done := false; !done; {
					if done, err = f.Step(7); err != nil {
						t.Fatal(err)
					}
				}
				grids[i] = g
			}
			for i, active := range c.hull.Active {
				if !active && grids[1].V[i*4] != grids[0].V[i*4] && grids[0].V[i*4] == c.grid.V[i*4] {
					t.Fatalf("voxel %d changed, the CPU left it alone", i)
				}
			}
			moved := relative(grids[0].V, c.grid.V)
			e := relative(grids[1].V, grids[0].V)
			psnr := difference(grids[0], grids[1], c.views, 64)
			t.Logf("moved by %.3f, difference %.5f, pictures of both %.1f dB", moved, e, psnr)
			if moved == 0 || e > 0.1*moved || psnr < 38 {
				t.Errorf("moved by %.3f, difference %.5f, pictures of both %.1f dB", moved, e, psnr)
			}
		})
	}
}

// difference compares the pictures of two grids in dB.
func difference(a, b *field.Grid, views []field.View, size int) float64 {
	var sum float64
	n := 0
	for _, v := range views {
		p, q := a.Render(v.Camera, size, 0.3), b.Render(v.Camera, size, 0.3)
		for i, x := range p.Image.Pix {
			d := float64(x - q.Image.Pix[i])
			sum += d * d
			n++
		}
	}
	return 10 * math.Log10(float64(n)/max(sum, 1e-12))
}

// TestFieldRender compares pictures, opacity and depth.
func TestFieldRender(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	for _, v := range []struct {
		n, size int
		beta    float64
	}{{8, 17, 0.5}, {30, 33, 1}, {46, 64, 0.2}, {96, 128, 0.2}} {
		g := lump(t, v.n, 0.6, 0.05, rand.New(rand.NewPCG(uint64(v.n), 11)))
		var cams []field.Camera
		for k := range 3 {
			cams = append(cams, field.Camera{Camera: camera.Camera{Azimuth: 111 * float64(k), Elevation: float64(40 - 35*k)}, Lens: fieldLens})
		}
		want := g.RenderAll(cams, v.size, v.beta)
		got, err := card.Fields().Render(g, cams, v.size, v.beta)
		if err != nil {
			t.Fatal(err)
		}
		var depth, far int
		for i := range cams {
			if e := relative(got[i].Image.Pix, want[i].Image.Pix); !(e < 2e-3) {
				t.Errorf("grid %d, camera %d: the picture is off by %.1e", v.n, i, e)
			}
			if e := relative(got[i].Opacity, want[i].Opacity); !(e < 2e-3) {
				t.Errorf("grid %d, camera %d: the opacity is off by %.1e", v.n, i, e)
			}
			for k, d := range want[i].Depth {
				if depth++; math.Abs(float64(d-got[i].Depth[k])) > float64(g.Voxel()) {
					far++
				}
			}
		}
		if far*100 > depth {
			t.Errorf("grid %d: the depth of %d of %d pixels is off by more than a voxel", v.n, far, depth)
		}
	}
}

// TestFieldErrors sees that bad input fails as on the CPU, and that memory given up
// before the end can be used again.
func TestFieldErrors(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	c := newFieldCase(t, 16, 24, rand.New(rand.NewPCG(1, 1)))
	_, want := field.CPU{}.Fit(c.grid, c.hull.Active[1:], c.rays, c.cfg, 1)
	_, err := card.Fields().Fit(c.grid, c.hull.Active[1:], c.rays, c.cfg, 1)
	if err == nil || err.Error() != want.Error() {
		t.Errorf("the card says %v, the CPU %v", err, want)
	}
	if p, err := card.Fields().Render(c.grid, nil, 16, 0.3); err != nil || len(p) != 0 {
		t.Errorf("no cameras: %d pictures, %v", len(p), err)
	}
	for range 5 {
		f, err := card.Fields().Fit(c.grid, c.hull.Active, c.rays, c.cfg, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Step(3); err != nil {
			t.Fatal(err)
		}
		h := f.(*fit)
		h.cleanup.Stop()
		if err := card.do(func() error { h.held.release(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(card.fields.idle) == 0 || len(card.fields.idle) > mostIdle {
		t.Errorf("%d blocks wait for use", len(card.fields.idle))
	}
}

// TestFieldDraft makes known shapes on both engines: the meshes must be equally good.
// A fit amplifies the order of sums, so single shapes differ a little either way and
// the means are what counts. DREAM_SHAPES asks for another number of shapes.
func TestFieldDraft(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	file, err := os.Open("../../field/shapes/shapes.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list, err := shapes.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	count := 8
	if v := os.Getenv("DREAM_SHAPES"); v != "" {
		if count, err = strconv.Atoi(v); err != nil || count < 1 {
			t.Fatalf("DREAM_SHAPES=%q", v)
		}
	}
	list = list[:min(count, len(list))]
	line := func(k mesheval.Known) string {
		return fmt.Sprintf("IoU %.4f, distance %.4f, normals %.2f°, hollow %v, %.2f s", k.IoU, k.Distance, k.Normals, k.Hollow, k.Seconds)
	}
	var mean [2]mesheval.Known
	for _, s := range list {
		var k [2]mesheval.Known
		for i, e := range []field.Engine{field.CPU{}, card.Fields()} {
			if k[i], err = mesheval.Reconstruct(t.Context(), s, fieldLens, 128, 25, inference.DefaultMeshSettings(), e); err != nil {
				t.Fatal(err)
			}
			n := float64(len(list))
			mean[i].IoU += k[i].IoU / n
			mean[i].Distance += k[i].Distance / n
			mean[i].Normals += k[i].Normals / n
			mean[i].Seconds += k[i].Seconds / n
		}
		t.Logf("%s: CPU %s; card %s", s.Name, line(k[0]), line(k[1]))
		if !k[1].Manifold || k[1].IoU < k[0].IoU-0.03 || k[1].Distance > k[0].Distance*1.5+0.002 {
			t.Errorf("%s: CPU %s; card %s, manifold %v", s.Name, line(k[0]), line(k[1]), k[1].Manifold)
		}
	}
	t.Logf("mean of %d: CPU %s; card %s", len(list), line(mean[0]), line(mean[1]))
	if mean[1].IoU < mean[0].IoU-0.005 || mean[1].Distance > mean[0].Distance*1.1 || mean[1].Normals > mean[0].Normals+1 {
		t.Errorf("mean of %d: CPU %s; card %s", len(list), line(mean[0]), line(mean[1]))
	}
}

// BenchmarkFieldFit times iterations of the last stage of a draft.
func BenchmarkFieldFit(b *testing.B) {
	card := openCard(b, Options{}).(*Card)
	c := newFieldCase(b, 96, 128, rand.New(rand.NewPCG(1, 2)))
	g, err := c.hull.Start(c.views)
	if err != nil {
		b.Fatal(err)
	}
	c.cfg.Rays, c.cfg.Iterations, c.cfg.Beta, c.cfg.Bilaplace, c.cfg.Laplace, c.cfg.Eikonal = 4096, 200, [2]float64{0.8, 0.3}, 30, 0, 3
	for b.Loop() {
		f, err := card.Fields().Fit(g, c.hull.Active, c.rays, c.cfg, 3)
		if err != nil {
			b.Fatal(err)
		}
		for done := false; !done; {
			if done, err = f.Step(10); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*c.cfg.Iterations), "µs/iteration")
}

// BenchmarkFieldRender times the four pictures of a round.
func BenchmarkFieldRender(b *testing.B) {
	card := openCard(b, Options{}).(*Card)
	c := newFieldCase(b, 96, 128, rand.New(rand.NewPCG(1, 2)))
	var cams []field.Camera
	for _, v := range c.views[:4] {
		cams = append(cams, v.Camera)
	}
	for b.Loop() {
		if _, err := card.Fields().Render(c.grid, cams, 128, 0.2); err != nil {
			b.Fatal(err)
		}
	}
}
