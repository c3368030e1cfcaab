#include "go_asm.h"
#include "textflag.h"

// Samples are four floats, so two neighbours along x fill one 256-bit register: a
// trilinear cell is four loads. Operand order is Go's: VSUBPS a, b, c is c = b − a,
// VFMADD231PS a, b, c is c += a·b.

// func gatherAVX2(s *samples, grid *float32, at, n, strideY, strideZ int)
TEXT ·gatherAVX2(SB), NOSPLIT, $0-48
	MOVQ s+0(FP), DI
	MOVQ grid+8(FP), SI
	MOVQ at+16(FP), DX
	MOVQ n+24(FP), CX
	MOVQ strideY+32(FP), R9
	MOVQ strideZ+40(FP), R10
	MOVQ DX, R8
	SHLQ $4, R8
	LEAQ samples_val(DI)(R8*1), R8
	LEAQ (DI)(DX*4), DI

gather_loop:
	MOVLQSX samples_idx(DI), AX
	SHLQ $4, AX
	ADDQ SI, AX
	LEAQ (AX)(R10*1), BX
	VMOVUPS (AX), Y0
	VMOVUPS (AX)(R9*1), Y1
	VMOVUPS (BX), Y2
	VMOVUPS (BX)(R9*1), Y3
	VBROADCASTSS samples_fy(DI), Y4
	VBROADCASTSS samples_fz(DI), Y5
	VBROADCASTSS samples_fx(DI), X6
	VSUBPS Y0, Y1, Y1
	VFMADD231PS Y4, Y1, Y0
	VSUBPS Y2, Y3, Y3
	VFMADD231PS Y4, Y3, Y2
	VSUBPS Y0, Y2, Y2
	VFMADD231PS Y5, Y2, Y0
	VEXTRACTF128 $1, Y0, X1
	VSUBPS X0, X1, X1
	VFMADD231PS X6, X1, X0
	VMOVUPS X0, (R8)
	ADDQ $16, R8
	ADDQ $4, DI
	DECQ CX
	JNZ gather_loop
	VZEROUPPER
	RET

// func scatterAVX2(grad *float32, s *samples, n, strideY, strideZ int)
TEXT ·scatterAVX2(SB), NOSPLIT, $0-40
	MOVQ grad+0(FP), SI
	MOVQ s+8(FP), DI
	MOVQ n+16(FP), CX
	MOVQ strideY+24(FP), R9
	MOVQ strideZ+32(FP), R10
	LEAQ samples_gv+(const_lead*16)(DI), R8
	ADDQ $(const_lead*4), DI

scatter_loop:
	MOVLQSX samples_idx(DI), AX
	SHLQ $4, AX
	ADDQ SI, AX
	LEAQ (AX)(R10*1), BX
	VMOVUPS (R8), X0
	VBROADCASTSS samples_fx(DI), X1
	VBROADCASTSS samples_fy(DI), Y4
	VBROADCASTSS samples_fz(DI), Y5
	VMULPS X1, X0, X2
	VSUBPS X2, X0, X0
	VINSERTF128 $1, X2, Y0, Y0
	VMULPS Y5, Y0, Y2        // upper z
	VSUBPS Y2, Y0, Y0        // lower z
	VMULPS Y4, Y0, Y1
	VSUBPS Y1, Y0, Y0
	VMULPS Y4, Y2, Y3
	VSUBPS Y3, Y2, Y2
	VADDPS (AX), Y0, Y0
	VMOVUPS Y0, (AX)
	VADDPS (AX)(R9*1), Y1, Y1
	VMOVUPS Y1, (AX)(R9*1)
	VADDPS (BX), Y2, Y2
	VMOVUPS Y2, (BX)
	VADDPS (BX)(R9*1), Y3, Y3
	VMOVUPS Y3, (BX)(R9*1)
	ADDQ $16, R8
	ADDQ $4, DI
	DECQ CX
	JNZ scatter_loop
	VZEROUPPER
	RET

DATA lanes<>+0(SB)/4, $0
DATA lanes<>+4(SB)/4, $4
DATA lanes<>+8(SB)/4, $8
DATA lanes<>+12(SB)/4, $12
DATA lanes<>+16(SB)/4, $16
DATA lanes<>+20(SB)/4, $20
DATA lanes<>+24(SB)/4, $24
DATA lanes<>+28(SB)/4, $28
GLOBL lanes<>(SB), RODATA|NOPTR, $32

// 80, −80, log2(e), ln2 high, ln2 low, 1/120, 1/24, 1/6, 1/2, 1, 1e-12, 6, 2
DATA consts<>+0(SB)/4, $0x42a00000
DATA consts<>+4(SB)/4, $0xc2a00000
DATA consts<>+8(SB)/4, $0x3fb8aa3b
DATA consts<>+12(SB)/4, $0x3f317200
DATA consts<>+16(SB)/4, $0x35bfbe8e
DATA consts<>+20(SB)/4, $0x3c088889
DATA consts<>+24(SB)/4, $0x3d2aaaab
DATA consts<>+28(SB)/4, $0x3e2aaaab
DATA consts<>+32(SB)/4, $0x3f000000
DATA consts<>+36(SB)/4, $0x3f800000
DATA consts<>+40(SB)/4, $0x2b8cbccc
DATA consts<>+44(SB)/4, $0x40c00000
DATA consts<>+48(SB)/4, $0x40000000
GLOBL consts<>(SB), RODATA|NOPTR, $52

