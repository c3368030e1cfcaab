package cpu

import (
	"math"

	"dreamcad/inference/device"
)

// keyBlock is the number of keys whose scores are held at a time.
const keyBlock = 512

// attention computes softmax(scale·QKᵀ)V in tiles of mr queries and blocks of
// keys with a running maximum. Keys are packed transposed, and values as they
// are, into panels of the matrix kernel, once for each head and key sequence.
func (c *compiler) attention(o *device.Attention) error {
	q, k, v, out := c.mat(o.Q), c.mat(o.K), c.mat(o.V), c.mat(o.Out)
	nr, mr := c.k.nr, c.k.mr
	lq, lk, heads := o.Q.W, o.K.W, o.Heads
	d := o.Q.C / heads
	keys := (lk + nr - 1) / nr * nr // padded
	kPanel := nr * (1 + d)
	dPanels := (d + nr - 1) / nr
	blocks := (keys + keyBlock - 1) / keyBlock
	vBlock := nr * (1 + keyBlock) // one block of values of one panel
	headLen := keys/nr*kPanel + blocks*dPanels*vBlock
	packs := make([]float32, o.K.N*heads*headLen+slack)
	vBase := keys / nr * kPanel

	c.job(o.K.N*heads, func(_ *worker, task int) {
		n, h := task/heads, task%heads
		p := packs[task*headLen : (task+1)*headLen]
		for j := range keys / nr {
			panel := p[j*kPanel+nr : (j+1)*kPanel]
			for i := range nr {
				if j*nr+i >= lk {
					for x := range d {
						panel[x*nr+i] = 0
					}
					continue
				}
				at := (n*lk+j*nr+i)*k.pitch + h*d
				for x, y := range k.data[at : at+d] {
					panel[x*nr+i] = y
				}
			}
		}
		for b := range blocks {
			for pd := range dPanels {
				panel := p[vBase+(b*dPanels+pd)*vBlock+nr:]
				cols := min(nr, d-pd*nr)
				for i := range min(keyBlock, keys-b*keyBlock) {
					key := b*keyBlock + i
					row := panel[i*nr : (i+1)*nr]
					if key >= lk {
						clear(row)
						continue
					}
					at := (n*lk+key)*v.pitch + h*d + pd*nr
					copy(row, v.data[at:at+cols])
				}
			}
		}
	})

	width := min(keyBlock, keys)
	c.scratch = max(c.scratch, mr*width+mr*dPanels*nr+4*64)
	step := 4 * mr
	for step > mr && o.Q.N*heads*((lq+step-1)/step) < 4*c.threads {
		step -= mr
	}
	strips := (lq + step - 1) / step
	ratio := o.Q.N / o.K.N
	c.job(o.Q.N*heads*strips, func(w *worker, task int) {
		s, nh := task%strips, task/strips
		h, n := nh%heads, nh/heads
		p := packs[(n/ratio*heads+h)*headLen:]
		for first := s * step; first < min(lq, (s+1)*step); first += mr {
			valid := min(mr, lq-first)
			a := attentionTile{c: c.k, w: w, p: p, d: d, lk: lk, keys: keys, scale: o.Scale, vBase: vBase, causal: -1}
			if o.Causal {
				a.causal = first
			}
			for r := range mr {
				row := n*lq + first + min(r, valid-1)
				a.q[r] = &q.data[row*q.pitch+h*d]
			}
			a.run()
			for r := range valid {
				at := (n*lq+first+r)*out.pitch + h*d
				inv := 1 / a.sum[r]
				for x, y := range a.acc[r*dPanels*nr : r*dPanels*nr+d] {
					out.data[at+x] = y * inv
				}
			}
		}
	})
	return nil
}

// attentionTile is the work on mr queries of one head.
type attentionTile struct {
	c           *kernels
	w           *worker
	p           []float32 // packed keys and values
	q           [12]*float32
	d, lk, keys int
	vBase       int
	scale       float32
	causal      int // index of the first query, or -1
	acc, sum    []float32
}

func (a *attentionTile) run() {
	k, w := a.c, a.w
	nr, mr := k.nr, k.mr
	width := min(keyBlock, a.keys)
	dPanels := (a.d + nr - 1) / nr
	scores := w.scratch[:mr*width]
	rest := w.scratch[mr*width:]
	a.acc, rest = rest[:mr*dPanels*nr], rest[mr*dPanels*nr:]
	top, block, diff := rest[:16], rest[64:80], rest[128:144]
	a.sum = rest[192:208]
	for i := range top {
		top[i], a.sum[i], diff[i] = -math.MaxFloat32, 0, 0
	}
	t := &w.tile
	for b, first := 0, 0; first < a.keys; b, first = b+1, first+keyBlock {
		n := min(keyBlock, a.keys-first)
		if a.causal >= 0 && first > a.causal+mr-1 {
			break
		}
		t.rows = a.q
		t.taps, t.ntaps, t.k, t.res = &zeroTap[0], 1, 4*a.d, nil
		t.ldc = 4 * width
		for j := 0; j < n; j += nr {
			t.b = &a.p[(first+j)/nr*nr*(1+a.d)]
			t.c = &scores[j]
			k.tile(t)
		}
		a.mask(scores, width, first, n)
		w.row = rowArgs{dst: &diff[0], src: &scores[0], srcPitch: 4 * width, rows: mr, cols: n, a: &top[0], b: &block[0], eps: a.scale}
		k.softmax(&w.row)
		if b > 0 {
			// What was summed under the old maxima shrinks.
			w.row = rowArgs{dst: &diff[0], src: &diff[0], rows: 1, cols: 16}
			k.exp(&w.row)
			for i := range mr {
				if f := diff[i]; f != 1 {
					row := a.acc[i*dPanels*nr : (i+1)*dPanels*nr]
					for x := range row {
						row[x] *= f
					}
					a.sum[i] *= f
				}
			}
		}
		for i := range mr {
			a.sum[i] += block[i]
			t.rows[i] = &scores[i*width]
		}
		t.k, t.ldc, t.ldres = 4*n, 4*dPanels*nr, 4*dPanels*nr
		for pd := range dPanels {
			t.b = &a.p[a.vBase+(b*dPanels+pd)*nr*(1+keyBlock)]
			t.c = &a.acc[pd*nr]
			t.res = nil
			if b > 0 {
				t.res = t.c
			}
			k.tile(t)
		}
	}
}

// mask hides the filling behind the last key, and the future of each query.
func (a *attentionTile) mask(scores []float32, width, first, n int) {
	for i := range a.c.mr {
		from := a.lk
		if a.causal >= 0 {
			from = min(from, a.causal+i+1)
		}
		for j := max(from-first, 0); j < n; j++ {
			scores[i*width+j] = -1e30
		}
	}
}
