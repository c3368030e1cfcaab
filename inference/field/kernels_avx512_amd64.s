#include "go_asm.h"
#include "textflag.h"

// Eight samples a vector, with masks. Operand order is Go's: VSUBPS a, b, c is
// c = b − a; VFMADD231PS a, b, c is c += a·b; VCMPPS $1, a, b, k is k = b < a;
// VALIGND $i, a, b, c takes lanes i… of a, then lanes 0… of b.

DATA lane512<>+0(SB)/4, $0
DATA lane512<>+4(SB)/4, $1
DATA lane512<>+8(SB)/4, $2
DATA lane512<>+12(SB)/4, $3
DATA lane512<>+16(SB)/4, $4
DATA lane512<>+20(SB)/4, $5
DATA lane512<>+24(SB)/4, $6
DATA lane512<>+28(SB)/4, $7
GLOBL lane512<>(SB), RODATA|NOPTR, $32

// From eight samples (f, r, g, b), two vectors, all f and r.
DATA split<>+0(SB)/4, $0
DATA split<>+4(SB)/4, $4
DATA split<>+8(SB)/4, $8
DATA split<>+12(SB)/4, $12
DATA split<>+16(SB)/4, $16
DATA split<>+20(SB)/4, $20
DATA split<>+24(SB)/4, $24
DATA split<>+28(SB)/4, $28
DATA split<>+32(SB)/4, $1
DATA split<>+36(SB)/4, $5
DATA split<>+40(SB)/4, $9
DATA split<>+44(SB)/4, $13
DATA split<>+48(SB)/4, $17
DATA split<>+52(SB)/4, $21
DATA split<>+56(SB)/4, $25
DATA split<>+60(SB)/4, $29
GLOBL split<>(SB), RODATA|NOPTR, $64

// From (f0…f7, r0…r7) and (g0…, b0…), the first four samples.
DATA join<>+0(SB)/4, $0
DATA join<>+4(SB)/4, $8
DATA join<>+8(SB)/4, $16
DATA join<>+12(SB)/4, $24
DATA join<>+16(SB)/4, $1
DATA join<>+20(SB)/4, $9
DATA join<>+24(SB)/4, $17
DATA join<>+28(SB)/4, $25
DATA join<>+32(SB)/4, $2
DATA join<>+36(SB)/4, $10
DATA join<>+40(SB)/4, $18
DATA join<>+44(SB)/4, $26
DATA join<>+48(SB)/4, $3
DATA join<>+52(SB)/4, $11
DATA join<>+56(SB)/4, $19
DATA join<>+60(SB)/4, $27
GLOBL join<>(SB), RODATA|NOPTR, $64

// 80, −80, log2(e), ln2 high, ln2 low, 1/120, 1/24, 1/6, 1/2, 1, 1e-3, 2, 4
DATA const512<>+0(SB)/4, $0x42a00000
DATA const512<>+4(SB)/4, $0xc2a00000
DATA const512<>+8(SB)/4, $0x3fb8aa3b
DATA const512<>+12(SB)/4, $0x3f317200
DATA const512<>+16(SB)/4, $0x35bfbe8e
DATA const512<>+20(SB)/4, $0x3c088889
DATA const512<>+24(SB)/4, $0x3d2aaaab
DATA const512<>+28(SB)/4, $0x3e2aaaab
DATA const512<>+32(SB)/4, $0x3f000000
DATA const512<>+36(SB)/4, $0x3f800000
DATA const512<>+40(SB)/4, $0x3a83126f
DATA const512<>+44(SB)/4, $2
DATA const512<>+48(SB)/4, $4
DATA const512<>+52(SB)/4, $0xff
DATA const512<>+56(SB)/4, $1
GLOBL const512<>(SB), RODATA|NOPTR, $60

// func prefetch(p *ray)
TEXT ·prefetch(SB), NOSPLIT, $0-8
	MOVQ p+0(FP), AX
	PREFETCHT0 (AX)
	PREFETCHT0 48(AX)
	RET

