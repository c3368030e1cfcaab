package field

import "math"

// occupancy says which cells can hold a visible sample, and how far a ray may jump
// from one that cannot.
type occupancy struct {
	n, nb int
	cell  []bool  // (n, n, n), indexed by the cell's lower corner; capacity for four more
	jump  []uint8 // (nb, nb, nb): chessboard distance in blocks to a block with such a cell
}

func newOccupancy(n int) occupancy {
	nb := (n + block - 1) / block
	return occupancy{n: n, nb: nb, cell: make([]bool, n*n*n, n*n*n+4), jump: make([]uint8, nb*nb*nb)}
}

// mark finds the cells of which an active corner exceeds threshold.
func (o *occupancy) mark(v []float32, runs []run, threshold float32) {
	clear(o.cell)
	n := o.n
	Y, Z := n, n*n
	for _, r := range runs {
		for i := r.start; i < r.start+r.n; i++ {
			if v[i*4] <= threshold {
				continue
			}
			for _, b := range [4]int{i, i - Y, i - Z, i - Y - Z} {
				o.cell[b], o.cell[b-1] = true, true
			}
		}
	}
	o.distances()
}

// markAll is mark over a whole grid.
func (o *occupancy) markAll(v []float32, threshold float32) {
	n := o.n
	runs := make([]run, 0, n*n)
	for z := 1; z < n-1; z++ {
		for y := 1; y < n-1; y++ {
			runs = append(runs, run{(z*n+y)*n + 1, n - 2})
		}
	}
	o.mark(v, runs, threshold)
}

// distances fills jump by growing the occupied blocks a ring at a time.
func (o *occupancy) distances() {
	n, nb := o.n, o.nb
	for i := range o.jump {
		o.jump[i] = math.MaxUint8
	}
	for z := range n {
		for y := range n {
			row := o.cell[(z*n+y)*n : (z*n+y+1)*n]
			base := ((z/block)*nb + y/block) * nb
			for x, c := range row {
				if c {
					o.jump[base+x/block] = 0
				}
			}
		}
	}
	// Two sweeps over the 13 neighbours before and the 13 after each block give the
	// chessboard distance exactly.
	o.sweep(0, nb, 1)
	o.sweep(nb-1, -1, -1)
}

func (o *occupancy) sweep(from, to, step int) {
	nb := o.nb
	for z := from; z != to; z += step {
		for y := from; y != to; y += step {
			for x := from; x != to; x += step {
				i := (z*nb+y)*nb + x
				best := o.jump[i]
				if best <= 1 {
					continue
				}
				for dz := -1; dz <= 0; dz++ {
					for dy := -1; dy <= 1; dy++ {
						for dx := -1; dx <= 1; dx++ {
							if dz == 0 && (dy > 0 || dy == 0 && dx >= 0) {
								continue
							}
							u, v, w := x+dx*step, y+dy*step, z+dz*step
							if u < 0 || v < 0 || w < 0 || u >= nb || v >= nb || w >= nb {
								continue
							}
							if d := o.jump[(w*nb+v)*nb+u]; d < best-1 {
								best = d + 1
							}
						}
					}
				}
				o.jump[i] = best
			}
		}
	}
}

// marcher walks a ray's lattice of samples through the occupied cells: sample k lies at
// t0 + k·dt.
type marcher struct {
	o       [3]float32 // origin and direction in grid units
	d       [3]float32
	t0, t1  float32
	dt      float32
	perStep float32 // blocks' cells to lattice steps
	k       int32   // the next sample
}

func (o *occupancy) start(q *ray, dt, jitter float32) marcher {
	s := float32(o.n) / 2
	m := marcher{t0: q.near + jitter*dt, t1: q.far, dt: dt}
	var big float32
	for k := range 3 {
		m.o[k], m.d[k] = (q.o[k]+1)*s-0.5, q.d[k]*s
		big = max(big, m.d[k], -m.d[k])
	}
	m.perStep = block / (big * dt)
	return m
}

// paint draws a ray through a field: its colour, what is left of the light (c[3]), and
// the number of samples that it left in s.
func (s *samples) paint(g *Grid, occ *occupancy, q *ray, dt, jitter, ib float32) (c [4]float32, count int) {
	m := occ.start(q, dt, jitter)
	s.step[lead-1] = -9
	c[3] = 1
	for count < maxSamples && c[3] >= minLight {
		got := march(s, &m, occ, lead+count)
		if got == 0 {
			break
		}
		gather(s, g.V, lead+count, got, g.N, g.N*g.N)
		count += composite(s, lead+count, got, ib, &c)
	}
	return c, count
}

