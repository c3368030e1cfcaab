package cpu

import (
	"errors"
	"fmt"

	"dreamcad/inference/device"
)

var errUpsample = errors.New("upsampling is implemented before 3×3 kernels with a border of one only")

// compile appends the jobs of one operation.
func (c *compiler) compile(o device.Op) error {
	switch o := o.(type) {
	case *fused:
		switch n := o.next.(type) {
		case *device.Conv:
			return c.convOp(n, o.norm)
		case *device.Linear:
			return c.linearOp(n, o.norm)
		}
	case *device.Linear:
		return c.linearOp(o, nil)
	case *device.Conv:
		return c.convOp(o, nil)
	case *device.GroupNorm:
		return c.groupNormAlone(o)
	case *device.LayerNorm:
		return c.layerNormAlone(o)
	case *device.Attention:
		return c.attention(o)
	case *device.Elementwise:
		return c.elementwise(o)
	case *device.Combine:
		return c.combine(o)
	case *device.ConvGrad:
		return c.convGrad(o)
	case *device.LinearGrad:
		return c.linearGrad(o)
	case *device.GroupNormGrad:
		return c.groupNormGrad(o)
	case *device.AttentionGrad:
		return c.attentionGrad(o)
	}
	return fmt.Errorf("the cpu device does not implement %T", o)
}

func (c *compiler) elementwise(o *device.Elementwise) error {
	in, out := c.mat(o.In), c.mat(o.Out)
	per := o.In.Rows() / o.In.N
	size, count := chunks(per, (4*c.threads+o.Out.N-1)/o.Out.N)
	k := c.k
	c.job(o.Out.N*count, func(w *worker, task int) {
		n, first := task/count, task%count*size
		src, dst, rows := n%o.In.N*per+first, n*per+first, min(size, per-first)
		w.row = rowArgs{dst: out.at(dst), dstPitch: 4 * out.pitch, src: in.at(src), srcPitch: 4 * in.pitch, rows: rows, cols: in.cols}
		switch o.Act {
		case device.SiLU:
			k.silu(&w.row)
		case device.GELU:
			k.gelu(&w.row)
		default:
			for i := range rows {
				copy(out.row(dst+i), in.row(src+i))
			}
		}
	})
	return nil
}

func (c *compiler) combine(o *device.Combine) error {
	coef, out := c.mat(o.Coef), c.mat(o.Out)
	var terms [4]mat
	for i, t := range o.Terms {
		terms[i] = c.mat(t)
	}
	per := o.Out.H * o.Out.W
	c.job(o.Out.N, func(_ *worker, n int) {
		f := coef.row(n)
		for r := n * per; r < (n+1)*per; r++ {
			dst := out.row(r)
			for i := range dst {
				var s float32
				for k := range terms {
					if terms[k].data != nil {
						s += f[k] * terms[k].data[r*terms[k].pitch+i]
					}
				}
				dst[i] = s
			}
		}
	})
	return nil
}
