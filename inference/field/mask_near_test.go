package field

import "testing"

// TestMaskNear: a grey band through an object is filled where the object is expected,
// a real hole is not.
func TestMaskNear(t *testing.T) {
	const n = 48
	im := NewImage(n)
	hint := make([]bool, n*n)
	for y := 4; y < 44; y++ {
		for x := 4; x < 44; x++ {
			hint[y*n+x] = true
			v := float32(0.5) + 0.02*float32(y-20) // passes through the background's grey
			if x >= 30 && x < 40 && y >= 28 && y < 38 {
				v = 0.5
			}
			for c := range 3 {
				im.Pix[(y*n+x)*3+c] = v
			}
		}
	}
	m := MaskNear(im, hint)
	if !m[20*n+20] {
		t.Error("the grey band is missing from the object")
	}
	if m[33*n+35] {
		t.Error("the hole was filled")
	}
	if m[2*n+2] {
		t.Error("background became object")
	}
}