// func marchAVX512(s *samples, m *marcher, cell *bool, jump *uint8, n, nb, at int) (got int)
TEXT ·marchAVX512(SB), NOSPLIT, $0-64
	MOVQ s+0(FP), DI
	MOVQ m+8(FP), BX
	MOVQ cell+16(FP), SI
	MOVQ jump+24(FP), R8
	MOVQ nb+40(FP), R9
	MOVQ at+48(FP), R10
	LEAQ (DI)(R10*4), DI
	XORQ R10, R10            // got
	MOVL marcher_k(BX), R11
	VBROADCASTSS marcher_o+0(BX), Y16
	VBROADCASTSS marcher_o+4(BX), Y17
	VBROADCASTSS marcher_o+8(BX), Y18
	VBROADCASTSS marcher_d+0(BX), Y19
	VBROADCASTSS marcher_d+4(BX), Y20
	VBROADCASTSS marcher_d+8(BX), Y21
	VBROADCASTSS marcher_t0(BX), Y22
	VBROADCASTSS marcher_dt(BX), Y23
	VBROADCASTSS marcher_t1(BX), Y24
	VPBROADCASTD n+32(FP), Y26
	VPBROADCASTD const512<>+52(SB), Y27
	VMOVDQU32 lane512<>(SB), Y25

march_loop:
	VPBROADCASTD R11, Y0
	VPADDD Y25, Y0, Y0
	VCVTDQ2PS Y0, Y1
	VMOVAPS Y22, Y2
	VFMADD231PS Y23, Y1, Y2
	VCMPPS $1, Y24, Y2, K1   // t < t1
	KMOVB K1, AX
	TESTL AX, AX
	JZ march_done
	VMOVAPS Y16, Y3
	VFMADD231PS Y19, Y2, Y3
	VMOVAPS Y17, Y4
	VFMADD231PS Y20, Y2, Y4
	VMOVAPS Y18, Y5
	VFMADD231PS Y21, Y2, Y5
	VCVTTPS2DQ Y3, Y6
	VCVTTPS2DQ Y4, Y7
	VCVTTPS2DQ Y5, Y8
	VPMULLD Y26, Y8, Y9
	VPADDD Y7, Y9, Y9
	VPMULLD Y26, Y9, Y9
	VPADDD Y6, Y9, Y9
	KMOVB K1, K2
	VPXOR Y10, Y10, Y10
	VPGATHERDD (SI)(Y9*1), K2, Y10
	VPTESTMD Y27, Y10, K1, K3
	KMOVB K3, AX
	TESTL AX, AX
	JZ march_skip
	POPCNTL AX, CX
	VPCOMPRESSD.Z Y9, K3, Y12
	VMOVDQU32 Y12, samples_idx(DI)
	VPCOMPRESSD.Z Y0, K3, Y12
	VMOVDQU32 Y12, samples_step(DI)
	VCVTDQ2PS Y6, Y11
	VSUBPS Y11, Y3, Y11
	VCOMPRESSPS.Z Y11, K3, Y12
	VMOVUPS Y12, samples_fx(DI)
	VCVTDQ2PS Y7, Y11
	VSUBPS Y11, Y4, Y11
	VCOMPRESSPS.Z Y11, K3, Y12
	VMOVUPS Y12, samples_fy(DI)
	VCVTDQ2PS Y8, Y11
	VSUBPS Y11, Y5, Y11
	VCOMPRESSPS.Z Y11, K3, Y12
	VMOVUPS Y12, samples_fz(DI)
	LEAQ (DI)(CX*4), DI
	ADDQ CX, R10
	ADDL $8, R11
	CMPQ R10, $const_chunk
	JLT march_loop
	JMP march_done

march_skip:
	// As far as the first lane's block allows.
	ADDL $8, R11
	VMOVD X6, AX
	VMOVD X7, CX
	VMOVD X8, DX
	SHRL $2, AX
	SHRL $2, CX
	SHRL $2, DX
	IMULQ R9, DX
	ADDQ CX, DX
	IMULQ R9, DX
	ADDQ AX, DX
	MOVBLZX (R8)(DX*1), AX
	SUBL $1, AX
	JLE march_loop
	VXORPS X11, X11, X11
	VCVTSI2SSL AX, X11, X11
	VMULSS marcher_perStep(BX), X11, X11
	VCVTTSS2SI X11, AX
	SUBL $8, AX
	JLE march_loop
	ADDL AX, R11
	JMP march_loop

