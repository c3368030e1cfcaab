package main

import (
	"bytes"
	"fmt"
	"math"
)

func bits(f float32) uint32 { return math.Float32bits(f) }

// emitter writes one function.
type emitter struct {
	isa
	b    *bytes.Buffer
	mask bool // use the tail mask K1 on the elements of columns
}

func (s isa) function(b *bytes.Buffer, name, doc string, frame int) *emitter {
	fmt.Fprintf(b, "// %s%s: %s\nTEXT ·%s%s(SB), NOSPLIT, $%d-8\n\tMOVQ args+0(FP), AX\n", name, s.name, doc, name, s.name, frame)
	return &emitter{isa: s, b: b}
}

func (e *emitter) op(format string, args ...any) { fmt.Fprintf(e.b, "\t"+format+"\n", args...) }

func (e *emitter) label(name string) { fmt.Fprintf(e.b, "%s:\n", name) }

func (e *emitter) end() { e.b.WriteString("\tVZEROUPPER\n\tRET\n\n") }

func (e *emitter) load(mem, reg string) {
	if e.mask {
		e.op("VMOVUPS.Z %s, K1, %s", mem, reg)
	} else {
		e.op("VMOVUPS %s, %s", mem, reg)
	}
}

func (e *emitter) store(reg, mem string) {
	if e.mask {
		e.op("VMOVUPS %s, K1, %s", reg, mem)
	} else {
		e.op("VMOVUPS %s, %s", reg, mem)
	}
}

func (e *emitter) zero(i int) {
	if e.wide() {
		e.op("VPXORQ %s, %s, %s", e.r(i), e.r(i), e.r(i))
	} else {
		e.op("VPXOR %s, %s, %s", e.r(i), e.r(i), e.r(i))
	}
}

// exp: out = e^x; x and n are spent. x may exceed neither side's clamp harmlessly.
func (e *emitter) exp(x, n, out string) {
	e.op("VMAXPS %s, %s, %s", k("lowest"), x, x)
	e.op("VMULPS %s, %s, %s", k("log2e"), x, n)
	if e.wide() {
		e.op("VRNDSCALEPS $0, %s, %s", n, n)
	} else {
		// The exponent is built as an integer, which must not fall below -126.
		e.op("VROUNDPS $0, %s, %s", n, n)
	}
	e.op("VFNMADD231PS %s, %s, %s", k("ln2hi"), n, x)
	e.op("VFNMADD231PS %s, %s, %s", k("ln2lo"), n, x)
	e.op("VMOVUPS %s, %s", k("e7"), out)
	for _, c := range []string{"e6", "e5", "e4", "e3", "e2", "one", "one"} {
		e.op("VFMADD213PS %s, %s, %s", k(c), x, out)
	}
	if e.wide() {
		e.op("VSCALEFPS %s, %s, %s", n, out, out)
		return
	}
	// 2^n for n < -126 becomes 0: the biased exponent is clamped from below.
	e.op("VCVTPS2DQ %s, %s", n, n)
	e.op("VPADDD %s, %s, %s", k("bias"), n, n)
	e.op("VPXOR %s, %s, %s", x, x, x)
	e.op("VPMAXSD %s, %s, %s", x, n, n)
	e.op("VPSLLD $23, %s, %s", n, n)
	e.op("VMULPS %s, %s, %s", n, out, out)
}

// sigmoid-weighted: x becomes x/(1+e^-x); t, n, p are spent.
func (e *emitter) silu(x, t, n, p string) {
	if e.wide() {
		e.op("VPXORQ %s, %s, %s", t, t, t)
	} else {
		e.op("VPXOR %s, %s, %s", t, t, t)
	}
	e.op("VSUBPS %s, %s, %s", x, t, t)
	e.op("VMINPS %s, %s, %s", k("highest"), t, t)
	e.exp(t, n, p)
	e.op("VADDPS %s, %s, %s", k("one"), p, p)
	if e.wide() {
		// Reciprocal estimate and one Newton step instead of a division.
		e.op("VRCP14PS %s, %s", p, t)
		e.op("VMOVUPS %s, %s", k("one"), n)
		e.op("VFNMADD231PS %s, %s, %s", t, p, n)
		e.op("VFMADD231PS %s, %s, %s", t, n, t)
		e.op("VMULPS %s, %s, %s", t, x, x)
	} else {
		e.op("VDIVPS %s, %s, %s", p, x, x)
	}
}

