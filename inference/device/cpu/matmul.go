package cpu

import (
	"dreamcad/inference/device"
)

// output is the epilogue of a product: where tiles go and what happens to them.
type output struct {
	k        *kernels
	out, res mat
	act      device.Activation
	// With scatter set, row i of the product is output row scatter(i).
	scatter func(row int) int
}

// run computes rows [row, row+valid) of the product for panel j (for a gated
// one, panels 2j and 2j+1) of p. w.tile holds the rows of A, the taps and k.
func (o *output) run(w *worker, p *pack, j, row, valid int) {
	k, t := o.k, &w.tile
	col := j * k.nr
	cols := min(k.nr, o.out.cols-col)
	t.res = nil
	if o.act == device.None && valid == k.mr && cols == k.nr && o.scatter == nil {
		t.b = p.panel(j)
		t.c, t.ldc = &o.out.data[row*o.out.pitch+col], 4*o.out.pitch
		if o.res.data != nil {
			t.res, t.ldres = &o.res.data[row*o.res.pitch+col], 4*o.res.pitch
		}
		k.tile(t)
		return
	}
	t.c, t.ldc = &w.stage[0], 4*k.nr
	r := &w.row
	*r = rowArgs{dst: t.c, dstPitch: t.ldc, src: t.c, srcPitch: t.ldc, rows: valid, cols: k.nr}
	direct := o.act != device.None && cols == k.nr && o.scatter == nil && o.res.data == nil
	if direct { // the activation writes where the result belongs
		r.dst, r.dstPitch = &o.out.data[row*o.out.pitch+col], 4*o.out.pitch
	}
	switch o.act {
	case device.None:
		t.b = p.panel(j)
		k.tile(t)
	case device.SiLU:
		t.b = p.panel(j)
		k.tile(t)
		k.silu(r)
	case device.GELU:
		t.b = p.panel(j)
		k.tile(t)
		k.gelu(r)
	case device.GEGLU:
		t.b = p.panel(2 * j)
		k.tile(t)
		gate := &w.stage[k.mr*k.nr]
		t.b, t.c = p.panel(2*j+1), gate
		k.tile(t)
		r.a, r.aPitch = gate, t.ldc
		k.geglu(r)
	}
	if direct {
		return
	}
	for i := range valid {
		at := row + i
		if o.scatter != nil {
			at = o.scatter(at)
		}
		src := w.stage[i*k.nr : i*k.nr+cols]
		dst := o.out.data[at*o.out.pitch+col : at*o.out.pitch+col+cols]
		if o.res.data == nil {
			copy(dst, src)
			continue
		}
		for c, x := range o.res.data[at*o.res.pitch+col : at*o.res.pitch+col+cols] {
			dst[c] = src[c] + x
		}
	}
}

// outPanels is the number of panels of results.
func (o *output) outPanels() int { return (o.out.cols + o.k.nr - 1) / o.k.nr }

// bigWeights is the size of weights from which each panel is used for a whole
// strip before the next one, so that it stays in the second-level cache.
const bigWeights = 768 << 10

// strip runs all tiles of rows [first, first+rows) of the product for panels
// [p0, p1). fill points w.tile.rows at the rows of A for rows i.. of the strip.
func (o *output) strip(w *worker, p *pack, first, rows, p0, p1 int, fill func(t *tile, i, valid int)) {
	mr := o.k.mr
	w.tile.k = 4 * p.k
	if p.bytes(p1-p0) < bigWeights {
		for i := 0; i < rows; i += mr {
			valid := min(mr, rows-i)
			fill(&w.tile, i, valid)
			for j := p0; j < p1; j++ {
				o.run(w, p, j, first+i, valid)
			}
		}
		return
	}
	for j := p0; j < p1; j++ {
		for i := 0; i < rows; i += mr {
			valid := min(mr, rows-i)
			fill(&w.tile, i, valid)
			o.run(w, p, j, first+i, valid)
		}
	}
}

// splitPanels cuts the panels so that there are tasks enough for all workers.
func (c *compiler) splitPanels(panels, tasks int) (size, count int) {
	return chunks(panels, (3*c.threads+tasks-1)/tasks)
}

// zeroTap is the only tap of a plain product.
var zeroTap = []int{0}

// linearOp compiles a Linear, after an optional norm of its input.
func (c *compiler) linearOp(o *device.Linear, norm device.Op) error {
	outs := o.Out.C
	if o.Act == device.GEGLU {
		outs *= 2
	}
	p, err := c.linear(o.Weight, o.Bias, outs, o.In.C, o.Act)
	if err != nil {
		return err
	}
	return c.product(&output{k: c.k, out: c.mat(o.Out), res: c.mat(o.Residual), act: o.Act}, p, o.In, norm)
}

// product multiplies the rows of in, normalised first if norm is not nil.
func (c *compiler) product(e *output, p *pack, in device.Tensor, norm device.Op) error {
	var apply func(w *worker, dst *float32, dstPitch, row, rows int)
	var direct mat
	switch n := norm.(type) {
	case nil:
		direct = c.mat(in)
	case *device.LayerNorm:
		l, err := c.layerNorm(n)
		if err != nil {
			return err
		}
		apply = l.apply
	case *device.GroupNorm:
		g, err := c.groupNorm(n)
		if err != nil {
			return err
		}
		// A strip may reach over several images.
		apply = func(w *worker, dst *float32, dstPitch, row, rows int) {
			for at := row; at < row+rows; {
				img := at / g.pixels
				m := min(row+rows, (img+1)*g.pixels) - at
				g.coefficients(w, img)
				g.apply(w, &w.scratch[(at-row)*dstPitch], dstPitch, at, m)
				at += m
			}
		}
	}
	mr := c.k.mr
	rows := e.out.rows
	step := 4 * mr
	if _, ok := norm.(*device.GroupNorm); ok {
		step = 20 * mr // the coefficients are worth more rows
	}
	for step > mr && (rows+step-1)/step < 3*c.threads {
		step -= mr
	}
	strips := (rows + step - 1) / step
	pb, pn := c.splitPanels(e.outPanels(), strips)
	if apply != nil {
		c.scratch = max(c.scratch, step*in.C)
	}
	k := in.C
	c.job(strips*pn, func(w *worker, task int) {
		first := task / pn * step
		n := min(step, rows-first)
		p0 := task % pn * pb
		p1 := min(p0+pb, e.outPanels())
		w.tile.taps, w.tile.ntaps = &zeroTap[0], 1
		if apply == nil {
			e.strip(w, p, first, n, p0, p1, func(t *tile, i, valid int) {
				for r := range mr {
					t.rows[r] = direct.at(first + i + min(r, valid-1))
				}
			})
			return
		}
		apply(w, &w.scratch[0], k, first, n)
		e.strip(w, p, first, n, p0, p1, func(t *tile, i, valid int) {
			for r := range mr {
				t.rows[r] = &w.scratch[(i+min(r, valid-1))*k]
			}
		})
	})
	return nil
}
