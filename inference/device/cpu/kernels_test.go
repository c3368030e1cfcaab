package cpu

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	command "os/exec"
	"path/filepath"
	"testing"
)

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// near fails when got is further than tol, relative to the largest number, from want.
func near(t *testing.T, got, want []float32, tol float64) {
	t.Helper()
	var worst, scale float64
	at := 0
	for i := range want {
		scale = max(scale, math.Abs(float64(want[i])))
		d := math.Abs(float64(got[i] - want[i]))
		if d > worst || math.IsNaN(d) {
			worst, at = d, i
		}
		if math.IsNaN(d) {
			t.Fatalf("element %d is %g, want %g", i, got[i], want[i])
		}
	}
	if worst > tol*scale {
		t.Fatalf("element %d is %g, want %g: off by %.2g of %.3g", at, got[at], want[at], worst, scale)
	}
}

func TestTileAgainstLoops(t *testing.T) {
	for _, k := range available() {
		for _, depth := range []int{1, 3, 4, 32, 65} {
			for _, residual := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%v", k.name, depth, residual), func(t *testing.T) {
					r := rand.New(rand.NewPCG(1, uint64(depth)))
					const ntaps = 3
					taps := []int{0, 4 * 5, 4 * 7}
					pitch := depth + 9
					a := random(r, k.mr*pitch+8)
					b := random(r, k.nr*(1+ntaps*depth))
					res := random(r, k.mr*(k.nr+1))
					c := make([]float32, k.mr*(k.nr+3))
					want := make([]float32, len(c))
					arg := tile{c: &c[0], ldc: 4 * (k.nr + 3), b: &b[0], taps: &taps[0], ntaps: ntaps, k: 4 * depth}
					if residual {
						arg.res, arg.ldres = &res[0], 4*(k.nr+1)
					}
					for i := range k.mr {
						arg.rows[i] = &a[i*pitch]
						for j := range k.nr {
							s := float64(b[j])
							for tap := range ntaps {
								for d := range depth {
									s += float64(a[i*pitch+taps[tap]/4+d]) * float64(b[k.nr*(1+tap*depth+d)+j])
								}
							}
							if residual {
								s += float64(res[i*(k.nr+1)+j])
							}
							want[i*(k.nr+3)+j] = float32(s)
						}
					}
					k.tile(&arg)
					near(t, c, want, 1e-6)
				})
			}
		}
	}
}

func TestRowKernelsAgainstMath(t *testing.T) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	gelu := func(x float64) float64 { return x * 0.5 * (1 + math.Erf(x/math.Sqrt2)) }
	cases := []struct {
		name string
		pick func(k *kernels) func(*rowArgs)
		f    func(x, a, b, old float64) float64
	}{
		{"affine", func(k *kernels) func(*rowArgs) { return k.affine }, func(x, a, b, _ float64) float64 { return x*a + b }},
		{"affineSilu", func(k *kernels) func(*rowArgs) { return k.affineSilu }, func(x, a, b, _ float64) float64 { return (x*a + b) * sigmoid(x*a+b) }},
		{"silu", func(k *kernels) func(*rowArgs) { return k.silu }, func(x, _, _, _ float64) float64 { return x * sigmoid(x) }},
		{"gelu", func(k *kernels) func(*rowArgs) { return k.gelu }, func(x, _, _, _ float64) float64 { return gelu(x) }},
		{"exp", func(k *kernels) func(*rowArgs) { return k.exp }, func(x, _, _, _ float64) float64 { return math.Exp(x) }},
		{"geglu", func(k *kernels) func(*rowArgs) { return k.geglu }, func(x, a, _, _ float64) float64 { return x * gelu(a) }},
		{"addTo", func(k *kernels) func(*rowArgs) { return k.addTo }, func(x, _, _, old float64) float64 { return old + x }},
	}
	for _, k := range available() {
		for _, cols := range []int{1, 7, 8, 16, 40, 77, 128} {
			for _, c := range cases {
				t.Run(fmt.Sprintf("%s/%s/%d", k.name, c.name, cols), func(t *testing.T) {
					r := rand.New(rand.NewPCG(2, uint64(cols)))
					const rows = 5
					pitch := cols + 3
					src, dst := random(r, rows*pitch), random(r, rows*pitch)
					a, b := random(r, cols), random(r, cols)
					for i := range src {
						src[i] *= 4
					}
					src[0], src[len(src)/2] = -70, 12 // far out: gates must close and open fully
					want := append([]float32(nil), dst...)
					for i := range rows {
						for j := range cols {
							at := i*pitch + j
							want[at] = float32(c.f(float64(src[at]), float64(a[j]), float64(b[j]), float64(dst[at])))
						}
					}
					c.pick(k)(&rowArgs{dst: &dst[0], dstPitch: 4 * pitch, src: &src[0], srcPitch: 4 * pitch, rows: rows, cols: cols, a: &a[0], b: &b[0]})
					near(t, dst, want, 5e-7)
				})
			}
		}
	}
}

