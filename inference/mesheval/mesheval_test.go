package mesheval

import (
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"dreamcad/inference/field/shapes"
	"dreamcad/inference/mesh"
)

func TestCases(t *testing.T) {
	if n := len(Cases(Prompts, "", 1, 1)); n < 48 {
		t.Errorf("%d prompts, want 48", n)
	}
	got := Cases("# note\n a mug \n\na red car\n", "mug", 5, 2)
	if len(got) != 2 || got[0] != (Case{"a mug", 5}) || got[1] != (Case{"a mug", 6}) {
		t.Errorf("cases %v", got)
	}
}

// TestCompare measures a mesh marched from the true shape, moved out by a known
// distance.
func TestCompare(t *testing.T) {
	f, err := os.Open("../field/shapes/shapes.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := shapes.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Name != "ball" {
			continue
		}
		const n, out = 40, 0.02
		v := make([]float32, n*n*n)
		for i := range v {
			d, _ := s.Distance((float64(i%n)+0.5)*2/n-1, (float64(i/n%n)+0.5)*2/n-1, (float64(i/n/n)+0.5)*2/n-1)
			v[i] = float32(out - d)
		}
		mean, tail, angle := compare(mesh.March(v, n, 0), s)
		if math.Abs(mean-out) > 0.002 || math.Abs(tail-out) > 0.003 || angle > 3 {
			t.Errorf("mean %.4f, 95th percentile %.4f, normals %.1f°; want %.2f, %.2f, about 0", mean, tail, angle, out, out)
		}
		return
	}
	t.Fatal("there is no ball")
}

func TestSummarise(t *testing.T) {
	s := Summarise([]Figures{{IoU: 0.9, Manifold: true, Watertight: true, Components: 1}, {IoU: 0.98, Components: 2}})
	if s.Meshes != 2 || math.Abs(s.IoU-0.94) > 1e-9 || s.IoUWorst != 0.9 || s.Manifold != 0.5 || s.OnePiece != 0.5 {
		t.Errorf("%+v", s)
	}
}

// TestSheet stacks rows of different widths.
func TestSheet(t *testing.T) {
	dir := t.TempDir()
	var list []Figures
	for i, w := range []int{40, 24} {
		im := image.NewGray(image.Rect(0, 0, w, 16))
		for k := range im.Pix {
			im.Pix[k] = uint8(80 + 100*i)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), rowName))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(png.Encode(f, im), f.Close()); err != nil {
			t.Fatal(err)
		}
		list = append(list, Figures{Folder: filepath.Dir(f.Name())})
	}
	path := filepath.Join(dir, "sheet.jpg")
	if err := Sheet(path, list); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	im, err := jpeg.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	gray := func(x, y int) int { r, _, _, _ := im.At(x, y).RGBA(); return int(r >> 8) }
	if b := im.Bounds(); b.Dx() != 40 || b.Dy() != 32 || gray(5, 8)-80 > 5 || 180-gray(5, 24) > 5 || gray(35, 24) > 20 {
		t.Errorf("%v, grey %d, %d, %d", im.Bounds(), gray(5, 8), gray(5, 24), gray(35, 24))
	}
}
