package cpu

import (
	"dreamcad/inference/device"
)

// pack is a weight in the order in which the matrix kernel reads it: panels of
// nr outputs, each nr biases and then nr weights for every tap and channel.
type pack struct {
	data   []float32
	panels int
	length int // floats of a panel
	cols   int // outputs, without the filling of the last panel
	k      int // channels of a tap
	taps   int
}

func (p *pack) panel(i int) *float32 { return &p.data[i*p.length] }

// bytes of n panels.
func (p *pack) bytes(n int) int { return 4 * n * p.length }

// packKind tells apart the forms in which one weight may be packed.
type packKind int

const (
	packPlain    packKind = iota
	packGated             // value and gate panels alternate
	packPhase             // four of them: one for each output pixel of an upsampled one
	packWinograd = packPhase + 8
	packGrad     = packPhase + 4 // of the input gradient; four phases with stride 2
)

type packKey struct {
	weight, bias *device.Param
	kind         packKind
}

// layout says where element (output o, tap t, channel c) of a panel matrix comes
// from: the sum over i of source[o·so + c·sc + taps[t][i]].
type layout struct {
	outs, chans int
	so, sc      int
	taps        [][]int
	order       []int // source output of each packed one, nil for the identity
}

// weight returns the packed form, which is made once.
func (c *compiler) weight(w, b *device.Param, kind packKind, l layout) (*pack, error) {
	key := packKey{w, b, kind}
	if p := c.d.packed[key]; p != nil {
		return p, nil
	}
	src := make([]float32, w.Len())
	if err := w.Load(src); err != nil {
		return nil, err
	}
	var bias []float32
	if b != nil {
		bias = make([]float32, b.Len())
		if err := b.Load(bias); err != nil {
			return nil, err
		}
	}
	nr := c.k.nr
	p := &pack{panels: (l.outs + nr - 1) / nr, cols: l.outs, k: l.chans, taps: len(l.taps)}
	p.length = nr * (1 + len(l.taps)*l.chans)
	p.data = make([]float32, p.panels*p.length+slack)
	c.d.pool.run(&job{tasks: p.panels, run: func(_ *worker, j int) {
		panel := p.data[j*p.length:]
		for i := range nr {
			o := j*nr + i
			if o >= l.outs {
				break
			}
			if l.order != nil {
				o = l.order[o]
			}
			if bias != nil {
				panel[i] = bias[o]
			}
			at := nr + i
			for _, taps := range l.taps {
				for ch := range l.chans {
					var s float32
					for _, t := range taps {
						s += src[o*l.so+ch*l.sc+t]
					}
					panel[at] = s
					at += nr
				}
			}
		}
	}})
	c.d.packed[key] = p
	return p, nil
}

// linear packs an (O, K) weight.
func (c *compiler) linear(w, b *device.Param, outs, chans int, act device.Activation) (*pack, error) {
	l := layout{outs: outs, chans: chans, so: chans, sc: 1, taps: [][]int{{0}}}
	if act != device.GEGLU {
		return c.weight(w, b, packPlain, l)
	}
	// Value panel, gate panel, value panel, ...: one tile of each gives one tile
	// of results. The order repeats the first gate where the last panels are short.
	nr, half := c.k.nr, outs/2
	for j := 0; j < half; j += nr {
		for _, base := range []int{0, half} {
			for i := range nr {
				l.order = append(l.order, base+min(j+i, half-1))
			}
		}
	}
	l.outs = len(l.order)
	return c.weight(w, b, packGated, l)
}

// conv packs an (O, K, kh, kw) kernel.
func (c *compiler) conv(w, b *device.Param) (*pack, error) {
	o, k, kh, kw := w.Shape[0], w.Shape[1], w.Shape[2], w.Shape[3]
	l := layout{outs: o, chans: k, so: k * kh * kw, sc: kh * kw}
	for t := range kh * kw {
		l.taps = append(l.taps, []int{t})
	}
	return c.weight(w, b, packPlain, l)
}

// upsampled packs a 3×3 kernel that follows a doubling of the image as four 2×2
// kernels on the small image, one for each parity (py, px) of the output pixel:
// the taps that fall on the same source pixel are summed. That is 4/9 of the work.
func (c *compiler) upsampled(w, b *device.Param, py, px int) (*pack, error) {
	o, k := w.Shape[0], w.Shape[1]
	l := layout{outs: o, chans: k, so: k * 9, sc: 9}
	split := [2][2][]int{{{0}, {1, 2}}, {{0, 1}, {2}}}
	for _, ys := range split[py] {
		for _, xs := range split[px] {
			var t []int
			for _, y := range ys {
				for _, x := range xs {
					t = append(t, 3*y+x)
				}
			}
			l.taps = append(l.taps, t)
		}
	}
	return c.weight(w, b, packPhase+packKind(2*py+px), l)
}

// vector loads a parameter as it is.
func (c *compiler) vector(p *device.Param) ([]float32, error) {
	key := packKey{weight: p, kind: -1}
	if v := c.d.packed[key]; v != nil {
		return v.data, nil
	}
	v := make([]float32, p.Len()+slack)
	if err := p.Load(v[:p.Len()]); err != nil {
		return nil, err
	}
	c.d.packed[key] = &pack{data: v}
	return v, nil
}