// func occlusionAVX2(dst, samples *float32, n int, scale float32)
// exp by the polynomial of degree 5 around zero after removing powers of two.
TEXT ·occlusionAVX2(SB), NOSPLIT, $0-28
	MOVQ dst+0(FP), DI
	MOVQ samples+8(FP), SI
	MOVQ n+16(FP), CX
	VBROADCASTSS scale+24(FP), Y15
	VMOVDQU lanes<>(SB), Y14
	VBROADCASTSS consts<>+36(SB), Y13

occlusion_loop:
	VPCMPEQD Y2, Y2, Y2
	VGATHERDPS Y2, (SI)(Y14*4), Y0
	VMULPS Y15, Y0, Y0
	VBROADCASTSS consts<>+0(SB), Y1
	VMINPS Y1, Y0, Y0
	VBROADCASTSS consts<>+4(SB), Y1
	VMAXPS Y1, Y0, Y0
	VBROADCASTSS consts<>+8(SB), Y1
	VMULPS Y1, Y0, Y2
	VROUNDPS $0, Y2, Y2
	VBROADCASTSS consts<>+12(SB), Y1
	VFNMADD231PS Y1, Y2, Y0
	VBROADCASTSS consts<>+16(SB), Y1
	VFNMADD231PS Y1, Y2, Y0
	VBROADCASTSS consts<>+20(SB), Y3
	VBROADCASTSS consts<>+24(SB), Y1
	VFMADD213PS Y1, Y0, Y3
	VBROADCASTSS consts<>+28(SB), Y1
	VFMADD213PS Y1, Y0, Y3
	VBROADCASTSS consts<>+32(SB), Y1
	VFMADD213PS Y1, Y0, Y3
	VFMADD213PS Y13, Y0, Y3
	VFMADD213PS Y13, Y0, Y3
	VCVTPS2DQ Y2, Y2
	VPSLLD $23, Y2, Y2
	VPADDD Y2, Y3, Y3
	VADDPS Y13, Y3, Y3
	VDIVPS Y3, Y13, Y3
	VMOVUPS Y3, (DI)
	ADDQ $128, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JG occlusion_loop
	VZEROUPPER
	RET

// func laplacianAVX2(dst, grid *float32, n, strideY, strideZ int)
TEXT ·laplacianAVX2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ grid+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ strideY+24(FP), R9
	MOVQ strideZ+32(FP), R10
	MOVQ SI, R11
	SUBQ R9, R11
	MOVQ SI, R12
	SUBQ R10, R12
	VBROADCASTSS consts<>+44(SB), Y7

laplacian_loop:
	VMOVUPS -16(SI), Y0
	VADDPS 16(SI), Y0, Y0
	VADDPS (R11), Y0, Y0
	VADDPS (SI)(R9*1), Y0, Y0
	VADDPS (R12), Y0, Y0
	VADDPS (SI)(R10*1), Y0, Y0
	VFNMADD231PS (SI), Y7, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, R11
	ADDQ $32, R12
	ADDQ $32, DI
	SUBQ $2, CX
	JG laplacian_loop
	VZEROUPPER
	RET

// func mergeAVX2(dst, src *float32, n int)
TEXT ·mergeAVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	VXORPS Y1, Y1, Y1

