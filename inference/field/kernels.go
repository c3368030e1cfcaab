package field

// The kernels, as plain functions over flat buffers. The portable twins here are
// the specification; kernels_amd64.s holds AVX2 versions that agree with them up to
// rounding.

import "math"

// stepConstants are the per-iteration constants of update, each repeated for the
// two voxels that one vector holds: (f, r, g, b, f, r, g, b).
type stepConstants struct {
	bilaplace [8]float32 // weight of the Laplacian of the Laplacian (f only)
	laplace   [8]float32 // weight of the negative Laplacian (smoothing of f, total variation of colour)
	eikonal   [8]float32 // weight of the eikonal term (f only)
	rate      [8]float32 // Adam's rate over its first bias correction
	low, high [8]float32 // limits of the values
	inverseH  [8]float32 // 1/h
	bias2     [8]float32 // 1/sqrt of Adam's second bias correction
	beta      [8]float32 // first four: 0.9, 0.1, 0.99, 0.01
}

// marchPortable puts the next samples of a ray that lie in occupied cells into s, from
// index at on: at least chunk of them and less than twice as many, or fewer where the
// ray ends. It fills idx, step and the position inside the cell.
func marchPortable(s *samples, m *marcher, o *occupancy, at int) (got int) {
	n, nb := o.n, o.nb
	for got < chunk {
		t := m.t0 + float32(m.k)*m.dt
		if !(t < m.t1) {
			break
		}
		x, y, z := m.o[0]+m.d[0]*t, m.o[1]+m.d[1]*t, m.o[2]+m.d[2]*t
		i, j, k := int(x), int(y), int(z)
		b := (k*n+j)*n + i
		if !o.cell[b] {
			steps := int32(1)
			if d := o.jump[((k/block)*nb+j/block)*nb+i/block]; d > 1 {
				steps = max(1, int32(float32(d-1)*m.perStep))
			}
			m.k += steps
			continue
		}
		p := at + got
		s.idx[p], s.step[p] = int32(b), m.k
		s.fx[p], s.fy[p], s.fz[p] = x-float32(i), y-float32(j), z-float32(k)
		m.k++
		got++
	}
	return got
}

// gatherPortable interpolates the n samples from index at on in a grid with 4 channels:
// fills val. strideY and strideZ are in voxels.
func gatherPortable(s *samples, grid []float32, at, n, strideY, strideZ int) {
	Y, Z := strideY*4, strideZ*4
	for i := at; i < at+n; i++ {
		b := int(s.idx[i]) * 4
		x, y, z := s.fx[i], s.fy[i], s.fz[i]
		for c := range 4 {
			p := grid[b+c:]
			a0 := p[0] + (p[Y]-p[0])*y
			a1 := p[4] + (p[Y+4]-p[4])*y
			b0 := p[Z] + (p[Z+Y]-p[Z])*y
			b1 := p[Z+4] + (p[Z+Y+4]-p[Z+4])*y
			a0 += (b0 - a0) * z
			a1 += (b1 - a1) * z
			s.val[i*4+c] = a0 + (a1-a0)*x
		}
	}
}

// compositePortable goes front to back through the n samples from index at on: fills
// phi, alpha, light and the segments' colours, adds the colour to c and takes what is
// left of the light, c[3], along. It stops when that falls below minLight and returns
// how many samples were used. ib is 1/β.
func compositePortable(s *samples, at, n int, ib float32, c *[4]float32) (used int) {
	occlusion(s.phi[at:], s.val[at*4:], (n+7)&^7, ib)
	for i := at; i < at+n; i++ {
		v := s.val[i*4 : i*4+4 : i*4+4]
		a, r, g, b := 1-s.phi[i], v[1], v[2], v[3]
		if s.step[i]-s.step[i-1] == 1 {
			p := s.val[i*4-4 : i*4 : i*4]
			a = max(0, 1-s.phi[i]/s.phi[i-1])
			r, g, b = (r+p[1])*0.5, (g+p[2])*0.5, (b+p[3])*0.5
		}
		s.alpha[i], s.light[i] = a, c[3]
		s.mr[i], s.mg[i], s.mb[i] = r, g, b
		w := a * c[3]
		c[0] += w * r
		c[1] += w * g
		c[2] += w * b
		if c[3] *= 1 - a; c[3] < minLight {
			return i + 1 - at
		}
	}
	return n
}

