package field

import "golang.org/x/sys/cpu"

// The functions in use: assembly where the processor has AVX2 and FMA.
var (
	gather    = gatherPortable
	scatter   = scatterPortable
	occlusion = occlusionPortable
	laplacian = laplacianPortable
	merge     = mergePortable
	update    = updatePortable
)

func init() {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		useAVX2()
	}
}

func useAVX2() {
	gather, scatter, occlusion = gatherVector, scatterVector, occlusionVector
	laplacian, merge, update = laplacianVector, mergeVector, updateVector
}

//go:noescape
func gatherAVX2(dst, grid *float32, idx *int32, frac *float32, n, strideY, strideZ int)

//go:noescape
func scatterAVX2(grad, gv *float32, idx *int32, frac *float32, n, strideY, strideZ int)

//go:noescape
func occlusionAVX2(dst, samples *float32, n int, scale float32)

//go:noescape
func laplacianAVX2(dst, grid *float32, n, strideY, strideZ int)

//go:noescape
func mergeAVX2(dst, src *float32, n int)

//go:noescape
func updateAVX2(dst, grid, lap, grad, m, v *float32, n, strideY, strideZ int, p *stepConstants)

func gatherVector(dst, grid []float32, idx []int32, frac []float32, n, strideY, strideZ int) {
	if n > 0 {
		_ = dst[n*4-1]
		gatherAVX2(&dst[0], &grid[0], &idx[0], &frac[0], n, strideY*16, strideZ*16)
	}
}

func scatterVector(grad, gv []float32, idx []int32, frac []float32, n, strideY, strideZ int) {
	if n > 0 {
		_ = gv[n*4-1]
		scatterAVX2(&grad[0], &gv[0], &idx[0], &frac[0], n, strideY*16, strideZ*16)
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
