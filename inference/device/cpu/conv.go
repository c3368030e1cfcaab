package cpu

import (
	"dreamcad/inference/device"
)

// window is the geometry of a convolution's strips. A strip is some rows of one
// image, or some whole images, of the output grid (for an upsampled one: of the
// small grid). Its input with the zero border lies in the worker's scratch as
// (images, inRows, inCols, channels).
type window struct {
	images, h, w   int // of the input
	gridH, gridW   int // of the grid that strips divide
	k              int // channels
	stride         int
	top, left      int
	kh, kw         int
	inCols         int
	perImage       int // strips of an image, 0 if a strip holds whole images
	stripRows      int // rows of the grid of one image in a strip
	stripImages    int
	strips, inRows int
}

// stripPixels is what a strip of a direct convolution has at most.
const stripPixels = 1024

// newWindow chooses strips of about target pixels, fewer where that leaves
// workers idle, with an even number of rows if even.
func newWindow(in device.Shape, gridH, gridW, kh, kw, stride, top, left, threads, target int, even bool) *window {
	v := &window{images: in.N, h: in.H, w: in.W, gridH: gridH, gridW: gridW, k: in.C, stride: stride, top: top, left: left, kh: kh, kw: kw, stripImages: 1}
	pixels := gridH * gridW
	if pixels >= 128 {
		for target > 128 && in.N*((pixels+target-1)/target) < 4*threads {
			target /= 2
		}
		v.stripRows, v.perImage = chunks(gridH, (pixels+target-1)/target)
		if even && v.stripRows%2 != 0 {
			v.stripRows++
			v.perImage = (gridH + v.stripRows - 1) / v.stripRows
		}
		v.strips = in.N * v.perImage
	} else {
		v.stripRows = gridH
		v.stripImages, v.strips = chunks(in.N, (in.N*pixels+127)/128)
	}
	v.inRows = (v.stripRows-1)*stride + kh
	v.inCols = (gridW-1)*stride + kw
	return v
}

func (v *window) scratch() int { return v.stripImages * v.inRows * v.inCols * v.k }

// place returns the images, and the grid rows of the only image, of strip s.
func (v *window) place(s int) (n0, n1, y0, y1 int) {
	if v.perImage > 0 {
		n := s / v.perImage
		y0 = s % v.perImage * v.stripRows
		return n, n + 1, y0, min(y0+v.stripRows, v.gridH)
	}
	n0 = s * v.stripImages
	return n0, min(n0+v.stripImages, v.images), 0, v.gridH
}

// load brings the input of strip s into w.scratch with its zero border. rows
// copies pixels of image n; begin is called before each image.
func (v *window) load(w *worker, s int, begin func(w *worker, n int), rows func(w *worker, dst *float32, n, y, x, count int)) {
	n0, n1, y0, _ := v.place(s)
	lineLen := v.inCols * v.k
	at := 0
	left := v.left
	inside := min(v.w, v.inCols-left)
	for n := n0; n < n1; n++ {
		begin(w, n)
		for r := range v.inRows {
			y := y0*v.stride - v.top + r
			line := w.scratch[at : at+lineLen]
			at += lineLen
			if y < 0 || y >= v.h {
				clear(line)
				continue
			}
			clear(line[:left*v.k])
			rows(w, &line[left*v.k], n, y, 0, inside)
			clear(line[(left+inside)*v.k:])
		}
	}
}

// fill points the tile at pixels i.. of strip s.
func (v *window) fill(w *worker, y0, y1 int) func(t *tile, i, valid int) {
	perImage := (y1 - y0) * v.gridW
	return func(t *tile, i, valid int) {
		n, rest := i/perImage, i%perImage
		y, x := rest/v.gridW, rest%v.gridW
		for r := range t.rows {
			t.rows[r] = &w.scratch[((n*v.inRows+y*v.stride)*v.inCols+x*v.stride)*v.k]
			if r+1 < valid {
				if x++; x == v.gridW {
					x = 0
					if y++; y == y1-y0 {
						y = 0
						n++
					}
				}
			}
		}
	}
}

// taps are the byte offsets of the kernel's taps in the strip.
func (v *window) taps(kh, kw int) []int {
	var t []int
	for y := range kh {
		for x := range kw {
			t = append(t, 4*(y*v.inCols+x)*v.k)
		}
	}
	return t
}

// source is what a convolution reads: a tensor, normalised first or not.
type source struct {
	begin func(w *worker, n int)
	rows  func(w *worker, dst *float32, n, y, x, count int)
}

func (c *compiler) source(in device.Tensor, norm device.Op) (source, error) {
	width, pixels, ch := in.W, in.H*in.W, in.C
	if norm == nil {
		m := c.mat(in)
		return source{func(*worker, int) {}, func(_ *worker, dst *float32, n, y, x, count int) {
			row := n*pixels + y*width + x
			if m.pitch == ch {
				copy(floats(dst, 0, count*ch), m.data[row*ch:(row+count)*ch])
				return
			}
			for i := range count {
				copy(floats(dst, 4*i*ch, ch), m.row(row+i))
			}
		}}, nil
	}
	g, err := c.groupNorm(norm.(*device.GroupNorm))
	if err != nil {
		return source{}, err
	}
	return source{
		func(w *worker, n int) { g.coefficients(w, n) },
		func(w *worker, dst *float32, n, y, x, count int) {
			g.apply(w, dst, ch, n*pixels+y*width+x, count)
		}}, nil
}