// backwardPortable turns the gradients of a ray's colour and opacity, dc, into those of
// its count samples, gv: for a sample of weight w = αT the loss changes by
// g = dc·colour + dc[3] per unit of w, and a change of α also scales everything behind.
func backwardPortable(s *samples, count int, ib float32, dc *[4]float32) {
	clear(s.gv[lead*4 : (lead+count)*4])
	var behind float32
	for i := lead + count - 1; i >= lead; i-- {
		a, light, phi := s.alpha[i], s.light[i], s.phi[i]
		w := a * light
		rest := max(1-a, 1e-3)
		g := dc[0]*s.mr[i] + dc[1]*s.mg[i] + dc[2]*s.mb[i] + dc[3]
		dalpha := light*g - behind/rest
		behind += w * g
		here := s.gv[i*4 : i*4+4 : i*4+4]
		if s.step[i]-s.step[i-1] != 1 {
			here[0] += dalpha * phi * (1 - phi) * ib
			for k := range 3 {
				here[k+1] += dc[k] * w
			}
			continue
		}
		before := s.gv[i*4-4 : i*4 : i*4]
		w *= 0.5
		for k := range 3 {
			here[k+1] += dc[k] * w
			before[k+1] += dc[k] * w
		}
		if a > 0 {
			d := dalpha * rest * ib
			here[0] += d * (1 - phi)
			before[0] -= d * (1 - s.phi[i-1])
		}
	}
}

// scatterPortable is gather's adjoint: adds the gradients gv of count samples to the
// eight corners of their cells.
func scatterPortable(grad []float32, s *samples, count, strideY, strideZ int) {
	Y, Z := strideY*4, strideZ*4
	for i := lead; i < lead+count; i++ {
		b := int(s.idx[i]) * 4
		x, y, z := s.fx[i], s.fy[i], s.fz[i]
		for c := range 4 {
			p := grad[b+c:]
			g := s.gv[i*4+c]
			g1 := g * x
			g0 := g - g1
			for k, v := range [2]float32{g0, g1} {
				o := k * 4
				hi := v * z
				lo := v - hi
				p[o] += lo - lo*y
				p[o+Y] += lo * y
				p[o+Z] += hi - hi*y
				p[o+Z+Y] += hi * y
			}
		}
	}
}

// occlusionPortable computes Φ = 1/(1+exp(f·scale)) of the first channel of samples
// (n, 4). n must be a multiple of 8.
func occlusionPortable(dst, samples []float32, n int, scale float32) {
	for i := range n {
		dst[i] = 1 / (1 + float32(math.Exp(float64(min(max(samples[i*4]*scale, -80), 80)))))
	}
}

// laplacianPortable writes, for n voxels from index i on, the sum of the six
// neighbours minus six times the voxel, in all channels; and adds the gradients of
// the further shards to the first, clearing them. n must be even.
func laplacianPortable(dst, grid []float32, i, n, strideY, strideZ int) {
	Y, Z := strideY*4, strideZ*4
	for k := i * 4; k < (i+n)*4; k++ {
		dst[k] = grid[k-4] + grid[k+4] + grid[k-Y] + grid[k+Y] + grid[k-Z] + grid[k+Z] - 6*grid[k]
	}
}

// mergePortable adds src to dst and clears src; n values, a multiple of 8.
func mergePortable(dst, src []float32, i, n int) {
	for k := i; k < i+n; k++ {
		dst[k] += src[k]
		src[k] = 0
	}
}

// updatePortable adds the gradients of the regularisers to grad, takes one step of
// Adam from grid into dst and clears grad, for n voxels (even) from index i on.
func updatePortable(dst, grid, lap, grad, m, v []float32, i, n, strideY, strideZ int, p *stepConstants) {
	Y, Z := strideY*4, strideZ*4
	ih := p.inverseH[0]
	// slope is 2(1 − 1/|d|)·(the sum or one part of d), the derivative of (|∇f| − 1)².
	factor := func(a, b, c float32) float32 {
		return 2 - 2/float32(math.Sqrt(float64(a*a+b*b+c*c+1e-12)))
	}
	for k := i * 4; k < (i+n)*4; k++ {
		lane := k & 7
		g := grad[k]
		grad[k] = 0
		g -= p.laplace[lane] * lap[k]
		if w := p.bilaplace[lane]; w != 0 {
			g += w * (lap[k-4] + lap[k+4] + lap[k-Y] + lap[k+Y] + lap[k-Z] + lap[k+Z] - 6*lap[k])
		}
		c := grid[k]
		if w := p.eikonal[lane]; w != 0 {
			xm, ym, zm := grid[k-4], grid[k-Y], grid[k-Z]
			dx, dy, dz := (grid[k+4]-c)*ih, (grid[k+Y]-c)*ih, (grid[k+Z]-c)*ih
			s := -(dx + dy + dz) * factor(dx, dy, dz)
			a := (c - xm) * ih
			s += a * factor(a, (grid[k-4+Y]-xm)*ih, (grid[k-4+Z]-xm)*ih)
			a = (c - ym) * ih
			s += a * factor((grid[k-Y+4]-ym)*ih, a, (grid[k-Y+Z]-ym)*ih)
			a = (c - zm) * ih
			s += a * factor((grid[k-Z+4]-zm)*ih, (grid[k-Z+Y]-zm)*ih, a)
			g += w * s
		}
		m1 := m[k]*p.beta[0] + g*p.beta[1]
		v1 := v[k]*p.beta[2] + g*g*p.beta[3]
		m[k], v[k] = m1, v1
		c -= p.rate[lane] * m1 / (float32(math.Sqrt(float64(v1)))*p.bias2[0] + 1e-12)
		dst[k] = min(max(c, p.low[lane]), p.high[lane])
	}
}