march_done:
	MOVL R11, marcher_k(BX)
	MOVQ R10, got+56(FP)
	VZEROUPPER
	RET

// func compositeAVX512(s *samples, at, n int, ib float32, c *[4]float32) (used int)
TEXT ·compositeAVX512(SB), NOSPLIT, $0-48
	MOVQ s+0(FP), DI
	MOVQ at+8(FP), R8
	MOVQ n+16(FP), CX
	MOVQ c+32(FP), DX
	MOVQ R8, SI
	SHLQ $4, SI
	LEAQ samples_val(DI)(SI*1), SI
	LEAQ (DI)(R8*4), DI
	XORQ R10, R10            // used
	VBROADCASTSS ib+24(FP), Y31
	VBROADCASTSS const512<>+36(SB), Y30 // 1
	VBROADCASTSS const512<>+32(SB), Y29 // 1/2
	VMOVDQU32 split<>(SB), Z28
	VPBROADCASTD const512<>+44(SB), Z27
	VPADDD Z27, Z28, Z27               // all g and b
	VBROADCASTSS const512<>+40(SB), Y26 // minLight
	VPBROADCASTD const512<>+56(SB), Y25 // 1
	VBROADCASTSS 12(DX), Y24           // light
	// Of the sample before, in the highest lane: step, Φ, r, g, b.
	VPBROADCASTD samples_step-4(DI), Y20
	VBROADCASTSS samples_phi-4(DI), Y16
	VBROADCASTSS -12(SI), Y17
	VBROADCASTSS -8(SI), Y18
	VBROADCASTSS -4(SI), Y19
	VXORPS Y21, Y21, Y21
	VXORPS Y22, Y22, Y22
	VXORPS Y23, Y23, Y23

composite_loop:
	MOVL $0xff, AX
	CMPQ CX, $8
	JGE composite_full
	MOVL $1, AX
	SHLL CX, AX
	SUBL $1, AX

