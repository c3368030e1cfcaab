package main

import "bytes"

// winogradIn takes 4×4 patches d to Bᵀ d B (Lavin and Gray 2015, F(2×2, 3×3)): the
// sixteen results of a patch go to sixteen planes. A row of rowArgs is a patch;
// aPitch is the distance of pixel rows, bPitch of pixels, cPitch of planes.
func (s isa) winogradIn(b *bytes.Buffer) {
	e := s.function(b, "winogradIn", "dst planes = Bᵀ src B", 0)
	e.rowSetup()
	e.op("MOVQ 72(AX), R10")
	e.op("MOVQ 80(AX), R11")
	e.op("MOVQ 88(AX), R15")
	e.op("LEAQ (R11)(R11*2), R14")
	t := func(i, j int) string { return s.r(4*i + j) }
	d := []string{s.r(16), s.r(17), s.r(18), s.r(19)}
	e.label("row")
	e.columns("column", func() {
		e.op("LEAQ (SI)(R9*1), BX")
		for i := range 4 {
			for j, m := range []string{"(BX)", "(BX)(R11*1)", "(BX)(R11*2)", "(BX)(R14*1)"} {
				e.load(m, d[j])
			}
			e.op("VSUBPS %s, %s, %s", d[2], d[0], t(i, 0))
			e.op("VADDPS %s, %s, %s", d[2], d[1], t(i, 1))
			e.op("VSUBPS %s, %s, %s", d[1], d[2], t(i, 2))
			e.op("VSUBPS %s, %s, %s", d[3], d[1], t(i, 3))
			if i < 3 {
				e.op("ADDQ R10, BX")
			}
		}
		e.op("LEAQ (DI)(R9*1), BX")
		for i := range 4 {
			for j := range 4 {
				x := d[j]
				switch i {
				case 0:
					e.op("VSUBPS %s, %s, %s", t(2, j), t(0, j), x)
				case 1:
					e.op("VADDPS %s, %s, %s", t(2, j), t(1, j), x)
				case 2:
					e.op("VSUBPS %s, %s, %s", t(1, j), t(2, j), x)
				case 3:
					e.op("VSUBPS %s, %s, %s", t(3, j), t(1, j), x)
				}
				e.store(x, "(BX)")
				if i < 3 || j < 3 {
					e.op("ADDQ R15, BX")
				}
			}
		}
	})
	e.nextRow("row")
	e.end()
}

// winogradOut takes sixteen planes m to the 2×2 pixels Aᵀ m A + b + residual. A row
// of rowArgs is a patch; aPitch is the distance of pixel rows of dst, bPitch of its
// pixels, cPitch of planes; the residual has its own three pitches.
func (s isa) winogradOut(b *bytes.Buffer) {
	e := s.function(b, "winogradOut", "dst = Aᵀ src A + b + res", 0)
	e.rowSetup()
	e.op("MOVQ 72(AX), R10")
	e.op("MOVQ 80(AX), R11")
	e.op("MOVQ 88(AX), R14")
	e.op("MOVQ 96(AX), R15")
	m := func(i, j int) string { return s.r(4*i + j) }
	out := func(i, j int) string { return s.r(24 + 2*i + j) }
	e.label("row")
	e.columns("column", func() {
		suffix := ""
		if e.mask {
			suffix = "masked"
		}
		e.op("LEAQ (SI)(R9*1), BX")
		for i := range 4 {
			for j := range 4 {
				e.load("(BX)", m(i, j))
				e.op("ADDQ R14, BX")
			}
		}
		for j := range 4 { // columns: m(0, j) and m(1, j) become Aᵀ m
			e.op("VADDPS %s, %s, %s", m(1, j), m(0, j), m(0, j))
			e.op("VADDPS %s, %s, %s", m(2, j), m(0, j), m(0, j))
			e.op("VSUBPS %s, %s, %s", m(2, j), m(1, j), m(1, j))
			e.op("VSUBPS %s, %s, %s", m(3, j), m(1, j), m(1, j))
		}
		e.op("MOVQ 56(AX), BX")
		e.load("(BX)(R9*1)", s.r(20))
		for i := range 2 {
			e.op("VADDPS %s, %s, %s", m(i, 0), s.r(20), out(i, 0))
			e.op("VADDPS %s, %s, %s", m(i, 1), out(i, 0), out(i, 0))
			e.op("VADDPS %s, %s, %s", m(i, 2), out(i, 0), out(i, 0))
			e.op("VADDPS %s, %s, %s", m(i, 1), s.r(20), out(i, 1))
			e.op("VSUBPS %s, %s, %s", m(i, 2), out(i, 1), out(i, 1))
			e.op("VSUBPS %s, %s, %s", m(i, 3), out(i, 1), out(i, 1))
		}
		e.op("TESTQ R15, R15")
		e.op("JZ plain%s", suffix)
		for i := range 2 {
			e.op("LEAQ (R15)(R9*1), BX")
			if i == 1 {
				e.op("ADDQ 104(AX), BX")
			}
			for j := range 2 {
				e.load("(BX)", s.r(21))
				e.op("VADDPS %s, %s, %s", s.r(21), out(i, j), out(i, j))
				if j == 0 {
					e.op("ADDQ 112(AX), BX")
				}
			}
		}
		e.label("plain" + suffix)
		e.op("LEAQ (DI)(R9*1), BX")
		e.store(out(0, 0), "(BX)")
		e.store(out(0, 1), "(BX)(R11*1)")
		e.op("ADDQ R10, BX")
		e.store(out(1, 0), "(BX)")
		e.store(out(1, 1), "(BX)(R11*1)")
	})
	e.op("TESTQ R15, R15")
	e.op("JZ next")
	e.op("ADDQ 120(AX), R15")
	e.label("next")
	e.nextRow("row")
	e.end()
}
