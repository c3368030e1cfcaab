package main

import (
	"bytes"
	"fmt"
)

// tile: a block of outputs, C = bias + Σ over taps and channels A·B (+ residual).
//
// The rows of A are addressed one by one and read by broadcasts, so that
// neither a matrix nor the pixels under a convolution kernel need packing. The
// panel of B holds the bias and then 2·width outputs for each k. Registers: rows
// in twelve (six) general registers, SI runs over the bytes of the channels of a
// tap, DI over the panel.
func (s isa) tile(b *bytes.Buffer) {
	e := s.function(b, "tile", "see type tile", 32)
	rows := []string{"R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15", "BX", "CX", "DX", "AX"}[:s.tileRows]
	if s.tileRows == 6 {
		rows = []string{"R8", "R9", "R10", "R11", "R12", "R13"}
	}
	bytesB := 8 * s.width // of one k of the panel
	// Layout of type tile: rows [12]; c 96, ldc 104, b 112, taps 120, ntaps 128, k 136, res 144, ldres 152.
	e.op("MOVQ 112(AX), DI")
	e.op("MOVQ 120(AX), SI")
	e.op("MOVQ SI, tap-8(SP)")
	e.op("MOVQ 128(AX), SI")
	e.op("MOVQ SI, left-16(SP)")
	e.op("MOVQ 136(AX), SI")
	e.op("MOVQ SI, depth-24(SP)")
	acc := func(i, j int) string { return s.r(2*i + j) }
	e.op("VMOVUPS (DI), %s", acc(0, 0))
	e.op("VMOVUPS %d(DI), %s", 4*s.width, acc(0, 1))
	for i := 1; i < s.tileRows; i++ {
		e.op("VMOVAPS %s, %s", acc(0, 0), acc(i, 0))
		e.op("VMOVAPS %s, %s", acc(0, 1), acc(i, 1))
	}
	e.op("ADDQ $%d, DI", bytesB)
	for i := range rows {
		e.op("MOVQ %d(AX), %s", 8*i, rows[i])
	}
	b0, b1, bc := s.r(2*s.tileRows), s.r(2*s.tileRows+1), 2*s.tileRows+2
	e.label("nexttap")
	e.op("MOVQ tap-8(SP), SI")
	e.op("ADDQ $8, tap-8(SP)")
	e.op("MOVQ (SI), SI")
	e.op("MOVQ depth-24(SP), BP")
	e.op("ADDQ SI, BP")
	e.label("deeper")
	e.op("VMOVUPS (DI), %s", b0)
	e.op("VMOVUPS %d(DI), %s", 4*s.width, b1)
	for i, r := range rows {
		x := s.r(bc + i%s.broadcast)
		e.op("VBROADCASTSS (%s)(SI*1), %s", r, x)
		e.op("VFMADD231PS %s, %s, %s", b0, x, acc(i, 0))
		e.op("VFMADD231PS %s, %s, %s", b1, x, acc(i, 1))
	}
	e.op("ADDQ $%d, DI", bytesB)
	e.op("ADDQ $4, SI")
	e.op("CMPQ SI, BP")
	e.op("JLT deeper")
	e.op("DECQ left-16(SP)")
	e.op("JNZ nexttap")
	e.op("MOVQ args+0(FP), AX")
	e.op("MOVQ 96(AX), DI")
	e.op("MOVQ 104(AX), R8")
	e.op("MOVQ 144(AX), SI")
	e.op("MOVQ 152(AX), R9")
	e.op("TESTQ SI, SI")
	e.op("JZ store")
	for i := range rows {
		e.op("VADDPS (SI), %s, %s", acc(i, 0), acc(i, 0))
		e.op("VADDPS %d(SI), %s, %s", 4*s.width, acc(i, 1), acc(i, 1))
		e.op("ADDQ R9, SI")
	}
	e.label("store")
	for i := range rows {
		e.op("VMOVUPS %s, (DI)", acc(i, 0))
		e.op("VMOVUPS %s, %d(DI)", acc(i, 1), 4*s.width)
		e.op("ADDQ R8, DI")
	}
	e.end()
}