func TestActivationsOverTheirRange(t *testing.T) {
	const n = 4096
	x, y, want := make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = float32(i-n/2) * (40.0 / n)
	}
	for _, k := range available() {
		for name, c := range map[string]struct {
			run func(*rowArgs)
			f   func(float64) float64
		}{
			"silu": {k.silu, func(x float64) float64 { return x / (1 + math.Exp(-x)) }},
			"gelu": {k.gelu, func(x float64) float64 { return x * 0.5 * math.Erfc(-x/math.Sqrt2) }},
		} {
			for i := range x {
				want[i] = float32(c.f(float64(x[i])))
			}
			c.run(&rowArgs{dst: &y[0], src: &x[0], rows: 1, cols: n})
			for i := range x {
				if d := math.Abs(float64(y[i] - want[i])); d > 1e-6*math.Abs(float64(want[i]))+2e-6 {
					t.Fatalf("%s %s(%g) is %g, want %g", k.name, name, x[i], y[i], want[i])
				}
			}
		}
	}
}

func TestReductionsAgainstMath(t *testing.T) {
	for _, k := range available() {
		for _, cols := range []int{8, 16, 24, 64, 77, 320} {
			t.Run(fmt.Sprintf("%s/%d", k.name, cols), func(t *testing.T) {
				r := rand.New(rand.NewPCG(3, uint64(cols)))
				const rows = 7
				src := random(r, rows*cols)
				a, b := random(r, cols), random(r, cols)
				sum, sq := make([]float32, cols), make([]float32, cols)
				wantSum, wantSq := make([]float32, cols), make([]float32, cols)
				norm, wantNorm := make([]float32, rows*cols), make([]float32, rows*cols)
				for i := range rows {
					var mean, dev float64
					for j := range cols {
						x := src[i*cols+j]
						wantSum[j] += x
						wantSq[j] += x * x
						mean += float64(x) / float64(cols)
					}
					for j := range cols {
						d := float64(src[i*cols+j]) - mean
						dev += d * d / float64(cols)
					}
					for j := range cols {
						wantNorm[i*cols+j] = float32((float64(src[i*cols+j])-mean)/math.Sqrt(dev+1e-5)*float64(a[j]) + float64(b[j]))
					}
				}
				k.sums(&rowArgs{src: &src[0], srcPitch: 4 * cols, rows: rows, cols: cols, a: &sum[0], b: &sq[0]})
				near(t, sum, wantSum, 1e-6)
				near(t, sq, wantSq, 1e-6)
				k.layerNorm(&rowArgs{dst: &norm[0], dstPitch: 4 * cols, src: &src[0], srcPitch: 4 * cols, rows: rows, cols: cols, a: &a[0], b: &b[0], eps: 1e-5, inv: 1 / float32(cols)})
				near(t, norm, wantNorm, 1e-6)
				if cols%k.lanes != 0 {
					return
				}
				const scale = 0.7
				m, l, diff := make([]float32, rows), make([]float32, rows), make([]float32, rows)
				wantM, wantL, wantDiff, wantP := make([]float32, rows), make([]float32, rows), make([]float32, rows), make([]float32, rows*cols)
				for i := range rows {
					m[i] = float32(i - 3)
					top := float64(m[i])
					for _, x := range src[i*cols : (i+1)*cols] {
						top = max(top, scale*float64(x))
					}
					wantM[i], wantDiff[i] = float32(top), m[i]-float32(top)
					for j := range cols {
						p := math.Exp(scale*float64(src[i*cols+j]) - top)
						wantP[i*cols+j] = float32(p)
						wantL[i] += float32(p)
					}
				}
				k.softmax(&rowArgs{dst: &diff[0], src: &src[0], srcPitch: 4 * cols, rows: rows, cols: cols, a: &m[0], b: &l[0], eps: scale})
				near(t, m, wantM, 1e-6)
				near(t, l, wantL, 1e-6)
				near(t, diff, wantDiff, 1e-6)
				near(t, src, wantP, 1e-6)
			})
		}
	}
}

// TestGeneratedKernelsAreCurrent runs the generator again.
func TestGeneratedKernelsAreCurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernels.s")
	if out, err := command.Command("go", "run", "./internal/gen", "-o", path).CombinedOutput(); err != nil {
		t.Fatalf("run the generator: %v\n%s", err, out)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("kernels_gen_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Fatal("kernels_gen_amd64.s is not what internal/gen writes: run go generate")
	}
}