// trace renders one ray, adds its loss and scatters the gradient of the loss.
// scale is one over the number of rays.
func (f *Fit) trace(s *shard, q *ray, jitter, ib, scale float32) {
	n, p := f.grid.N, &s.ray
	c, count := p.paint(f.grid, &f.occ, q, f.grid.Voxel()*stepLength, jitter, ib)
	s.samples += count
	var dc [4]float32 // the loss by colour and opacity
	for k := range 3 {
		e := c[k] + c[3]*Background - q.colour[k]
		s.loss[0] += float64(e * e)
		dc[k] = f.cfg.Colour * q.weight * scale * e / float32(math.Sqrt(float64(e*e+1e-4)))
		dc[3] -= dc[k] * Background
	}
	miss := 1 - c[3] - q.opacity
	s.loss[1] += float64(miss * miss)
	dc[3] += 2 * f.cfg.Opacity * q.weight * scale * miss
	if count == 0 {
		return
	}
	backward(p, count, ib, &dc)
	scatter(s.grad, p, count, n, n*n)
}

// Picture is what Render makes: colour over the background, opacity, and the
// distance along the ray at which half of the light is gone (negative: never).
type Picture struct {
	Image   Image
	Opacity []float32 // (Size, Size)
	Depth   []float32 // (Size, Size)
}

// half is the lattice number of the first of count samples behind which less than half
// of the light is left.
func (s *samples) half(count int) int32 {
	for i := lead; i < lead+count; i++ {
		if s.light[i]*(1-s.alpha[i]) < 0.5 {
			return s.step[i]
		}
	}
	return 0
}

// Render draws the field with surface width beta voxels in size×size pixels.
func (g *Grid) Render(cam Camera, size int, beta float64) Picture {
	h := g.Voxel()
	b := float32(beta) * h
	occ := newOccupancy(g.N)
	occ.markAll(g.V, -cutoff*b)
	return g.render(&occ, cam, size, 1/b)
}

// RenderAll is Render for several cameras.
func (g *Grid) RenderAll(cams []Camera, size int, beta float64) []Picture {
	b := float32(beta) * g.Voxel()
	occ := newOccupancy(g.N)
	occ.markAll(g.V, -cutoff*b)
	out := make([]Picture, len(cams))
	for i, c := range cams {
		out[i] = g.render(&occ, c, size, 1/b)
	}
	return out
}

func (g *Grid) render(occ *occupancy, cam Camera, size int, ib float32) Picture {
	p := Picture{NewImage(size), make([]float32, size*size), make([]float32, size*size)}
	pr := cam.Projection(size)
	dt := g.Voxel() * 0.5
	const rows = 8
	parallel((size+rows-1)/rows, func(part int) {
		var s samples
		for i := part * rows * size; i < min((part+1)*rows, size)*size; i++ {
			p.Depth[i] = -1
			q, ok := newRay(&pr, i%size, i/size)
			if !ok {
				continue
			}
			c, count := s.paint(g, occ, &q, dt, 0.5, ib)
			if c[3] < 0.5 {
				p.Depth[i] = q.near + dt*(0.5+float32(s.half(count)))
			}
			for k := range 3 {
				p.Image.Pix[i*3+k] = c[k] + c[3]*Background
			}
			p.Opacity[i] = 1 - c[3]
		}
	})
	return p
}

// Peak returns, for each pixel of a size×size image, the largest f along its ray: the
// silhouette of the surface f = τ is where that exceeds τ. Pixels whose ray meets no
// cell above floor get floor.
func (g *Grid) Peak(cam Camera, size int, floor float32) []float32 {
	occ := newOccupancy(g.N)
	occ.markAll(g.V, floor)
	out := make([]float32, size*size)
	pr := cam.Projection(size)
	parallel(size, func(y int) {
		var s samples
		for x := range size {
			best := floor
			if q, ok := newRay(&pr, x, y); ok {
				m := occ.start(&q, g.Voxel()*0.5, 0.5)
				for {
					got := march(&s, &m, &occ, lead)
					if got == 0 {
						break
					}
					gather(&s, g.V, lead, got, g.N, g.N*g.N)
					for k := range got {
						best = max(best, s.val[(lead+k)*4])
					}
				}
			}
			out[y*size+x] = best
		}
	})
	return out
}
