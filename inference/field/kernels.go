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

// gatherPortable interpolates n samples of a grid with 4 channels.
// idx: the lower corner's voxel index; frac (n, 4): position inside the cell (x, y, z, –);
// dst (n, 4). strideY and strideZ are in voxels.
func gatherPortable(dst, grid []float32, idx []int32, frac []float32, n, strideY, strideZ int) {
	Y, Z := strideY*4, strideZ*4
	for s := range n {
		b := int(idx[s]) * 4
		x, y, z := frac[s*4], frac[s*4+1], frac[s*4+2]
		for c := range 4 {
			p := grid[b+c:]
			a0 := p[0] + (p[Y]-p[0])*y
			a1 := p[4] + (p[Y+4]-p[4])*y
			b0 := p[Z] + (p[Z+Y]-p[Z])*y
			b1 := p[Z+4] + (p[Z+Y+4]-p[Z+4])*y
			a0 += (b0 - a0) * z
			a1 += (b1 - a1) * z
			dst[s*4+c] = a0 + (a1-a0)*x
		}
	}
}

// scatterPortable is gather's adjoint: adds the samples' gradients gv (n, 4) to the
// eight corners of their cells.
func scatterPortable(grad, gv []float32, idx []int32, frac []float32, n, strideY, strideZ int) {
	Y, Z := strideY*4, strideZ*4
	for s := range n {
		b := int(idx[s]) * 4
		x, y, z := frac[s*4], frac[s*4+1], frac[s*4+2]
		for c := range 4 {
			p := grad[b+c:]
			g := gv[s*4+c]
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