composite_full:
	KMOVB AX, K1             // samples that there are
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z2
	VMOVAPS Z0, Z1
	VPERMT2PS Z2, Z28, Z0    // f, r
	VPERMT2PS Z2, Z27, Z1    // g, b
	VEXTRACTF32X8 $1, Z0, Y2 // r
	VEXTRACTF32X8 $1, Z1, Y3 // b; Y1: g
	// Φ = 1/(1+exp(f/β))
	VMULPS Y31, Y0, Y0
	VMINPS.BCST const512<>+0(SB), Y0, Y0
	VMAXPS.BCST const512<>+4(SB), Y0, Y0
	VMULPS.BCST const512<>+8(SB), Y0, Y4
	VRNDSCALEPS $0, Y4, Y4
	VFNMADD231PS.BCST const512<>+12(SB), Y4, Y0
	VFNMADD231PS.BCST const512<>+16(SB), Y4, Y0
	VBROADCASTSS const512<>+20(SB), Y5
	VFMADD213PS.BCST const512<>+24(SB), Y0, Y5
	VFMADD213PS.BCST const512<>+28(SB), Y0, Y5
	VFMADD213PS Y29, Y0, Y5
	VFMADD213PS Y30, Y0, Y5
	VFMADD213PS Y30, Y0, Y5
	VSCALEFPS Y4, Y5, Y5
	VADDPS Y30, Y5, Y5
	VDIVPS Y5, Y30, Y5       // Φ
	VMOVUPS Y5, samples_phi(DI)
	// which continue the sample before
	VMOVDQU32 samples_step(DI), Y6
	VALIGND $7, Y20, Y6, Y7
	VMOVDQA32 Y6, Y20
	VPSUBD Y7, Y6, Y7
	VPCMPEQD Y25, Y7, K2
	VALIGND $7, Y16, Y5, Y7
	VMOVAPS Y5, Y16
	VMOVAPS Y30, Y8
	VMOVAPS Y7, K2, Y8       // Φ before, or 1
	VDIVPS Y8, Y5, Y7
	VSUBPS Y7, Y30, Y7
	VPXOR Y8, Y8, Y8
	VMAXPS.Z Y8, Y7, K1, Y7  // α, 0 where there is no sample
	// colours of the segments
	VALIGND $7, Y17, Y2, Y8
	VMOVAPS Y2, Y17
	VADDPS Y8, Y2, K2, Y2
	VMULPS Y29, Y2, K2, Y2
	VALIGND $7, Y18, Y1, Y8
	VMOVAPS Y1, Y18
	VADDPS Y8, Y1, K2, Y1
	VMULPS Y29, Y1, K2, Y1
	VALIGND $7, Y19, Y3, Y8
	VMOVAPS Y3, Y19
	VADDPS Y8, Y3, K2, Y3
	VMULPS Y29, Y3, K2, Y3
	VMOVUPS Y2, samples_mr(DI)
	VMOVUPS Y1, samples_mg(DI)
	VMOVUPS Y3, samples_mb(DI)
	// light: products of 1 − α
	VSUBPS Y7, Y30, Y8
	VALIGND $7, Y30, Y8, Y9
	VMULPS Y9, Y8, Y8
	VALIGND $6, Y30, Y8, Y9
	VMULPS Y9, Y8, Y8
	VALIGND $4, Y30, Y8, Y9
	VMULPS Y9, Y8, Y8
	VMULPS Y24, Y8, Y8       // after
	VALIGND $7, Y24, Y8, Y9  // before
	VMOVUPS Y9, samples_light(DI)
	VCMPPS $1, Y26, Y8, K3
	KMOVB K3, AX
	TESTL AX, AX
	JNZ composite_dark
	VMOVUPS Y7, samples_alpha(DI)
	VMULPS Y9, Y7, Y7
	VFMADD231PS Y2, Y7, Y21
	VFMADD231PS Y1, Y7, Y22
	VFMADD231PS Y3, Y7, Y23
	MOVL $7, AX
	VPBROADCASTD AX, Y9
	VPERMPS Y8, Y9, Y24
	MOVL $8, AX
	CMPQ CX, $8
	CMOVQLT CX, AX
	ADDQ AX, R10
	ADDQ $128, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JG composite_loop
	JMP composite_done

composite_dark:
	// The first lane below minLight is the last that counts.
	BSFL AX, AX
	VPBROADCASTD AX, Y10
	VPERMPS Y8, Y10, Y24
	ADDL $1, AX
	ADDQ AX, R10
	MOVL AX, CX
	MOVL $1, AX
	SHLL CX, AX
	SUBL $1, AX
	KMOVB AX, K1
	VMOVAPS.Z Y7, K1, Y7
	VMOVUPS Y7, samples_alpha(DI)
	VMULPS Y9, Y7, Y7
	VFMADD231PS Y2, Y7, Y21
	VFMADD231PS Y1, Y7, Y22
	VFMADD231PS Y3, Y7, Y23

composite_done:
	VMOVSS X24, 12(DX)
	// sums of the lanes
	VEXTRACTF32X4 $1, Y21, X0
	VADDPS X21, X0, X0
	VEXTRACTF32X4 $1, Y22, X1
	VADDPS X22, X1, X1
	VEXTRACTF32X4 $1, Y23, X2
	VADDPS X23, X2, X2
	VHADDPS X1, X0, X0
	VHADDPS X2, X2, X2
	VHADDPS X2, X0, X0       // r, g, b, b
	VADDSS (DX), X0, X1
	VMOVSS X1, (DX)
	VPSHUFD $1, X0, X1
	VADDSS 4(DX), X1, X1
	VMOVSS X1, 4(DX)
	VPSHUFD $2, X0, X1
	VADDSS 8(DX), X1, X1
	VMOVSS X1, 8(DX)
	MOVQ R10, used+40(FP)
	VZEROUPPER
	RET

