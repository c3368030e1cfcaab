package field

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"dreamcad/inference/camera"
)

var lens = camera.Lens{FOV: 40, Distance: 2.8}

// ball is a grid that holds a coloured ball of radius r.
func ball(t testing.TB, n int, r float64) *Grid {
	t.Helper()
	g, err := NewGrid(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n * n * n {
		var p [3]float64
		for k, c := range [3]int{i % n, i / n % n, i / n / n} {
			p[k] = (float64(c)+0.5)*2/float64(n) - 1
		}
		g.V[i*4] = float32(r - math.Sqrt(p[0]*p[0]+p[1]*p[1]+p[2]*p[2]))
		for k := range 3 {
			g.V[i*4+1+k] = float32(0.5 + 0.4*math.Sin(3*p[k]+float64(k)))
		}
	}
	return g
}

func ballViews(t testing.TB, g *Grid, size int) []View {
	t.Helper()
	var views []View
	for k := range 4 {
		c := Camera{camera.Camera{Azimuth: 90*float64(k) + 20, Elevation: 25}, lens}
		p := g.Render(c, size, 0.3)
		views = append(views, View{Camera: c, Image: p.Image, Mask: Mask(p.Image), Weight: 1, Source: true})
	}
	return views
}

// TestGradient holds the backward pass against finite differences of the loss, for
// every kind of parameter near the surface.
func TestGradient(t *testing.T) {
	const n = 16
	g := ball(t, n, 0.6)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range g.V {
		g.V[i] += 0.03 * (r.Float32() - 0.5)
	}
	pr := Camera{camera.Camera{Azimuth: 37, Elevation: 20}, lens}.Projection(16)
	var list []ray
	for i := range 16 * 16 {
		if q, ok := newRay(&pr, i%16, i/16); ok {
			q.colour, q.opacity, q.weight = [3]float32{0.9, 0.1, 0.4}, float32(i%2), 0.7
			list = append(list, q)
		}
	}
	f := &Fit{grid: g, rays: list, cfg: DefaultSchedule(), occ: newOccupancy(n)}
	const beta = 0.15
	f.occ.markAll(g.V, -1e9)
	scratch := newShard(0)
	loss := func() float64 {
		var sum float64
		for i := range list {
			c, _ := scratch.ray.paint(g, &f.occ, &list[i], g.Voxel()*stepLength, 0.3, 1/beta)
			q := &list[i]
			for k := range 3 {
				e := float64(c[k]) + float64(c[3])*Background - float64(q.colour[k])
				sum += float64(f.cfg.Colour*q.weight) * math.Sqrt(e*e+1e-4)
			}
			miss := 1 - float64(c[3]) - float64(q.opacity)
			sum += float64(f.cfg.Opacity*q.weight) * miss * miss
		}
		return sum
	}
	s := newShard(len(g.V))
	for i := range list {
		f.trace(s, &list[i], 0.3, 1/beta, 1)
	}
	// The parameters with the largest gradients, of f and of colour.
	for channel := range 4 {
		var order []int
		for i := channel; i < len(g.V); i += 4 {
			order = append(order, i)
		}
		slices.SortFunc(order, func(a, b int) int {
			x, y := math.Abs(float64(s.grad[a])), math.Abs(float64(s.grad[b]))
			switch {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
		for _, i := range order[:20] {
			const h = 2e-4 // small: α is clamped at 0, which bends the loss
			old := g.V[i]
			g.V[i] = old + h
			up := loss()
			g.V[i] = old - h
			down := loss()
			g.V[i] = old
			want := (up - down) / (2 * h)
			if got := float64(s.grad[i]); math.Abs(got-want) > 0.03*math.Abs(want)+2e-3 {
				t.Errorf("channel %d, value %d: gradient %g, finite difference %g", channel, i, got, want)
			}
		}
	}
}

// TestFitBall recovers a ball from four pictures of it.
func TestFitBall(t *testing.T) {
	views := ballViews(t, ball(t, 32, 0.6), 48)
	h := NewHull(views, 32)
	g, err := h.Start(views)
	if err != nil {
		t.Fatal(err)
	}
	var rays Rays
	for _, v := range views {
		rays.Add(v, 3)
	}
	c := DefaultSchedule()
	c.Iterations, c.Beta, c.Rays = 60, [2]float64{1, 0.4}, 2048
	c.Bilaplace, c.Eikonal = 5, 1
	fit, err := NewFit(g, h.Active, &rays, c, 1)
	if err != nil {
		t.Fatal(err)
	}
	fit.Step(5)
	first := fit.Loss()
	for !fit.Step(20) {
	}
	last := fit.Loss()
	if !(last.Colour < first.Colour/4 && last.Opacity < first.Opacity) {
		t.Errorf("the loss went from %+v to %+v", first, last)
	}
	for _, d := range [][3]float64{{1, 0, 0}, {0, -1, 0}, {0, 0, 1}, {0.6, 0.64, 0.48}} {
		in := g.At(d[0]*0.5, d[1]*0.5, d[2]*0.5)[0]
		out := g.At(d[0]*0.75, d[1]*0.75, d[2]*0.75)[0]
		if in <= 0 || out >= 0 {
			t.Errorf("along %v the ball of radius 0.6 has f(0.5) = %g and f(0.75) = %g", d, in, out)
		}
	}
}

// TestFitRepeats: the same fit gives the same bits.
func TestFitRepeats(t *testing.T) {
	views := ballViews(t, ball(t, 24, 0.6), 32)
	run := func() []float32 {
		h := NewHull(views, 24)
		g, err := h.Start(views)
		if err != nil {
			t.Fatal(err)
		}
		var rays Rays
		for _, v := range views {
			rays.Add(v, 3)
		}
		c := DefaultSchedule()
		c.Iterations, c.Beta, c.Rays, c.Bilaplace = 12, [2]float64{1, 0.4}, 512, 5
		fit, err := NewFit(g, h.Active, &rays, c, 9)
		if err != nil {
			t.Fatal(err)
		}
		for !fit.Step(5) {
		}
		return g.V
	}
	if a, b := run(), run(); !slices.Equal(a, b) {
		t.Error("two runs of the same fit differ")
	}
}

func TestNewFitRefuses(t *testing.T) {
	g, _ := NewGrid(16)
	var none Rays
	if _, err := NewFit(g, make([]bool, 16*16*16), &none, DefaultSchedule(), 1); err == nil {
		t.Error("a fit without rays was accepted")
	}
	if _, err := NewFit(g, make([]bool, 5), &none, DefaultSchedule(), 1); err == nil {
		t.Error("an active map of the wrong size was accepted")
	}
}

// TestOccupancyJump: the map never lets a ray jump over an occupied cell.
func TestOccupancyJump(t *testing.T) {
	const n = 32
	g := ball(t, n, 0.3)
	all, part := newOccupancy(n), newOccupancy(n)
	part.markAll(g.V, -0.05)
	copy(all.cell, part.cell) // all.jump stays 0: no jumps
	pr := Camera{camera.Camera{Azimuth: 10, Elevation: 33}, lens}.Projection(24)
	var s1, s2 samples
	for i := range 24 * 24 {
		q, ok := newRay(&pr, i%24, i/24)
		if !ok {
			continue
		}
		a, b := part.start(&q, 0.05, 0.5), all.start(&q, 0.05, 0.5)
		na, nb := walk(&s1, march, &a, &part), walk(&s2, march, &b, &all)
		if na != nb || !slices.Equal(s1.idx[lead:lead+na], s2.idx[lead:lead+nb]) {
			t.Fatalf("ray %d: %d samples with jumps, %d without", i, na, nb)
		}
	}
}

// walk marches to the end of a ray.
func walk(s *samples, march func(*samples, *marcher, *occupancy, int) int, m *marcher, o *occupancy) (count int) {
	for {
		got := march(s, m, o, lead+count)
		if got == 0 {
			return count
		}
		count += got
	}
}

func TestSignedDistance(t *testing.T) {
	const n = 8
	in := make([]bool, n*n*n)
	for _, p := range [][3]int{{3, 3, 3}, {4, 3, 3}} {
		in[(p[2]*n+p[1])*n+p[0]] = true
	}
	d := SignedDistance(in, n)
	h := float32(2.0 / n)
	for _, c := range []struct {
		p    [3]int
		want float64
	}{{[3]int{3, 3, 3}, 0.5}, {[3]int{1, 3, 3}, -1.5}, {[3]int{6, 4, 3}, 0.5 - math.Sqrt(5)}} {
		if got := d[(c.p[2]*n+c.p[1])*n+c.p[0]] / h; math.Abs(float64(got)-c.want) > 1e-5 {
			t.Errorf("distance at %v is %g voxels, want %g", c.p, got, c.want)
		}
	}
}

func TestMask(t *testing.T) {
	const n = 32
	im := NewImage(n)
	set := func(x0, y0, x1, y1 int, v float32) {
		for y := y0; y < y1; y++ {
			for x := x0; x < x1; x++ {
				for c := range 3 {
					im.Pix[(y*n+x)*3+c] = v
				}
			}
		}
	}
	set(4, 4, 24, 24, 0.9)    // object
	set(8, 8, 14, 14, 0.5)    // a real hole
	set(16, 8, 22, 14, 0.518) // glass: nearly background
	set(6, 18, 7, 20, 0.5)    // a speck of a hole
	set(28, 28, 30, 30, 0.9)  // a speck
	m := Mask(im)
	for _, c := range []struct {
		x, y int
		want bool
		what string
	}{{5, 5, true, "object"}, {10, 10, false, "hole"}, {18, 10, true, "glass"}, {6, 18, true, "small hole"}, {28, 28, false, "speck"}, {30, 2, false, "background"}} {
		if m[c.y*n+c.x] != c.want {
			t.Errorf("%s: mask is %v", c.what, !c.want)
		}
	}
}