merge_loop:
	VMOVUPS (SI), Y0
	VADDPS (DI), Y0, Y0
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, (SI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JG merge_loop
	VZEROUPPER
	RET

// FACTOR: out = 2 − 2/sqrt(a² + b² + c² + 1e-12), with one Newton step on the
// estimate of the reciprocal root. Clobbers t. Y13 = 1e-12, Y12 = 0.5, Y11 = 2,
// three halves come from 1.5 = 2 − 0.5 folded into the constants below.
#define FACTOR(a, b, c, out, t) \
	VMULPS a, a, out \
	VFMADD231PS b, b, out \
	VFMADD231PS c, c, out \
	VADDPS Y13, out, out \
	VRSQRTPS out, t \
	VMULPS t, t, Y10 \
	VMULPS Y10, out, out \
	VFNMADD213PS Y9, Y12, out \
	VMULPS t, out, out \
	VFNMADD213PS Y11, Y11, out

// func updateAVX2(dst, grid, lap, grad, m, v *float32, n, strideY, strideZ int, p *stepConstants)
TEXT ·updateAVX2(SB), NOSPLIT, $0-80
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
	VBROADCASTSS consts<>+40(SB), Y13
	VBROADCASTSS consts<>+32(SB), Y12
	VBROADCASTSS consts<>+48(SB), Y11
	VSUBPS Y12, Y11, Y9      // 1.5

update_loop:
	// gradient of the data term, cleared behind us
	VMOVUPS (R8), Y0
	VXORPS Y1, Y1, Y1
	VMOVUPS Y1, (R8)
	// smoothing
	VMOVUPS (DX), Y2
	VFNMADD231PS 32(BX), Y2, Y0
	MOVQ DX, R12
	SUBQ R9, R12
	VMOVUPS -16(DX), Y1
	VADDPS 16(DX), Y1, Y1
	VADDPS (R12), Y1, Y1
	VADDPS (DX)(R9*1), Y1, Y1
	MOVQ DX, R12
	SUBQ R10, R12
	VADDPS (R12), Y1, Y1
	VADDPS (DX)(R10*1), Y1, Y1
	VBROADCASTSS consts<>+44(SB), Y3
	VFNMADD231PS Y2, Y3, Y1
	VFMADD231PS (BX), Y1, Y0
	// eikonal: Y8 gathers the sum
	VMOVUPS 192(BX), Y15     // 1/h
	VMOVUPS (SI), Y14        // c
	VMOVUPS 16(SI), Y1
	VSUBPS Y14, Y1, Y1
	VMULPS Y15, Y1, Y1
	VMOVUPS (SI)(R9*1), Y2
	VSUBPS Y14, Y2, Y2
	VMULPS Y15, Y2, Y2
	VMOVUPS (SI)(R10*1), Y3
	VSUBPS Y14, Y3, Y3
	VMULPS Y15, Y3, Y3
	FACTOR(Y1, Y2, Y3, Y4, Y5)
	VADDPS Y1, Y2, Y2
	VADDPS Y3, Y2, Y2
	VXORPS Y8, Y8, Y8
	VFNMADD231PS Y4, Y2, Y8
	// from x − 1
	VMOVUPS -16(SI), Y6
	VSUBPS Y6, Y14, Y1
	VMULPS Y15, Y1, Y1
	VMOVUPS -16(SI)(R9*1), Y2
	VSUBPS Y6, Y2, Y2
	VMULPS Y15, Y2, Y2
	VMOVUPS -16(SI)(R10*1), Y3
	VSUBPS Y6, Y3, Y3
	VMULPS Y15, Y3, Y3
	FACTOR(Y1, Y2, Y3, Y4, Y5)
	VFMADD231PS Y4, Y1, Y8
	// from y − 1
	MOVQ SI, R12
	SUBQ R9, R12
	VMOVUPS (R12), Y6
	VSUBPS Y6, Y14, Y1
	VMULPS Y15, Y1, Y1
	VMOVUPS 16(R12), Y2
	VSUBPS Y6, Y2, Y2
	VMULPS Y15, Y2, Y2
	VMOVUPS (R12)(R10*1), Y3
	VSUBPS Y6, Y3, Y3
	VMULPS Y15, Y3, Y3
	FACTOR(Y1, Y2, Y3, Y4, Y5)
	VFMADD231PS Y4, Y1, Y8
	// from z − 1
	MOVQ SI, R12
	SUBQ R10, R12
	VMOVUPS (R12), Y6
	VSUBPS Y6, Y14, Y1
	VMULPS Y15, Y1, Y1
	VMOVUPS 16(R12), Y2
	VSUBPS Y6, Y2, Y2
	VMULPS Y15, Y2, Y2
	VMOVUPS (R12)(R9*1), Y3
	VSUBPS Y6, Y3, Y3
	VMULPS Y15, Y3, Y3
	FACTOR(Y1, Y2, Y3, Y4, Y5)
	VFMADD231PS Y4, Y1, Y8
	VFMADD231PS 64(BX), Y8, Y0
	// Adam
	VMULPS Y0, Y0, Y3
	VBROADCASTSS 260(BX), Y1
	VMULPS Y1, Y0, Y0
	VBROADCASTSS 256(BX), Y1
	VFMADD231PS (R13), Y1, Y0
	VMOVUPS Y0, (R13)
	VBROADCASTSS 268(BX), Y1
	VMULPS Y1, Y3, Y3
	VBROADCASTSS 264(BX), Y1
	VFMADD231PS (R11), Y1, Y3
	VMOVUPS Y3, (R11)
	VSQRTPS Y3, Y3
	VMULPS 224(BX), Y3, Y3
	VADDPS Y13, Y3, Y3
	VMULPS 96(BX), Y0, Y0
	VDIVPS Y3, Y0, Y0
	VSUBPS Y0, Y14, Y14
	VMAXPS 128(BX), Y14, Y14
	VMINPS 160(BX), Y14, Y14
	VMOVUPS Y14, (DI)
	ADDQ $32, DI
	ADDQ $32, SI
	ADDQ $32, DX
	ADDQ $32, R8
	ADDQ $32, R13
	ADDQ $32, R11
	SUBQ $2, CX
	JG update_loop
	VZEROUPPER
	RET
