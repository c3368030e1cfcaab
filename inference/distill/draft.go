// Package distill turns the views of an object into a field.
//
// A draft fits a field to the source views, then goes through rounds: it draws the
// field from cameras in between, lets the network redraw those pictures (partly
// noised, then denoised), takes them as further views and fits again. At the end the
// field is fitted afresh to all views. The method is the pilot's, see
// docs/draft-mesh.md.
package distill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"dreamcad/inference/field"
)

// Denoiser redraws pictures of one object from several cameras.
type Denoiser interface {
	// Redraw takes the pictures, which belong to the cameras in order, to the noise
	// level of timestep and prepares to denoise them from there.
	Redraw(images []field.Image, cameras []field.Camera, timestep, stride int, seed uint64) (Redrawing, error)
}

// Redrawing is a redraw under way, in short steps.
type Redrawing interface {
	// Step does one denoising step and reports whether it was the last.
	Step(ctx context.Context) (done bool, err error)
	// Steps is the number of calls of Step in all.
	Steps() int
	// Images decodes the result.
	Images() ([]field.Image, error)
}

type kind int

const (
	scaffold kind = iota
	redraw
	refit
	final
	hollow
)

// phase is a piece of the work after which the draft can be saved.
type phase struct {
	kind  kind
	index int
	units int // of progress
}

// Draft is the making of one field. It is not safe for concurrent use.
type Draft struct {
	set    Settings
	net    Denoiser
	engine field.Engine
	phases []phase
	at     int // phase
	inside int // units done of it
	total  int

	views     []field.View // source views first
	rays      *field.Rays  // of all views
	sources   int
	hullViews int // how many of the views shaped the hull in use
	hull      *field.Hull
	grid      *field.Grid
	isHollow  bool
	hollowing *hollowing
	lidErrors [2]float64

	fit     field.Fitter
	work    Redrawing
	renders []field.Picture
	cameras []field.Camera

	saved snapshot
}

// burst is the number of iterations in a Step: well under 0.3 s on one core.
const burst = 10

// NewDraft prepares to make a field of the source views, which it marks as such and
// masks. Pictures are rounded to 8 bits, so that a draft resumed from disk goes on
// exactly as one that was never stopped.
func NewDraft(views []field.View, net Denoiser, set Settings) (*Draft, error) {
	if err := set.Check(); err != nil {
		return nil, err
	}
	if len(views) == 0 {
		return nil, errors.New("making a field: no views")
	}
	if len(set.Rounds) > 0 && net == nil {
		return nil, errors.New("making a field: rounds without a network")
	}
	d := &Draft{set: set, net: net, engine: field.CPU{}, rays: &field.Rays{}, sources: len(views)}
	for _, v := range views {
		if v.Image.Size < 16 || len(v.Image.Pix) != v.Image.Size*v.Image.Size*3 {
			return nil, fmt.Errorf("making a field: a view of size %d with %d values", v.Image.Size, len(v.Image.Pix))
		}
		if v.Image.Size != views[0].Image.Size {
			return nil, fmt.Errorf("making a field: views of %d and of %d pixels", views[0].Image.Size, v.Image.Size)
		}
	}
	for _, v := range eachOf(views, func(i int) field.View { return masked(views[i].Image, views[i].Camera, 1, nil) }) {
		v.Source = true
		if !slices.Contains(v.Mask, true) {
			return nil, errors.New("making a field: a view shows nothing but background")
		}
		d.include(v)
	}
	d.plan()
	d.save()
	return d, nil
}

// Use hands the fits and the drawing to an engine, before the first Step.
func (d *Draft) Use(e field.Engine) { d.engine = e }

func (d *Draft) plan() {
	fit := func(k kind, i int, s Stage) {
		d.phases = append(d.phases, phase{k, i, (s.Iterations + burst - 1) / burst})
	}
	for i, s := range d.set.Scaffold {
		fit(scaffold, i, s)
	}
	for i, r := range d.set.Rounds {
		d.phases = append(d.phases, phase{redraw, i, (r.Timestep + r.Stride - 1) / r.Stride})
		if i < len(d.set.Rounds)-1 {
			fit(refit, i, d.set.Refit)
		}
	}
	for i, s := range d.set.Final {
		if i == len(d.set.Final)-1 && i > 0 && d.set.Hollow != nil {
			d.phases = append(d.phases, phase{hollow, 0, 2 * (d.set.Hollow.Fit.Iterations + burst - 1) / burst})
		}
		fit(final, i, s)
	}
	for _, p := range d.phases {
		d.total += p.units
	}
}

