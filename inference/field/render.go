package field

import "math"

// occupancy says which cells can hold a visible sample, and how far a ray may jump
// from one that cannot.
type occupancy struct {
	n, nb int
	cell  []bool  // (n, n, n), indexed by the cell's lower corner
	jump  []uint8 // (nb, nb, nb): chessboard distance in blocks to a block with such a cell
}

func newOccupancy(n int) occupancy {
	nb := (n + block - 1) / block
	return occupancy{n: n, nb: nb, cell: make([]bool, n*n*n), jump: make([]uint8, nb*nb*nb)}
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

// marcher walks a ray's lattice of samples through the occupied cells.
type marcher struct {
	o       [3]float32 // origin and direction in grid units
	d       [3]float32
	t, t1   float32
	dt      float32
	perStep float32 // blocks' cells to lattice steps
	last    float32
}

func (o *occupancy) start(q *ray, dt, jitter float32) marcher {
	s := float32(o.n) / 2
	m := marcher{t: q.near + jitter*dt, t1: q.far, dt: dt, last: -9}
	var big float32
	for k := range 3 {
		m.o[k], m.d[k] = (q.o[k]+1)*s-0.5, q.d[k]*s
		big = max(big, m.d[k], -m.d[k])
	}
	m.perStep = block / (big * dt)
	return m
}

// next collects up to room samples into s from position at on and returns how many.
func (m *marcher) next(o *occupancy, s *shard, at, room int) int {
	n, nb := o.n, o.nb
	got := 0
	for m.t < m.t1 && got < room {
		x, y, z := m.o[0]+m.d[0]*m.t, m.o[1]+m.d[1]*m.t, m.o[2]+m.d[2]*m.t
		i, j, k := int(x), int(y), int(z)
		b := (k*n+j)*n + i
		if !o.cell[b] {
			steps := float32(1)
			if d := o.jump[((k/block)*nb+j/block)*nb+i/block]; d > 1 {
				if far := float32(d-1) * m.perStep; far > 1 {
					steps = float32(int(far))
				}
			}
			m.t += m.dt * steps
			continue
		}
		p := at + got
		s.idx[p] = int32(b)
		s.frac[p*4], s.frac[p*4+1], s.frac[p*4+2] = x-float32(i), y-float32(j), z-float32(k)
		s.fresh[p] = m.t-m.last > 1.5*m.dt
		m.last = m.t
		m.t += m.dt
		got++
	}
	return got
}

// shade interpolates the samples [at, at+got) and composites them front to back.
// It returns how many samples were used before the light ran out.
func (s *shard) shade(v []float32, n int, at, got int, ib float32, light float32, c *[3]float32) (used int, left float32) {
	gather(s.val[at*4:], v, s.idx[at:], s.frac[at*4:], got, n, n*n)
	occlusion(s.phi[at:], s.val[at*4:], chunk, ib)
	for i := at; i < at+got; i++ {
		phi := s.phi[i]
		val := s.val[i*4 : i*4+4 : i*4+4]
		var a, r, g, b float32
		if s.fresh[i] || i == 0 {
			s.prev[i] = 2
			a, r, g, b = 1-phi, val[1], val[2], val[3]
		} else {
			before := s.phi[i-1]
			s.prev[i] = before
			a = max(0, 1-phi/before)
			pv := s.val[i*4-4 : i*4 : i*4]
			r, g, b = (val[1]+pv[1])*0.5, (val[2]+pv[2])*0.5, (val[3]+pv[3])*0.5
		}
		s.alpha[i], s.light[i] = a, light
		w := a * light
		c[0] += w * r
		c[1] += w * g
		c[2] += w * b
		light *= 1 - a
		if light < minLight {
			return i + 1 - at, light
		}
	}
	return got, light
}

// trace renders one ray, adds its loss and scatters the gradient of the loss.
// scale is one over the number of rays.
func (f *Fit) trace(s *shard, q *ray, jitter, ib, scale float32) {
	n := f.grid.N
	m := f.occ.start(q, f.grid.Voxel()*stepLength, jitter)
	var c [3]float32
	light := float32(1)
	count := 0
	for count+chunk <= maxSamples {
		got := m.next(&f.occ, s, count, chunk)
		if got == 0 {
			break
		}
		var used int
		used, light = s.shade(f.grid.V, n, count, got, ib, light, &c)
		count += used
		if light < minLight {
			break
		}
	}
	s.samples += count
	opacity := 1 - light
	var dc [3]float32
	var da float32
	for k := range 3 {
		e := c[k] + light*Background - q.colour[k]
		s.loss[0] += float64(e * e)
		dc[k] = f.cfg.Colour * q.weight * scale * e / float32(math.Sqrt(float64(e*e+1e-4)))
		da -= dc[k] * Background
	}
	miss := opacity - q.opacity
	s.loss[1] += float64(miss * miss)
	da += 2 * f.cfg.Opacity * q.weight * scale * miss
	if count == 0 {
		return
	}
	s.backward(count, ib, dc, da)
	scatter(s.grad, s.gv, s.idx, s.frac, count, n, n*n)
}

// backward turns the gradients of a ray's colour and opacity into those of its
// samples: for a sample of weight w = αT the loss changes by g = dc·colour + da per
// unit of w, and a change of α also scales everything behind it.
func (s *shard) backward(count int, ib float32, dc [3]float32, da float32) {
	gv := s.gv[:count*4]
	clear(gv)
	var behind float32
	for i := count - 1; i >= 0; i-- {
		val := s.val[i*4 : i*4+4 : i*4+4]
		a, light, phi, prev := s.alpha[i], s.light[i], s.phi[i], s.prev[i]
		w := a * light
		rest := max(1-a, 1e-3)
		here := gv[i*4 : i*4+4 : i*4+4]
		if prev > 1.5 {
			g := dc[0]*val[1] + dc[1]*val[2] + dc[2]*val[3] + da
			dalpha := light*g - behind/rest
			behind += w * g
			here[0] += dalpha * phi * (1 - phi) * ib
			here[1] += dc[0] * w
			here[2] += dc[1] * w
			here[3] += dc[2] * w
			continue
		}
		pv := s.val[i*4-4 : i*4 : i*4]
		g := (dc[0]*(val[1]+pv[1])+dc[1]*(val[2]+pv[2])+dc[2]*(val[3]+pv[3]))*0.5 + da
		dalpha := light*g - behind/rest
		behind += w * g
		before := gv[i*4-4 : i*4 : i*4]
		w *= 0.5
		for k := range 3 {
			here[k+1] += dc[k] * w
			before[k+1] += dc[k] * w
		}
		if a > 0 {
			d := dalpha * rest * ib
			here[0] += d * (1 - phi)
			before[0] -= d * (1 - prev)
		}
	}
}

// Picture is what Render makes: colour over the background, opacity, and the
// distance along the ray at which half of the light is gone (negative: never).
type Picture struct {
	Image   Image
	Opacity []float32 // (Size, Size)
	Depth   []float32 // (Size, Size)
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
		var s shard
		s.scratch()
		for i := part * rows * size; i < min((part+1)*rows, size)*size; i++ {
			p.Depth[i] = -1
			q, ok := newRay(&pr, i%size, i/size)
			if !ok {
				continue
			}
			m := occ.start(&q, dt, 0.5)
			var c [3]float32
			light := float32(1)
			for n := 0; n+chunk <= maxSamples && light >= minLight; {
				got := m.next(occ, &s, n, chunk)
				if got == 0 {
					break
				}
				used, left := s.shade(g.V, g.N, n, got, ib, light, &c)
				if light >= 0.5 && left < 0.5 {
					p.Depth[i] = m.last - dt*float32(got-used)
				}
				light = left
				n += used
			}
			for k := range 3 {
				p.Image.Pix[i*3+k] = c[k] + light*Background
			}
			p.Opacity[i] = 1 - light
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
		var s shard
		s.scratch()
		for x := range size {
			best := floor
			if q, ok := newRay(&pr, x, y); ok {
				m := occ.start(&q, g.Voxel()*0.5, 0.5)
				for {
					got := m.next(&occ, &s, 0, chunk)
					if got == 0 {
						break
					}
					gather(s.val, g.V, s.idx, s.frac, got, g.N, g.N*g.N)
					for k := range got {
						best = max(best, s.val[k*4])
					}
				}
			}
			out[y*size+x] = best
		}
	})
	return out
}
