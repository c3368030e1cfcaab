package cpu

import "dreamcad/inference/device"

// maxWinograd bounds the weights that are kept in Winograd's form, which is 16/9
// as large: kernels of the full-size model stay as they are.
const maxWinograd = 256 * 256

// winogradFits tells whether a convolution is one for Winograd's F(2×2, 3×3), which
// needs 4/9 of the multiplications: 3×3, stride 1, even sizes, channels enough to
// pay for the transforms.
func (c *compiler) winogradFits(o *device.Conv) bool {
	k := o.Weight.Shape
	return c.k.winogradIn != nil && k[2] == 3 && k[3] == 3 && o.Stride == 1 && o.Top == 1 && o.Left == 1 && o.Bottom == 1 && o.Right == 1 &&
		o.In.H%2 == 0 && o.In.W%2 == 0 && k[0] >= 16 && k[1] >= 16 && k[0]*k[1] <= maxWinograd
}

// winogradPack holds the sixteen transformed kernels G g Gᵀ one after the other,
// each in panels as a plain product has them, with biases of zero.
func (c *compiler) winogradPack(w *device.Param) (*pack, error) {
	key := packKey{w, nil, packWinograd}
	if p := c.d.packed[key]; p != nil {
		return p, nil
	}
	outs, chans := w.Shape[0], w.Shape[1]
	src := make([]float32, w.Len())
	if err := w.Load(src); err != nil {
		return nil, err
	}
	nr := c.k.nr
	p := &pack{panels: (outs + nr - 1) / nr, cols: outs, k: chans, taps: 1, length: nr * (1 + chans)}
	p.data = make([]float32, 16*p.panels*p.length+slack)
	c.d.pool.run(&job{tasks: outs, run: func(_ *worker, o int) {
		for ch := range chans {
			u := kernelTransform(src[(o*chans+ch)*9:])
			for i, v := range u {
				p.data[(i*p.panels+o/nr)*p.length+nr*(1+ch)+o%nr] = v
			}
		}
	}})
	c.d.packed[key] = p
	return p, nil
}

// kernelTransform is G g Gᵀ of a 3×3 kernel, G = [1 0 0; ½ ½ ½; ½ -½ ½; 0 0 1].
func kernelTransform(g []float32) (u [16]float32) {
	line := func(a, b, c float32) [4]float32 { return [4]float32{a, (a + b + c) / 2, (a - b + c) / 2, c} }
	var rows [3][4]float32
	for i := range rows {
		rows[i] = line(g[3*i], g[3*i+1], g[3*i+2])
	}
	for j := range 4 {
		for i, v := range line(rows[0][j], rows[1][j], rows[2][j]) {
			u[4*i+j] = v
		}
	}
	return u
}

// winograd adds the job of a convolution: each task brings its strip of the input
// into the worker's memory, takes all 4×4 patches apart into sixteen matrices
// (patches × channels), multiplies each with its kernel and puts the results
// together to 2×2 pixels.
func (c *compiler) winograd(o *device.Conv, src source) error {
	p, err := c.winogradPack(o.Weight)
	if err != nil {
		return err
	}
	bias := make([]float32, o.Out.C+slack)
	if o.Bias != nil {
		if bias, err = c.vector(o.Bias); err != nil {
			return err
		}
	}
	k, mr, nr := c.k, c.k.mr, c.k.nr
	chans := o.In.C
	out, res := c.mat(o.Out), c.mat(o.Residual)
	// Both families of matrices shall fit the second-level cache.
	target := max(min(4*16384/(chans+p.panels*nr), stripPixels), 128)
	v := newWindow(o.In.Shape, o.Out.H, o.Out.W, 3, 3, 1, 1, 1, c.threads, target, true)
	pb, pn := c.splitPanels(p.panels, v.strips)
	width := v.gridW / 2
	patches := v.stripImages * (v.stripRows / 2) * width
	padded := (patches + mr - 1) / mr * mr
	inLen := (v.scratch() + 15) / 16 * 16
	vLen, mLen := padded*chans, padded*pb*nr
	c.scratch = max(c.scratch, inLen+16*(vLen+mLen))
	c.job(v.strips*pn, func(w *worker, task int) {
		s, p0 := task/pn, task%pn*pb
		p1 := min(p0+pb, p.panels)
		cols := (p1 - p0) * nr
		v.load(w, s, src.begin, src.rows)
		n0, n1, y0, y1 := v.place(s)
		vs, ms := w.scratch[inLen:inLen+16*vLen], w.scratch[inLen+16*vLen:inLen+16*(vLen+mLen)]
		lines := (y1 - y0) / 2
		for n := range n1 - n0 {
			for y := range lines {
				at := (n*lines + y) * width
				w.row = rowArgs{dst: &vs[at*chans], dstPitch: 4 * chans, src: &w.scratch[((n*v.inRows)+2*y)*v.inCols*chans], srcPitch: 8 * chans,
					rows: width, cols: chans, aPitch: 4 * v.inCols * chans, bPitch: 4 * chans, cPitch: 4 * vLen}
				k.winogradIn(&w.row)
			}
		}
		count := (n1 - n0) * lines * width
		t := &w.tile
		t.taps, t.ntaps, t.k, t.res, t.ldc = &zeroTap[0], 1, 4*chans, nil, 4*cols
		for i := range 16 {
			plane, result := vs[i*vLen:(i+1)*vLen], ms[i*mLen:(i+1)*mLen]
			for first := 0; first < count; first += mr {
				for r := range mr {
					t.rows[r] = &plane[min(first+r, count-1)*chans]
				}
				for j := p0; j < p1; j++ {
					t.b, t.c = p.panel(i*p.panels+j), &result[first*cols+(j-p0)*nr]
					k.tile(t)
				}
			}
		}
		col := p0 * nr
		for n := range n1 - n0 {
			for y := range lines {
				at := (n*lines + y) * width
				row := ((n0+n)*v.gridH + y0 + 2*y) * v.gridW
				w.row = rowArgs{dst: &out.data[row*out.pitch+col], dstPitch: 8 * out.pitch, src: &ms[at*cols], srcPitch: 4 * cols,
					rows: width, cols: min(cols, out.cols-col), b: &bias[col], aPitch: 4 * v.gridW * out.pitch, bPitch: 4 * out.pitch, cPitch: 4 * mLen}
				if res.data != nil {
					w.row.res, w.row.resRow, w.row.resPixel, w.row.resPitch = &res.data[row*res.pitch+col], 4*v.gridW*res.pitch, 4*res.pitch, 8*res.pitch
				}
				k.winogradOut(&w.row)
			}
		}
	})
	return nil
}
