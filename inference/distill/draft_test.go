package distill

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/field"
)

// solid is a known object: a field that is drawn where the network would draw.
type solid struct {
	grid  *field.Grid
	calls int
}

func (s *solid) Redraw(images []field.Image, cams []field.Camera, timestep, stride int, seed uint64) (Redrawing, error) {
	if len(images) != len(cams) {
		return nil, errors.New("one camera a picture")
	}
	s.calls++
	r := &drawing{s: s, steps: 3}
	for _, p := range s.grid.RenderAll(cams, images[0].Size, 0.3) {
		r.out = append(r.out, p.Image)
	}
	return r, nil
}

type drawing struct {
	s     *solid
	out   []field.Image
	steps int
	at    int
}

func (r *drawing) Steps() int { return r.steps }
func (r *drawing) Step(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	r.at++
	return r.at == r.steps, nil
}
func (r *drawing) Images() ([]field.Image, error) { return r.out, nil }

// newSolid samples a signed distance, positive inside; colour is a function of place.
func newSolid(t testing.TB, n int, f func(x, y, z float64) float64) *solid {
	t.Helper()
	g, err := field.NewGrid(n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n * n * n {
		x, y, z := (float64(i%n)+0.5)*2/float64(n)-1, (float64(i/n%n)+0.5)*2/float64(n)-1, (float64(i/n/n)+0.5)*2/float64(n)-1
		g.V[i*4] = float32(f(x, y, z))
		// Lit from one side, so that opposite walls of a hollow differ.
		g.V[i*4+1] = float32(0.65 + 0.25*math.Sin(2*x+y))
		g.V[i*4+2] = float32(0.25 + 0.15*z)
		g.V[i*4+3] = float32(0.2 + 0.1*math.Cos(3*y))
	}
	return &solid{grid: g}
}

func cup(x, y, z float64) float64 {
	r := math.Hypot(x, y)
	outer := min(0.5-r, 0.55-math.Abs(z))
	inner := min(0.38-r, z+0.4)
	return min(outer, -inner)
}

func block(x, y, z float64) float64 {
	return min(0.5-math.Hypot(x, y), 0.55-math.Abs(z))
}

func (s *solid) views(elevation float64) []field.View {
	var out []field.View
	for k := range 4 {
		c := field.Camera{Camera: camera.FromFront(20+90*float64(k), elevation), Lens: camera.Lens{FOV: 40, Distance: 2.8}}
		out = append(out, field.View{Camera: c, Image: s.grid.Render(c, 64, 0.3).Image})
	}
	return out
}

// quick is a recipe small enough for a test.
func quick() Settings {
	s := DefaultSettings()
	s.Scaffold = []Stage{{32, 30, [2]float64{1, 0.5}, 5, 0, 1}}
	s.Rounds = []Round{{45, 40, 541, 200}, {22.5, 0, 541, 200}}
	s.Refit = Stage{32, 20, [2]float64{0.7, 0.4}, 5, 0, 1}
	s.Final = []Stage{{32, 40, [2]float64{1.5, 0.7}, 2, 0.2, 0.5}, {48, 30, [2]float64{0.8, 0.4}, 10, 0, 2}}
	s.Hollow = nil
	return s
}

func run(t *testing.T, d *Draft) Result {
	t.Helper()
	for {
		done, err := d.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if done {
			r, err := d.Result()
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	}
}

// TestResume: a draft saved and resumed at every boundary ends in the very same field.
func TestResume(t *testing.T) {
	s := newSolid(t, 48, block)
	d, err := NewDraft(s.views(25), s, quick())
	if err != nil {
		t.Fatal(err)
	}
	want := run(t, d)
	if len(want.Views) != 12 || s.calls != 2 {
		t.Fatalf("%d views after %d rounds", len(want.Views), s.calls)
	}
	d, err = NewDraft(s.views(25), s, quick())
	if err != nil {
		t.Fatal(err)
	}
	steps, boundaries := 0, 0
	for last := 0; ; steps++ {
		done, err := d.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, total := d.Progress()
		if p < last || p > total {
			t.Fatalf("progress went from %d to %d of %d", last, p, total)
		}
		last = p
		if done {
			break
		}
		if !d.AtBoundary() {
			continue
		}
		boundaries++
		data, err := d.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 8<<20 {
			t.Errorf("the state takes %d bytes", len(data))
		}
		if d, err = Resume(data, s); err != nil {
			t.Fatal(err)
		}
	}
	if boundaries < 5 {
		t.Fatalf("%d boundaries in %d steps", boundaries, steps)
	}
	got, err := d.Result()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Grid.V, want.Grid.V) {
		t.Error("the resumed draft ended in another field")
	}
	if _, err := Resume([]byte("nonsense"), s); err == nil {
		t.Error("nonsense was resumed")
	}
}

// TestCancel: a cancelled context stops a draft, which then goes on.
func TestCancel(t *testing.T) {
	s := newSolid(t, 32, block)
	d, err := NewDraft(s.views(25), s, quick())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Step(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled step returned %v", err)
	}
	if _, err := d.Result(); err == nil {
		t.Error("an unfinished draft has a result")
	}
	run(t, d)
}

// TestHollow: a cup comes out hollow, a block of the same outline does not.
func TestHollow(t *testing.T) {
	if testing.Short() {
		t.Skip("two whole fits")
	}
	for _, c := range []struct {
		name  string
		shape func(x, y, z float64) float64
		want  bool
	}{{"cup", cup, true}, {"block", block, false}} {
		s := newSolid(t, 96, c.shape)
		set := quick()
		set.Rounds = []Round{{45, 45, 541, 200}}
		set.Final = []Stage{{48, 60, [2]float64{1.5, 0.7}, 3, 0.2, 0.5}, {48, 30, [2]float64{0.8, 0.4}, 10, 0, 2}}
		set.Hollow = DefaultSettings().Hollow
		set.Hollow.Fit.Grid, set.Hollow.Fit.Iterations, set.Hollow.Wall = 48, 40, 1.8
		d, err := NewDraft(s.views(40), s, set)
		if err != nil {
			t.Fatal(err)
		}
		r := run(t, d)
		if r.Hollow != c.want {
			t.Errorf("%s: hollow is %v, errors on the lid %.4f closed, %.4f emptied", c.name, r.Hollow, r.LidErrors[0], r.LidErrors[1])
		}
		if f := r.Grid.At(0, 0, 0.3)[0]; (f < 0) != c.want {
			t.Errorf("%s: f is %g in the middle of the upper part", c.name, f)
		}
	}
}

func TestRefuses(t *testing.T) {
	s := newSolid(t, 32, block)
	if _, err := NewDraft(nil, s, quick()); err == nil {
		t.Error("no views were accepted")
	}
	empty := s.views(25)
	empty[1].Image = field.NewImage(64)
	if _, err := NewDraft(empty, s, quick()); err == nil {
		t.Error("an empty view was accepted")
	}
	bad := quick()
	bad.Final[0].Grid = 33
	if _, err := NewDraft(s.views(25), s, bad); err == nil {
		t.Error("an odd grid was accepted")
	}
	if _, err := NewDraft(s.views(25), nil, quick()); err == nil {
		t.Error("rounds without a network were accepted")
	}
}