// sums: a[c] += Σ rows x, b[c] += Σ rows x².
func (s isa) sums(b *bytes.Buffer) {
	e := s.function(b, "sums", "a += Σ src, b += Σ src² over rows", 0)
	e.rowSetup()
	x, y := s.r(4), s.r(5)
	e.columns("column", func() {
		for i := range 4 {
			e.zero(i)
		}
		e.op("MOVQ SI, DI")
		e.op("MOVQ DX, BX")
		l := "rows"
		if e.mask {
			l = "rowsmasked"
		}
		e.op("SHRQ $1, BX")
		e.op("JZ %sodd", l)
		e.label(l)
		e.load("(DI)(R9*1)", x)
		e.op("ADDQ R13, DI")
		e.load("(DI)(R9*1)", y)
		e.op("ADDQ R13, DI")
		e.op("VADDPS %s, %s, %s", x, s.r(0), s.r(0))
		e.op("VFMADD231PS %s, %s, %s", x, x, s.r(1))
		e.op("VADDPS %s, %s, %s", y, s.r(2), s.r(2))
		e.op("VFMADD231PS %s, %s, %s", y, y, s.r(3))
		e.op("DECQ BX")
		e.op("JNZ %s", l)
		e.label(l + "odd")
		e.op("TESTQ $1, DX")
		e.op("JZ %send", l)
		e.load("(DI)(R9*1)", x)
		e.op("VADDPS %s, %s, %s", x, s.r(0), s.r(0))
		e.op("VFMADD231PS %s, %s, %s", x, x, s.r(1))
		e.label(l + "end")
		e.op("VADDPS %s, %s, %s", s.r(2), s.r(0), s.r(0))
		e.op("VADDPS %s, %s, %s", s.r(3), s.r(1), s.r(1))
		for i, p := range []string{"(R10)(R9*1)", "(R11)(R9*1)"} {
			e.load(p, x)
			e.op("VADDPS %s, %s, %s", x, s.r(i), s.r(i))
			e.store(s.r(i), p)
		}
	})
	e.end()
}

// layerNorm: each row minus its mean, by its deviation, times a, plus b.
func (s isa) layerNorm(b *bytes.Buffer) {
	e := s.function(b, "layerNorm", "dst = (src - mean)/√(var + eps)·a + b; inv is 1/columns", 0)
	e.rowSetup()
	e.label("row")
	e.zero(0)
	e.columns("mean", func() {
		e.load("(SI)(R9*1)", s.r(1))
		e.op("VADDPS %s, %s, %s", s.r(1), s.r(0), s.r(0))
	})
	e.across("ADD", 0, 1)
	e.op("VMULSS 68(AX), X0, X0")
	e.op("VBROADCASTSS X0, %s", s.r(2))
	e.zero(0)
	e.columns("deviation", func() {
		e.load("(SI)(R9*1)", s.r(1))
		if e.mask { // lanes beyond the row must stay zero
			e.op("VSUBPS.Z %s, %s, K1, %s", s.r(2), s.r(1), s.r(1))
		} else {
			e.op("VSUBPS %s, %s, %s", s.r(2), s.r(1), s.r(1))
		}
		e.op("VFMADD231PS %s, %s, %s", s.r(1), s.r(1), s.r(0))
	})
	e.across("ADD", 0, 1)
	e.op("VMULSS 68(AX), X0, X0")
	e.op("VADDSS 64(AX), X0, X0")
	e.op("VSQRTSS X0, X0, X0")
	e.op("VMOVSS %s, X1", k("one"))
	e.op("VDIVSS X0, X1, X0")
	e.op("VBROADCASTSS X0, %s", s.r(3))
	e.columns("apply", func() {
		e.load("(SI)(R9*1)", s.r(1))
		e.load("(R10)(R9*1)", s.r(4))
		e.load("(R11)(R9*1)", s.r(5))
		e.op("VSUBPS %s, %s, %s", s.r(2), s.r(1), s.r(1))
		e.op("VMULPS %s, %s, %s", s.r(3), s.r(1), s.r(1))
		e.op("VFMADD213PS %s, %s, %s", s.r(5), s.r(4), s.r(1))
		e.store(s.r(1), "(DI)(R9*1)")
	})
	e.nextRow("row")
	e.end()
}