// Progress counts short steps of the whole work.
func (d *Draft) Progress() (done, total int) {
	for _, p := range d.phases[:d.at] {
		done += p.units
	}
	return min(done+d.inside, d.total), d.total
}

// AtBoundary tells whether the last Step finished a fit or a round, so that
// MarshalBinary writes the present state.
func (d *Draft) AtBoundary() bool { return d.inside == 0 && d.at > 0 }

// Result is what a finished draft hands on.
type Result struct {
	Grid      *field.Grid
	Hull      *field.Hull
	Views     []field.View // source views first
	Hollow    bool         // an open vessel was found
	LidErrors [2]float64   // colour errors on its lid, closed and emptied; 0 if not compared
}

// Result returns the field once Step has reported done.
func (d *Draft) Result() (Result, error) {
	if d.at < len(d.phases) {
		return Result{}, errors.New("taking a field that is not finished")
	}
	return Result{Grid: d.grid, Hull: d.hull, Views: d.views, Hollow: d.isHollow, LidErrors: d.lidErrors}, nil
}

// Step does a short piece of the work, well under a second, and reports whether all
// is done. After an error the draft can be stepped again (a cancelled network call)
// or resumed from its last saved state.
func (d *Draft) Step(ctx context.Context) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if d.at >= len(d.phases) {
		return true, nil
	}
	p := d.phases[d.at]
	var finished bool
	switch p.kind {
	case redraw:
		finished, err = d.redraw(ctx, p.index)
	case hollow:
		finished, err = d.hollow()
	default:
		finished, err = d.optimise(p)
	}
	if err != nil {
		return false, err
	}
	d.inside++
	if finished {
		d.at, d.inside = d.at+1, 0
		d.fit, d.work, d.renders, d.cameras = nil, nil, nil, nil
		d.save()
	}
	return d.at >= len(d.phases), nil
}

// optimise runs a burst of iterations of a fitting phase.
func (d *Draft) optimise(p phase) (finished bool, err error) {
	if d.fit == nil {
		stage := d.set.Refit
		switch p.kind {
		case scaffold:
			stage = d.set.Scaffold[p.index]
		case final:
			stage = d.set.Final[p.index]
		}
		if err := d.begin(p, stage); err != nil {
			return false, err
		}
		return false, nil
	}
	return d.fit.Step(burst)
}

// begin makes the grid of a stage ready and its fit.
func (d *Draft) begin(p phase, stage Stage) error {
	switch {
	case p.kind == refit && d.grid.N == stage.Grid && d.hull != nil:
	default:
		d.reshape(stage.Grid)
		if p.index == 0 && p.kind != refit || d.grid == nil {
			g, err := d.hull.Start(d.views)
			if err != nil {
				return err
			}
			d.grid = g
		} else if d.grid.N != stage.Grid {
			g, err := d.grid.Upsample(stage.Grid)
			if err != nil {
				return err
			}
			d.grid = g
		}
		d.hull.Confine(d.grid)
	}
	fit, err := d.engine.Fit(d.grid, d.hull.Active, d.rays, d.set.schedule(stage), d.set.Seed*1000003+uint64(d.at))
	if err != nil {
		return err
	}
	d.fit = fit
	return nil
}

func (d *Draft) reshape(n int) {
	d.hullViews = len(d.views)
	d.hull = field.NewHull(d.views, n)
	d.castRays()
}

// castRays makes the rays again where the hull disputes pixels of redrawn views.
func (d *Draft) castRays() {
	if !slices.ContainsFunc(d.hull.Disputed, func(m []bool) bool { return m != nil }) {
		return
	}
	d.rays = &field.Rays{}
	for i, v := range d.views {
		if i < len(d.hull.Disputed) {
			v.Unsure = d.hull.Disputed[i]
		}
		d.rays.Add(v, d.set.MaskPad)
	}
}