// func backwardAVX512(s *samples, count int, ib float32, dc *[4]float32)
TEXT ·backwardAVX512(SB), NOSPLIT, $0-32
	MOVQ s+0(FP), DI
	MOVQ count+8(FP), CX
	MOVQ dc+24(FP), DX
	VBROADCASTSS ib+16(FP), Y31
	VBROADCASTSS const512<>+36(SB), Y30
	VBROADCASTSS const512<>+32(SB), Y29
	VBROADCASTSS const512<>+40(SB), Y28
	VPBROADCASTD const512<>+56(SB), Y27
	VMOVDQU32 join<>(SB), Z26
	VPBROADCASTD const512<>+48(SB), Z25
	VPADDD Z25, Z26, Z25     // the last four samples
	VBROADCASTSS (DX), Y16
	VBROADCASTSS 4(DX), Y17
	VBROADCASTSS 8(DX), Y18
	VBROADCASTSS 12(DX), Y19
	VXORPS Y20, Y20, Y20      // Σ w g of the samples behind
	VXORPS Y21, Y21, Y21      // lane 0: the next sample's share of f's gradient
	VXORPS Y22, Y22, Y22      // lane 0: the next sample's share of the colour's weight
	VXORPS Y23, Y23, Y23      // 0
	// Begin at the last vector.
	MOVQ CX, AX
	SUBQ $1, AX
	ANDQ $-8, AX
	LEAQ const_lead*4(DI)(AX*4), SI
	LEAQ const_lead(AX), R8
	SHLQ $4, R8
	LEAQ samples_gv(DI)(R8*1), R8
	SUBQ AX, CX
	MOVQ AX, R9
	MOVL $1, AX
	SHLL CX, AX
	SUBL $1, AX
	KMOVB AX, K1

backward_loop:
	VMOVUPS.Z samples_alpha(SI), K1, Y0
	VMOVUPS samples_light(SI), Y1
	VMOVUPS samples_phi(SI), Y2
	VMOVDQU32 samples_step(SI), Y3
	VPSUBD samples_step-4(SI), Y3, Y3
	VPCMPEQD Y27, Y3, K2
	// g: the loss by the weight
	VMOVAPS Y19, Y3
	VFMADD231PS samples_mr(SI), Y16, Y3
	VFMADD231PS samples_mg(SI), Y17, Y3
	VFMADD231PS samples_mb(SI), Y18, Y3
	VMULPS Y1, Y0, Y4        // w
	VMULPS Y3, Y4, Y5
	// sums of w g from the back
	VALIGND $1, Y5, Y23, Y6
	VADDPS Y6, Y5, Y5
	VALIGND $2, Y5, Y23, Y6
	VADDPS Y6, Y5, Y5
	VALIGND $4, Y5, Y23, Y6
	VADDPS Y6, Y5, Y5
	VADDPS Y20, Y5, Y5
	VALIGND $1, Y5, Y20, Y6  // behind
	VBROADCASTSS X5, Y20
	VSUBPS Y0, Y30, Y7
	VMAXPS Y28, Y7, Y7       // rest
	VDIVPS Y7, Y6, Y6
	VFMSUB213PS Y6, Y1, Y3   // dα = light·g − behind/rest
	VMULPS Y31, Y3, Y3
	// f's gradient, through the sample's own Φ and the one before
	VSUBPS Y2, Y30, Y8       // 1 − Φ
	VMULPS Y2, Y3, Y9
	VMULPS Y8, Y9, Y9        // a first sample's
	VCMPPS $1, Y0, Y23, K2, K3 // 0 < α and linked
	VMULPS.Z Y7, Y3, K3, Y10
	VMULPS Y8, Y10, K2, Y9   // a linked one's
	VALIGND $1, Y10, Y21, Y11
	VMOVAPS Y10, Y21
	VFNMADD231PS Y11, Y8, Y9
	// colour: half of a linked sample's weight goes to the one before
	VMULPS.Z Y29, Y4, K2, Y10
	VSUBPS Y10, Y4, Y4
	VALIGND $1, Y10, Y22, Y11
	VMOVAPS Y10, Y22
	VADDPS Y11, Y4, Y4
	VMULPS Y16, Y4, Y10
	VMULPS Y17, Y4, Y11
	VMULPS Y18, Y4, Y12
	VINSERTF32X8 $1, Y10, Z9, Z9
	VINSERTF32X8 $1, Y12, Z11, Z11
	VMOVAPS Z9, Z10
	VPERMT2PS Z11, Z26, Z9
	VPERMT2PS Z11, Z25, Z10
	VMOVUPS Z9, (R8)
	VMOVUPS Z10, 64(R8)
	MOVL $0xff, AX
	KMOVB AX, K1
	SUBQ $32, SI
	SUBQ $128, R8
	SUBQ $8, R9
	JGE backward_loop
	VZEROUPPER
	RET

