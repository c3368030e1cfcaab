package field

import "golang.org/x/sys/cpu"

// The functions in use: the best that the processor has.
var (
	march     = marchPortable
	gather    = gatherPortable
	composite = compositePortable
	backward  = backwardPortable
	scatter   = scatterPortable
	occlusion = occlusionPortable
	laplacian = laplacianPortable
	merge     = mergePortable
	update    = updatePortable
)

// Whether the processor has what the kernels use.
var (
	hasAVX2   = cpu.X86.HasAVX2 && cpu.X86.HasFMA
	hasAVX512 = hasAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasPOPCNT
)

func init() {
	if hasAVX2 {
		gather, scatter, occlusion = gatherVector, scatterVector, occlusionVector
		laplacian, merge, update = laplacianVector, mergeVector, updateVector
	}
	if hasAVX512 {
		march, composite, backward = marchWide, compositeWide, backwardWide
		update = updateWide
	}
}

//go:noescape
func prefetch(p *ray)

//go:noescape
func marchAVX512(s *samples, m *marcher, cell *bool, jump *uint8, n, nb, at int) (got int)

//go:noescape
func compositeAVX512(s *samples, at, n int, ib float32, c *[4]float32) (used int)

//go:noescape
func backwardAVX512(s *samples, count int, ib float32, dc *[4]float32)

//go:noescape
func updateAVX512(dst, grid, lap, grad, m, v *float32, n, strideY, strideZ int, p *stepConstants)

//go:noescape
func gatherAVX2(s *samples, grid *float32, at, n, strideY, strideZ int)

//go:noescape
func scatterAVX2(grad *float32, s *samples, n, strideY, strideZ int)

//go:noescape
func occlusionAVX2(dst, samples *float32, n int, scale float32)

//go:noescape
func laplacianAVX2(dst, grid *float32, n, strideY, strideZ int)

//go:noescape
func mergeAVX2(dst, src *float32, n int)

//go:noescape
func updateAVX2(dst, grid, lap, grad, m, v *float32, n, strideY, strideZ int, p *stepConstants)

func marchWide(s *samples, m *marcher, o *occupancy, at int) int {
	_ = s.idx[at+2*chunk-1]
	// Four bytes are read at each cell.
	return marchAVX512(s, m, &o.cell[:len(o.cell)+4][0], &o.jump[0], o.n, o.nb, at)
}

func compositeWide(s *samples, at, n int, ib float32, c *[4]float32) int {
	_ = s.idx[at+(n+7)&^7-1]
	return compositeAVX512(s, at, n, ib, c)
}

func backwardWide(s *samples, count int, ib float32, dc *[4]float32) {
	if count > 0 {
		_ = s.idx[lead+(count+7)&^7-1]
		backwardAVX512(s, count, ib, dc)
	}
}

func gatherVector(s *samples, grid []float32, at, n, strideY, strideZ int) {
	if n > 0 {
		_ = s.idx[at+n-1]
		gatherAVX2(s, &grid[0], at, n, strideY*16, strideZ*16)
	}
}

func scatterVector(grad []float32, s *samples, count, strideY, strideZ int) {
	if count > 0 {
		_ = s.idx[lead+count-1]
		scatterAVX2(&grad[0], s, count, strideY*16, strideZ*16)
	}
}

func occlusionVector(dst, samples []float32, n int, scale float32) {
	if n > 0 {
		_, _ = dst[n-1], samples[n*4-1]
		occlusionAVX2(&dst[0], &samples[0], n, scale)
	}
}

func laplacianVector(dst, grid []float32, i, n, strideY, strideZ int) {
	_ = grid[(i+n+strideZ)*4-1]
	_ = grid[(i-strideZ)*4]
	laplacianAVX2(&dst[i*4], &grid[i*4], n, strideY*16, strideZ*16)
}

func mergeVector(dst, src []float32, i, n int) {
	_, _ = dst[i+n-1], src[i+n-1]
	mergeAVX2(&dst[i], &src[i], n)
}

func updateVector(dst, grid, lap, grad, m, v []float32, i, n, strideY, strideZ int, p *stepConstants) {
	_ = grid[(i+n+strideZ)*4-1]
	_ = grid[(i-strideZ)*4]
	k := i * 4
	updateAVX2(&dst[k], &grid[k], &lap[k], &grad[k], &m[k], &v[k], n, strideY*16, strideZ*16, p)
}

func updateWide(dst, grid, lap, grad, m, v []float32, i, n, strideY, strideZ int, p *stepConstants) {
	// Of a last pair the eikonal term reads two voxels too many.
	if n%4 != 0 && (i+n+2+strideZ)*4 > len(grid) {
		updateVector(dst, grid, lap, grad, m, v, i, n, strideY, strideZ, p)
		return
	}
	_ = grid[(i+n+strideZ)*4-1]
	_ = grid[(i-strideZ)*4]
	k := i * 4
	updateAVX512(&dst[k], &grid[k], &lap[k], &grad[k], &m[k], &v[k], n, strideY*16, strideZ*16, p)
}
