package cpu

import (
	"math"

	"dreamcad/inference/device"
)

// groupNorm holds what turns sums into a scale and a shift for each channel.
type groupNorm struct {
	k           *kernels
	in, add     mat
	gamma, beta []float32
	groups      int
	eps         float64
	silu        bool
	pixels      int       // of one image
	chunk       int       // pixels of one partial sum
	count       int       // partial sums of an image
	sums        []float32 // (image, chunk, {Σx, Σx²}, channel)
}

// groupNorm adds the job that takes the sums of each image.
func (c *compiler) groupNorm(o *device.GroupNorm) (*groupNorm, error) {
	g := &groupNorm{k: c.k, in: c.mat(o.In), add: c.mat(o.Add), groups: o.Groups, eps: float64(o.Eps), silu: o.Silu, pixels: o.In.H * o.In.W}
	var err error
	if g.gamma, err = c.vector(o.Gamma); err != nil {
		return nil, err
	}
	if g.beta, err = c.vector(o.Beta); err != nil {
		return nil, err
	}
	images, ch := o.In.N, o.In.C
	// At most 512 pixels a sum keeps fp32 exact enough. The number of sums must not
	// depend on that of the workers or of the images, or results would.
	want := max((g.pixels+511)/512, min(2, g.pixels/64))
	g.chunk, g.count = chunks(g.pixels, want)
	g.sums = make([]float32, images*g.count*2*ch+slack)
	c.coef = max(c.coef, 2*ch)
	c.job(images*g.count, func(w *worker, task int) {
		n, i := task/g.count, task%g.count
		s := g.sums[task*2*ch : (task+1)*2*ch]
		clear(s)
		first := i * g.chunk
		w.row = rowArgs{src: g.in.at(n*g.pixels + first), srcPitch: 4 * g.in.pitch, rows: min(g.chunk, g.pixels-first), cols: ch, a: &s[0], b: &s[ch]}
		g.k.sums(&w.row)
	})
	return g, nil
}

// moments are the mean and the reciprocal deviation of a group of image n.
func (g *groupNorm) moments(n, grp int) (mean, r float64) {
	ch := g.in.cols
	per := ch / g.groups
	var sum, sq float64
	for c := grp * per; c < (grp+1)*per; c++ {
		var s, q float64
		for i := range g.count {
			at := (n*g.count + i) * 2 * ch
			s += float64(g.sums[at+c])
			q += float64(g.sums[at+ch+c])
		}
		if g.add.data != nil {
			e := float64(g.add.row(n)[c])
			q += 2*e*s + float64(g.pixels)*e*e
			s += float64(g.pixels) * e
		}
		sum += s
		sq += q
	}
	m := 1 / float64(per*g.pixels)
	mean = sum * m
	return mean, 1 / math.Sqrt(max(sq*m-mean*mean, 0)+g.eps)
}

// coefficients leaves scale and shift of the channels of image n in w.coef.
func (g *groupNorm) coefficients(w *worker, n int) (scale, shift []float32) {
	ch := g.in.cols
	scale, shift = w.coef[:ch], w.coef[ch:2*ch]
	per := ch / g.groups
	for grp := range g.groups {
		mean, r := g.moments(n, grp)
		for c := grp * per; c < (grp+1)*per; c++ {
			var e float64
			if g.add.data != nil {
				e = float64(g.add.row(n)[c])
			}
			s := r * float64(g.gamma[c])
			scale[c], shift[c] = float32(s), float32(float64(g.beta[c])+(e-mean)*s)
		}
	}
	return scale, shift
}

// apply writes rows normalised pixels of the image whose coefficients are in w.
func (g *groupNorm) apply(w *worker, dst *float32, dstPitch, srcRow, rows int) {
	ch := g.in.cols
	w.row = rowArgs{dst: dst, dstPitch: 4 * dstPitch, src: g.in.at(srcRow), srcPitch: 4 * g.in.pitch, rows: rows, cols: ch, a: &w.coef[0], b: &w.coef[ch]}
	if g.silu {
		g.k.affineSilu(&w.row)
	} else {
		g.k.affine(&w.row)
	}
}

func (c *compiler) groupNormAlone(o *device.GroupNorm) error {
	g, err := c.groupNorm(o)
	if err != nil {
		return err
	}
	out := c.mat(o.Out)
	size, count := chunks(g.pixels, (4*c.threads+o.In.N-1)/o.In.N)
	c.job(o.In.N*count, func(w *worker, task int) {
		n, first := task/count, task%count*size
		g.coefficients(w, n)
		r := n*g.pixels + first
		g.apply(w, out.at(r), out.pitch, r, min(size, g.pixels-first))
	})
	return nil
}

// layerNorm normalises rows of one matrix.
type layerNorm struct {
	k           *kernels
	in          mat
	gamma, beta []float32
	eps         float32
}

func (c *compiler) layerNorm(o *device.LayerNorm) (*layerNorm, error) {
	l := &layerNorm{k: c.k, in: c.mat(o.In), eps: o.Eps}
	var err error
	if l.gamma, err = c.vector(o.Gamma); err != nil {
		return nil, err
	}
	l.beta, err = c.vector(o.Beta)
	return l, err
}

func (l *layerNorm) apply(w *worker, dst *float32, dstPitch, row, rows int) {
	w.row = rowArgs{dst: dst, dstPitch: 4 * dstPitch, src: l.in.at(row), srcPitch: 4 * l.in.pitch, rows: rows, cols: l.in.cols,
		a: &l.gamma[0], b: &l.beta[0], eps: l.eps, inv: 1 / float32(l.in.cols)}
	l.k.layerNorm(&w.row)
}

func (c *compiler) layerNormAlone(o *device.LayerNorm) error {
	l, err := c.layerNorm(o)
	if err != nil {
		return err
	}
	out := c.mat(o.Out)
	size, count := chunks(out.rows, 4*c.threads)
	c.job(count, func(w *worker, task int) {
		r := task * size
		l.apply(w, out.at(r), out.pitch, r, min(size, out.rows-r))
	})
	return nil
}