// 1e-12, 2, 3/2, 6
DATA voxel512<>+0(SB)/4, $0x2b8cbccc
DATA voxel512<>+4(SB)/4, $0x40000000
DATA voxel512<>+8(SB)/4, $0x3fc00000
DATA voxel512<>+12(SB)/4, $0x40c00000
GLOBL voxel512<>(SB), RODATA|NOPTR, $16

// NEIGHBOURS puts the f of four voxels' neighbours at four places into the four lanes
// of each voxel.
#define NEIGHBOURS(a, b, c, d, out) \
	VPERMILPS $0, a, out; \
	VPERMILPS $0, b, K1, out; \
	VPERMILPS $0, c, K2, out; \
	VPERMILPS $0, d, K3, out

// func updateAVX512(dst, grid, lap, grad, m, v *float32, n, strideY, strideZ int, p *stepConstants)
// Four voxels a vector; K4 masks the last two of an odd pair. The eikonal term takes
// four differences of each voxel, from itself and from its neighbours at −x, −y and −z,
// in the voxel's four lanes.
TEXT ·updateAVX512(SB), NOSPLIT, $0-80
	MOVQ dst+0(FP), DI
	MOVQ grid+8(FP), SI
	MOVQ lap+16(FP), DX
	MOVQ grad+24(FP), R8
	MOVQ n+48(FP), CX
	MOVQ strideY+56(FP), R9
	MOVQ strideZ+64(FP), R10
	MOVQ p+72(FP), BX
	MOVQ m+32(FP), R13
	MOVQ v+40(FP), R11
	VBROADCASTF32X8 stepConstants_bilaplace(BX), Z31
	VBROADCASTF32X8 stepConstants_laplace(BX), Z30
	VBROADCASTF32X8 stepConstants_eikonal(BX), Z29
	VBROADCASTF32X8 stepConstants_rate(BX), Z28
	VBROADCASTF32X8 stepConstants_low(BX), Z27
	VBROADCASTF32X8 stepConstants_high(BX), Z26
	VBROADCASTSS stepConstants_inverseH(BX), Z25
	VBROADCASTSS stepConstants_bias2(BX), Z24
	VBROADCASTSS stepConstants_beta+0(BX), Z23
	VBROADCASTSS stepConstants_beta+4(BX), Z22
	VBROADCASTSS stepConstants_beta+8(BX), Z21
	VBROADCASTSS stepConstants_beta+12(BX), Z20
	VBROADCASTSS voxel512<>+0(SB), Z19
	VBROADCASTSS voxel512<>+4(SB), Z18
	VBROADCASTSS voxel512<>+8(SB), Z17
	VBROADCASTSS voxel512<>+12(SB), Z16
	VBROADCASTSS const512<>+32(SB), Z15
	VXORPS Z14, Z14, Z14
	MOVL $0x2222, AX
	KMOVW AX, K1
	MOVL $0x4444, AX
	KMOVW AX, K2
	MOVL $0x8888, AX
	KMOVW AX, K3
	MOVL $0xffff, AX
	KMOVW AX, K4
	// Neighbours at −y and −z, of grid and lap.
	MOVQ SI, R12
	SUBQ R9, R12
	MOVQ SI, R14
	SUBQ R10, R14