// convOp compiles a Conv, after an optional group norm of its input.
func (c *compiler) convOp(o *device.Conv, norm device.Op) error {
	if o.Upsample && len(o.Weight.Shape) == 4 && o.Weight.Shape[2] == 3 && o.Weight.Shape[3] == 3 && o.Stride == 1 && o.Top == 1 && o.Left == 1 && o.Bottom == 1 && o.Right == 1 {
		return c.upsampledConv(o, norm)
	}
	if o.Upsample {
		return errUpsample
	}
	src, err := c.source(o.In, norm)
	if err != nil {
		return err
	}
	if c.winogradFits(o) {
		return c.winograd(o, src)
	}
	p, err := c.conv(o.Weight, o.Bias)
	if err != nil {
		return err
	}
	c.convolve(src, o.In.Shape, o.Out.Shape, o.Weight.Shape[2], o.Weight.Shape[3], o.Stride, o.Top, o.Left, p, c.mat(o.Out), c.mat(o.Residual))
	return nil
}

// convolve adds the job of a plain convolution.
func (c *compiler) convolve(src source, in, grid device.Shape, kh, kw, stride, top, left int, p *pack, out, res mat) {
	v := newWindow(in, grid.H, grid.W, kh, kw, stride, top, left, c.threads, stripPixels, false)
	c.scratch = max(c.scratch, v.scratch())
	e := &output{k: c.k, out: out, res: res}
	pb, pn := c.splitPanels(e.outPanels(), v.strips)
	taps := v.taps(kh, kw)
	c.job(v.strips*pn, func(w *worker, task int) {
		s, p0 := task/pn, task%pn*pb
		v.load(w, s, src.begin, src.rows)
		n0, n1, y0, y1 := v.place(s)
		w.tile.taps, w.tile.ntaps = &taps[0], len(taps)
		rows := (n1 - n0) * (y1 - y0) * v.gridW
		e.strip(w, p, n0*v.gridH*v.gridW+y0*v.gridW, rows, p0, min(p0+pb, e.outPanels()), v.fill(w, y0, y1))
	})
}

// phase is one of the kernels of a convolution that writes a finer grid than it
// reads: output pixel (2y+py, 2x+px) sums taps (dy, dx) around pixel (y, x).
type phase struct {
	pack    *pack
	offsets [][2]int // (dy, dx) from the corner of the strip, one a tap
}

// upsampledConv runs the four small kernels of each parity on the small image.
func (c *compiler) upsampledConv(o *device.Conv, norm device.Op) error {
	src, err := c.source(o.In, norm)
	if err != nil {
		return err
	}
	var phases [4]phase
	for i := range phases {
		py, px := i/2, i%2
		if phases[i].pack, err = c.upsampled(o.Weight, o.Bias, py, px); err != nil {
			return err
		}
		for y := range 2 {
			for x := range 2 {
				phases[i].offsets = append(phases[i].offsets, [2]int{y + py, x + px})
			}
		}
	}
	c.phased(src, o.In, phases, c.mat(o.Out), c.mat(o.Residual))
	return nil
}

// phased adds the job of a convolution in phases from in to an out of twice its size.
func (c *compiler) phased(src source, in device.Tensor, phases [4]phase, out, res mat) {
	h, wd := in.H, in.W
	v := newWindow(in.Shape, h, wd, 3, 3, 1, 1, 1, c.threads, stripPixels, false)
	c.scratch = max(c.scratch, v.scratch())
	var taps [4][]int
	var outs [4]*output
	for i := range phases {
		py, px := i/2, i%2
		for _, d := range phases[i].offsets {
			taps[i] = append(taps[i], 4*(d[0]*v.inCols+d[1])*v.k)
		}
		outs[i] = &output{k: c.k, out: out, res: res, scatter: func(row int) int {
			n, rest := row/(h*wd), row%(h*wd)
			return (n*2*h+2*(rest/wd)+py)*2*wd + 2*(rest%wd) + px
		}}
	}
	pb, pn := c.splitPanels(outs[0].outPanels(), v.strips)
	c.job(v.strips*pn, func(w *worker, task int) {
		s, p0 := task/pn, task%pn*pb
		v.load(w, s, src.begin, src.rows)
		n0, n1, y0, y1 := v.place(s)
		rows := (n1 - n0) * (y1 - y0) * v.gridW
		for i := range phases {
			w.tile.taps, w.tile.ntaps = &taps[i][0], len(taps[i])
			outs[i].strip(w, phases[i].pack, n0*h*wd+y0*wd, rows, p0, min(p0+pb, outs[i].outPanels()), v.fill(w, y0, y1))
		}
	})
}
