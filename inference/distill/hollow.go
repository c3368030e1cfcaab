package distill

import (
	"math"

	"dreamcad/inference/field"
)

// Hollow says how open vessels are looked for. After the stage before the last, the
// field is fitted on in two ways, as it is and with its opening emptied; the way under
// which the views' colours agree better on the lid is kept.
type Hollow struct {
	Fit  Stage   `json:"fit"`  // Grid is that of the stage before the last
	Wall float64 `json:"wall"` // voxels
	Gain float64 `json:"gain"` // the hollow's error must be below this share of the lid's
}

// hollowing is the comparison under way.
type hollowing struct {
	opening *field.Opening
	grids   [2]*field.Grid // closed, emptied
	fits    [2]field.Fitter
	lid     [][]int32 // of each view: pixels that see the closed lid
	at      int
}

// beginHollow proposes a hollow; nil if nothing can be one.
func (d *Draft) beginHollow() (*hollowing, error) {
	h := &hollowing{opening: field.FindOpening(d.grid)}
	if h.opening == nil {
		return nil, nil
	}
	for i := range h.grids {
		h.grids[i] = &field.Grid{N: d.grid.N, V: append([]float32(nil), d.grid.V...)}
	}
	if !h.opening.Hollow(h.grids[1], d.set.Hollow.Wall) {
		return nil, nil
	}
	seen := 0
	above := func(k int) bool { return d.views[k].Camera.Elevation >= 15 }
	pictures, err := d.drawViews(d.grid, above)
	if err != nil {
		return nil, err
	}
	for k, v := range d.views {
		var pixels []int32
		if above(k) {
			size := v.Image.Size
			p := pictures[k]
			pr := v.Camera.Projection(size)
			eye := v.Camera.Position()
			for i, t := range p.Depth {
				if t < 0 || !v.Mask[i] {
					continue
				}
				r := pr.Ray(float64(i%size)+0.5, float64(i/size)+0.5)
				for k := range r {
					r[k] = eye[k] + r[k]*float64(t)
				}
				if h.opening.Lid(r) {
					pixels = append(pixels, int32(i))
				}
			}
		}
		seen += len(pixels)
		h.lid = append(h.lid, pixels)
	}
	if seen == 0 {
		return nil, nil
	}
	for i, g := range h.grids {
		f, err := d.engine.Fit(g, d.hull.Active, d.rays, d.set.schedule(d.set.Hollow.Fit), d.set.Seed*1000003+uint64(d.at))
		if err != nil {
			return nil, err
		}
		h.fits[i] = f
	}
	return h, nil
}

// hollow runs a burst of the comparison.
func (d *Draft) hollow() (finished bool, err error) {
	if d.hollowing == nil {
		if d.hollowing, err = d.beginHollow(); err != nil {
			return false, err
		}
		return d.hollowing == nil, nil
	}
	h := d.hollowing
	if h.at < len(h.fits) {
		done, err := h.fits[h.at].Step(burst)
		if done {
			h.at++
		}
		return false, err
	}
	closed, err := d.lidError(h.grids[0], h.lid)
	if err != nil {
		return false, err
	}
	emptied, err := d.lidError(h.grids[1], h.lid)
	if err != nil {
		return false, err
	}
	d.lidErrors = [2]float64{closed, emptied}
	if emptied < d.set.Hollow.Gain*closed {
		d.grid, d.isHollow = h.grids[1], true
	} else {
		d.grid = h.grids[0]
	}
	d.hollowing = nil
	return true, nil
}

// drawViews draws a grid from the cameras of the wanted views; the others' pictures
// stay empty.
func (d *Draft) drawViews(g *field.Grid, want func(k int) bool) ([]field.Picture, error) {
	out := make([]field.Picture, len(d.views))
	var at []int
	var cams []field.Camera
	for k := range d.views {
		if want(k) {
			at, cams = append(at, k), append(cams, d.views[k].Camera)
		}
	}
	pictures, err := d.engine.Render(g, cams, d.views[0].Image.Size, 0.3)
	if err != nil {
		return nil, err
	}
	for i, p := range pictures {
		out[at[i]] = p
	}
	return out, nil
}

// lidError is the mean robust colour error on the pixels of the lid.
func (d *Draft) lidError(g *field.Grid, lid [][]int32) (float64, error) {
	var sum float64
	n := 0
	pictures, err := d.drawViews(g, func(k int) bool { return len(lid[k]) > 0 })
	if err != nil {
		return 0, err
	}
	for k, pixels := range lid {
		v, p := &d.views[k], pictures[k]
		for _, i := range pixels {
			var e float64
			for c := range 3 {
				x := float64(p.Image.Pix[int(i)*3+c] - v.Image.Pix[int(i)*3+c])
				e += x * x
			}
			sum += math.Sqrt(e/3 + 1e-6)
			n++
		}
	}
	return sum / float64(max(n, 1)), nil
}