// redraw does one step of a round.
func (d *Draft) redraw(ctx context.Context, index int) (finished bool, err error) {
	r := d.set.Rounds[index]
	if d.work == nil {
		for _, v := range d.views[:d.sources] {
			c := v.Camera
			c.Azimuth += r.Azimuth
			c.Elevation = r.Elevation
			d.cameras = append(d.cameras, c)
		}
		d.renders, err = d.engine.Render(d.grid, d.cameras, d.views[0].Image.Size, d.set.RenderBeta)
		if err == nil {
			d.work, err = d.net.Redraw(pictures(d.renders), d.cameras, r.Timestep, r.Stride, d.set.Seed*31+uint64(index))
		}
		if err != nil {
			d.work, d.renders, d.cameras = nil, nil, nil
			return false, fmt.Errorf("redrawing views, round %d: %w", index+1, err)
		}
		return false, nil
	}
	done, err := d.work.Step(ctx)
	if err != nil || !done {
		return false, err
	}
	images, err := d.work.Images()
	if err != nil {
		return false, fmt.Errorf("redrawing views, round %d: %w", index+1, err)
	}
	if len(images) != len(d.cameras) {
		return false, fmt.Errorf("redrawing views, round %d: %d pictures for %d cameras", index+1, len(images), len(d.cameras))
	}
	hints := d.hints()
	for _, v := range eachOf(images, func(i int) field.View {
		return masked(matchColour(images[i], d.renders[i].Image, hints[i]), d.cameras[i], d.set.RoundWeight, hints[i])
	}) {
		d.include(v)
	}
	return true, nil
}

// eachOf makes a view of each element of a list, all at once.
func eachOf[T any](list []T, view func(i int) field.View) []field.View {
	out := make([]field.View, len(list))
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { out[i] = view(i) })
	}
	wg.Wait()
	return out
}

func pictures(renders []field.Picture) []field.Image {
	out := make([]field.Image, len(renders))
	for i, p := range renders {
		out[i] = p.Image
	}
	return out
}

// hints are the silhouettes of the field from the round's cameras.
func (d *Draft) hints() [][]bool {
	out := make([][]bool, len(d.cameras))
	for i, p := range d.renders {
		out[i] = make([]bool, len(p.Opacity))
		for k, a := range p.Opacity {
			out[i][k] = a > 0.5
		}
	}
	return out
}

// masked makes a view of a picture. hint is where the object is expected, if known.
func masked(im field.Image, cam field.Camera, weight float32, hint []bool) field.View {
	im = unpack(pack(im), im.Size)
	return field.View{Camera: cam, Image: im, Mask: field.MaskNear(im, hint), Weight: weight}
}

func (d *Draft) include(v field.View) {
	d.views = append(d.views, v)
	d.rays.Add(v, d.set.MaskPad)
}

// matchColour shifts a redrawn picture so that its object has the mean colour of the
// picture it came from: the network drifts a little with every round.
func matchColour(im, from field.Image, hint []bool) field.Image {
	const fringe = 0.045
	mask := field.MaskNear(im, hint)
	var sum [3]float64
	count := 0
	for i, m := range mask {
		a := from.Pix[i*3 : i*3+3]
		if !m || abs(a[0]-field.Background) <= fringe && abs(a[1]-field.Background) <= fringe && abs(a[2]-field.Background) <= fringe {
			continue
		}
		count++
		for c := range 3 {
			sum[c] += float64(a[c] - im.Pix[i*3+c])
		}
	}
	if count <= 20 {
		return im
	}
	out := field.Image{Size: im.Size, Pix: append([]float32(nil), im.Pix...)}
	for i, m := range mask {
		if !m {
			continue
		}
		for c := range 3 {
			out.Pix[i*3+c] = min(max(out.Pix[i*3+c]+float32(sum[c]/float64(count)), 0), 1)
		}
	}
	return out
}

func abs(x float32) float32 { return max(x, -x) }

// pack rounds a picture to 8 bits a channel.
func pack(im field.Image) []byte {
	b := make([]byte, len(im.Pix))
	for i, v := range im.Pix {
		b[i] = byte(min(max(v, 0), 1)*255 + 0.5)
	}
	return b
}

func unpack(b []byte, size int) field.Image {
	im := field.Image{Size: size, Pix: make([]float32, len(b))}
	for i, v := range b {
		im.Pix[i] = float32(v) / 255
	}
	return im
}