update512_loop:
	CMPQ CX, $4
	JGE update512_full
	MOVL $0xff, AX
	KMOVW AX, K4

update512_full:
	// gradient of the data term, cleared behind us
	VMOVUPS.Z (R8), K4, Z0
	VMOVUPS Z14, K4, (R8)
	// smoothing
	VMOVUPS.Z (DX), K4, Z2
	VFNMADD231PS Z30, Z2, Z0
	MOVQ DX, AX
	SUBQ R9, AX
	VMOVUPS.Z -16(DX), K4, Z1
	VADDPS.Z 16(DX), Z1, K4, Z1
	VADDPS.Z (AX), Z1, K4, Z1
	VADDPS.Z (DX)(R9*1), Z1, K4, Z1
	MOVQ DX, AX
	SUBQ R10, AX
	VADDPS.Z (AX), Z1, K4, Z1
	VADDPS.Z (DX)(R10*1), Z1, K4, Z1
	VFNMADD231PS Z2, Z16, Z1
	VFMADD231PS Z31, Z1, Z0
	// eikonal
	VMOVUPS.Z (SI), K4, Z13
	NEIGHBOURS((SI), -16(SI), (R12), (R14), Z1)
	NEIGHBOURS(16(SI), (SI), 16(R12), 16(R14), Z2)
	VSUBPS Z1, Z2, Z2
	VMULPS Z25, Z2, Z2
	NEIGHBOURS((SI)(R9*1), -16(SI)(R9*1), (SI), (R14)(R9*1), Z3)
	VSUBPS Z1, Z3, Z3
	VMULPS Z25, Z3, Z3
	NEIGHBOURS((SI)(R10*1), -16(SI)(R10*1), (R12)(R10*1), (SI), Z4)
	VSUBPS Z1, Z4, Z4
	VMULPS Z25, Z4, Z4
	VMULPS Z2, Z2, Z5
	VFMADD231PS Z3, Z3, Z5
	VFMADD231PS Z4, Z4, Z5
	VADDPS Z19, Z5, Z5
	VRSQRT14PS Z5, Z6
	VMULPS Z6, Z6, Z7
	VMULPS Z7, Z5, Z5
	VFNMADD213PS Z17, Z15, Z5 // 3/2 − s·r²/2
	VMULPS Z6, Z5, Z5
	VFNMADD213PS Z18, Z18, Z5 // 2 − 2/|d|
	VADDPS Z2, Z3, Z6
	VADDPS Z4, Z6, Z6
	VSUBPS Z6, Z14, Z6
	VMOVAPS Z2, K1, Z6
	VMOVAPS Z3, K2, Z6
	VMOVAPS Z4, K3, Z6
	VMULPS Z5, Z6, Z6
	VPERMILPS $0xb1, Z6, Z7
	VADDPS Z7, Z6, Z6
	VPERMILPS $0x4e, Z6, Z7
	VADDPS Z7, Z6, Z6
	VFMADD231PS Z29, Z6, Z0
	// Adam
	VMULPS Z0, Z0, Z3
	VMULPS Z22, Z0, Z0
	VMOVUPS.Z (R13), K4, Z1
	VFMADD231PS Z23, Z1, Z0
	VMOVUPS Z0, K4, (R13)
	VMULPS Z20, Z3, Z3
	VMOVUPS.Z (R11), K4, Z1
	VFMADD231PS Z21, Z1, Z3
	VMOVUPS Z3, K4, (R11)
	VSQRTPS Z3, Z3
	VFMADD213PS Z19, Z24, Z3
	VMULPS Z28, Z0, Z0
	VDIVPS Z3, Z0, Z0
	VSUBPS Z0, Z13, Z13
	VMAXPS Z27, Z13, Z13
	VMINPS Z26, Z13, Z13
	VMOVUPS Z13, K4, (DI)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, R12
	ADDQ $64, R14
	ADDQ $64, DX
	ADDQ $64, R8
	ADDQ $64, R13
	ADDQ $64, R11
	SUBQ $4, CX
	JG update512_loop
	VZEROUPPER
	RET