// gelu: x becomes x·(1+erf(x/√2))/2; z, q, p, d are spent.
func (e *emitter) gelu(x, z, q, p, d string) {
	e.op("VMULPS %s, %s, %s", k("rsqrt2"), x, z)
	e.op("VMINPS %s, %s, %s", k("erfmax"), z, z)
	e.op("VMAXPS %s, %s, %s", k("erfmin"), z, z)
	e.op("VMULPS %s, %s, %s", z, z, q)
	e.op("VMOVUPS %s, %s", k("a6"), p)
	for _, c := range []string{"a5", "a4", "a3", "a2", "a1", "a0"} {
		e.op("VFMADD213PS %s, %s, %s", k(c), q, p)
	}
	e.op("VMOVUPS %s, %s", k("b4"), d)
	for _, c := range []string{"b3", "b2", "b1", "b0"} {
		e.op("VFMADD213PS %s, %s, %s", k(c), q, d)
	}
	e.op("VMULPS %s, %s, %s", z, p, p)
	e.op("VDIVPS %s, %s, %s", d, p, p)
	e.op("VADDPS %s, %s, %s", k("one"), p, p)
	e.op("VMULPS %s, %s, %s", k("half"), p, p)
	e.op("VMULPS %s, %s, %s", p, x, x)
}

// across reduces a register to its first lane with ADD or MAX; t is spent.
func (e *emitter) across(op string, x, t int) {
	if e.wide() {
		e.op("VEXTRACTF64X4 $1, Z%d, Y%d", x, t)
		e.op("V%sPS Y%d, Y%d, Y%d", op, t, x, x)
	}
	e.op("VEXTRACTF128 $1, Y%d, X%d", x, t)
	e.op("V%sPS X%d, X%d, X%d", op, t, x, x)
	e.op("VPERMILPS $0x4e, X%d, X%d", x, t)
	e.op("V%sPS X%d, X%d, X%d", op, t, x, x)
	e.op("VPERMILPS $0xb1, X%d, X%d", x, t)
	e.op("V%sPS X%d, X%d, X%d", op, t, x, x)
}

// columns runs body for each register of the CX columns at byte offset R9, the
// rest under mask K1. Setup must have run. AVX2 takes whole registers only.
func (e *emitter) columns(label string, body func()) {
	e.op("XORQ R9, R9")
	e.op("CMPQ R9, R8")
	e.op("JGE %stail", label)
	e.label(label)
	body()
	e.op("ADDQ $%d, R9", 4*e.width)
	e.op("CMPQ R9, R8")
	e.op("JLT %s", label)
	e.label(label + "tail")
	if e.wide() {
		e.op("TESTQ CX, CX")
		e.op("JZ %sdone", label)
		e.mask = true
		body()
		e.mask = false
		e.label(label + "done")
	}
}

// rowSetup loads the fields of rowArgs: DI, R12 destination and its pitch, SI,
// R13 source and its pitch, DX rows, R10 and R11 the operands a and b. R8 is
// the size of the columns in whole registers in bytes, CX the number of the rest.
func (e *emitter) rowSetup() {
	for i, r := range []string{"DI", "R12", "SI", "R13", "DX", "CX", "R10", "R11"} {
		e.op("MOVQ %d(AX), %s", 8*i, r)
	}
	e.op("MOVQ CX, R8")
	e.op("ANDQ $-%d, R8", e.width)
	e.op("SHLQ $2, R8")
	if e.wide() {
		e.op("ANDQ $15, CX")
		e.op("MOVQ $1, BX")
		e.op("SHLQ CX, BX")
		e.op("DECQ BX")
		e.op("KMOVW BX, K1")
	}
}

func (e *emitter) nextRow(label string) {
	e.op("ADDQ R12, DI")
	e.op("ADDQ R13, SI")
	e.op("DECQ DX")
	e.op("JNZ %s", label)
}