// softmax: one block of keys of a running softmax. Columns are whole registers.
func (s isa) softmax(b *bytes.Buffer) {
	e := s.function(b, "softmax", "for each row: m = max(a, eps·max src); src = exp(eps·src - m); dst = a - m; a = m; b = Σ src", 0)
	e.rowSetup()
	e.op("VBROADCASTSS 64(AX), %s", s.r(7))
	e.label("row")
	e.op("VMOVUPS (SI), %s", s.r(0))
	e.columns("largest", func() {
		e.op("VMAXPS (SI)(R9*1), %s, %s", s.r(0), s.r(0))
	})
	e.across("MAX", 0, 1)
	e.op("VMULSS X7, X0, X0")
	e.op("VMOVSS (R10), X1")
	e.op("VMAXSS X1, X0, X0")
	e.op("VSUBSS X0, X1, X1")
	e.op("VMOVSS X1, (DI)")
	e.op("VMOVSS X0, (R10)")
	e.op("VBROADCASTSS X0, %s", s.r(6))
	e.zero(5)
	e.columns("power", func() {
		e.op("VMOVUPS (SI)(R9*1), %s", s.r(1))
		e.op("VFMSUB213PS %s, %s, %s", s.r(6), s.r(7), s.r(1))
		e.exp(s.r(1), s.r(2), s.r(3))
		e.op("VADDPS %s, %s, %s", s.r(3), s.r(5), s.r(5))
		e.op("VMOVUPS %s, (SI)(R9*1)", s.r(3))
	})
	e.across("ADD", 5, 1)
	e.op("VMOVSS X5, (R11)")
	e.op("ADDQ $4, DI")
	e.op("ADDQ $4, R10")
	e.op("ADDQ $4, R11")
	e.op("ADDQ R13, SI")
	e.op("DECQ DX")
	e.op("JNZ row")
	e.end()
}

// rowKernels are the elementwise ones.
func (s isa) rowKernels(b *bytes.Buffer) {
	x, t, n, p, d := s.r(0), s.r(1), s.r(2), s.r(3), s.r(4)
	for _, f := range []struct {
		name, doc string
		body      func(e *emitter)
	}{
		{"affine", "dst = src·a + b", func(e *emitter) {
			e.load("(R10)(R9*1)", t)
			e.load("(R11)(R9*1)", n)
			e.op("VFMADD213PS %s, %s, %s", n, t, x)
		}},
		{"affineSilu", "dst = silu(src·a + b)", func(e *emitter) {
			e.load("(R10)(R9*1)", t)
			e.load("(R11)(R9*1)", n)
			e.op("VFMADD213PS %s, %s, %s", n, t, x)
			e.silu(x, t, n, p)
		}},
		{"silu", "dst = silu(src)", func(e *emitter) { e.silu(x, t, n, p) }},
		{"gelu", "dst = gelu(src)", func(e *emitter) { e.gelu(x, t, n, p, d) }},
		{"exp", "dst = exp(src)", func(e *emitter) {
			e.exp(x, n, p)
			e.op("VMOVAPS %s, %s", p, x)
		}},
		{"geglu", "dst = src·gelu(a); a moves on by aPitch a row", func(e *emitter) {
			e.load("(R10)(R9*1)", s.r(5))
			e.gelu(s.r(5), t, n, p, d)
			e.op("VMULPS %s, %s, %s", s.r(5), x, x)
		}},
		{"addTo", "dst += src", func(e *emitter) {
			e.load("(DI)(R9*1)", t)
			e.op("VADDPS %s, %s, %s", t, x, x)
		}},
	} {
		e := s.function(b, f.name, f.doc, 0)
		e.rowSetup()
		if f.name == "geglu" {
			e.op("MOVQ 72(AX), R11")
		}
		e.label("row")
		e.columns("column", func() {
			e.load("(SI)(R9*1)", x)
			f.body(e)
			e.store(x, "(DI)(R9*1)")
		})
		if f.name == "geglu" {
			e.op("ADDQ R11, R10")
		}
		e.nextRow("row")
		e.end()
	}
	if s.wide() {
		fmt.Fprintf(b, "// pause: spins without hurting the sibling.\nTEXT ·pause(SB), NOSPLIT, $0-0\n\tMOVL $10, AX\nagain:\n\tPAUSE\n\tDECL AX\n\tJNZ again\n\tRET\n")
		b.WriteString("\n")
	}
}
