package cpu

//go:generate go run ./internal/gen

import "golang.org/x/sys/cpu"

// The assembly of both instruction sets. Every function reads rows × cols
// floats as its argument describes; see internal/gen.

//go:noescape
func tileAVX512(args *tile)

//go:noescape
func sumsAVX512(args *rowArgs)

//go:noescape
func layerNormAVX512(args *rowArgs)

//go:noescape
func softmaxAVX512(args *rowArgs)

//go:noescape
func affineAVX512(args *rowArgs)

//go:noescape
func affineSiluAVX512(args *rowArgs)

//go:noescape
func siluAVX512(args *rowArgs)

//go:noescape
func geluAVX512(args *rowArgs)

//go:noescape
func expAVX512(args *rowArgs)

//go:noescape
func gegluAVX512(args *rowArgs)

//go:noescape
func addToAVX512(args *rowArgs)

//go:noescape
func winogradInAVX512(args *rowArgs)

//go:noescape
func winogradOutAVX512(args *rowArgs)

//go:noescape
func tileAVX2(args *tile)

//go:noescape
func sumsAVX2(args *rowArgs)

//go:noescape
func layerNormAVX2(args *rowArgs)

//go:noescape
func softmaxAVX2(args *rowArgs)

//go:noescape
func affineAVX2(args *rowArgs)

//go:noescape
func affineSiluAVX2(args *rowArgs)

//go:noescape
func siluAVX2(args *rowArgs)

//go:noescape
func geluAVX2(args *rowArgs)

//go:noescape
func expAVX2(args *rowArgs)

//go:noescape
func gegluAVX2(args *rowArgs)

//go:noescape
func addToAVX2(args *rowArgs)

// pause waits some tens of nanoseconds.
//
//go:noescape
func pause()

// available lists the code paths that this machine can run, best first.
func available() []*kernels {
	var ks []*kernels
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL {
		ks = append(ks, &kernels{name: "avx512", mr: 12, nr: 32, lanes: 16, tile: tileAVX512,
			sums: sumsAVX512, layerNorm: layerNormAVX512, softmax: softmaxAVX512,
			affine: affineAVX512, affineSilu: affineSiluAVX512, silu: siluAVX512,
			gelu: geluAVX512, exp: expAVX512, geglu: gegluAVX512, addTo: addToAVX512,
			winogradIn: winogradInAVX512, winogradOut: winogradOutAVX512})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		// Without masks, columns that do not fill registers go the portable way.
		whole := func(asm, portable func(*rowArgs)) func(*rowArgs) {
			return func(a *rowArgs) {
				if a.cols%8 == 0 {
					asm(a)
				} else {
					portable(a)
				}
			}
		}
		ks = append(ks, &kernels{name: "avx2", mr: 6, nr: 16, lanes: 8, tile: tileAVX2,
			sums: whole(sumsAVX2, sumsGo), layerNorm: whole(layerNormAVX2, layerNormGo), softmax: softmaxAVX2,
			affine: whole(affineAVX2, affineGo), affineSilu: whole(affineSiluAVX2, affineSiluGo), silu: whole(siluAVX2, siluGo),
			gelu: whole(geluAVX2, geluGo), exp: whole(expAVX2, expGo), geglu: whole(gegluAVX2, gegluGo), addTo: whole(addToAVX2, addToGo)})
	}
	return append(ks, portable())
}
