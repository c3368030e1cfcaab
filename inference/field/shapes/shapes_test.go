package shapes

import (
	"math"
	"os"
	"strings"
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/field"
)

var identity = [9]float64{1, 0, 0, 0, 1, 0, 0, 0, 1}

func TestPrimitives(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Primitive
		at   vec
		want float64
	}{
		{"ball outside", Primitive{Kind: Ellipsoid, Size: [5]float64{.5, .5, .5}}, vec{1, 0, 0}, 0.5},
		{"box face", Primitive{Kind: Box, Size: [5]float64{.3, .4, .5, .02}}, vec{1, 0, 0}, 0.7},
		{"box inside", Primitive{Kind: Box, Size: [5]float64{.3, .4, .5, .02}}, vec{0, 0, 0}, -0.3},
		{"cylinder side", Primitive{Kind: Cylinder, Size: [5]float64{.3, .5, .05}}, vec{0, .9, 0}, 0.6},
		{"frustum above", Primitive{Kind: Frustum, Size: [5]float64{.5, .2, .4}}, vec{0, 0, 1}, 0.6},
		{"torus ring", Primitive{Kind: Torus, Size: [5]float64{.5, .1}}, vec{.5, 0, 0}, -0.1},
		{"capsule end", Primitive{Kind: Capsule, Size: [5]float64{.2, .5}}, vec{0, 0, 1}, 0.3},
		{"taper above", Primitive{Kind: Taper, Size: [5]float64{.5, .5, .4, .5, .5}}, vec{0, 0, 1}, 0.6},
		{"moved and turned", Primitive{Kind: Cylinder, Centre: [3]float64{.2, 0, 0}, Size: [5]float64{.1, .5, .01}, Rotation: [9]float64{0, 0, 1, 0, 1, 0, -1, 0, 0}}, vec{1, 0, 0}, 0.3},
	} {
		if c.p.Rotation == ([9]float64{}) {
			c.p.Rotation = identity
		}
		if got := c.p.distance(c.at); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: distance %g, want %g", c.name, got, c.want)
		}
	}
}

func TestOperations(t *testing.T) {
	ball := Primitive{Kind: Ellipsoid, Size: [5]float64{.5, .5, .5}, Rotation: identity}
	hole := ball
	hole.Operation, hole.Size = Subtract, [5]float64{.2, .2, .2}
	s := &Shape{Materials: make([]Material, 1), Primitives: []Primitive{ball, hole}, scale: 1}
	if d, _ := s.Distance(0, 0, 0); math.Abs(d-0.2) > 1e-9 {
		t.Errorf("in the middle of a hollow ball: %g", d)
	}
	if n := s.Normal(0.5, 0, 0); n[0] < 0.999 {
		t.Errorf("the normal of a ball at +x is %v", n)
	}
}

// TestShapes: the committed shapes are one of each of 48 things, fit the unit sphere
// and can be seen against the background.
func TestShapes(t *testing.T) {
	f, err := os.Open("shapes.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 48 {
		t.Errorf("%d shapes", len(list))
	}
	c := field.Camera{Camera: camera.FromFront(20, 25), Lens: camera.Lens{FOV: 40, Distance: 2.8}}
	for _, s := range list {
		for i := range 200 {
			a, z := float64(i)*2.399, 1-2*(float64(i)+0.5)/200
			r := math.Sqrt(1 - z*z)
			if d, _ := s.Distance(r*math.Cos(a), r*math.Sin(a), z); d < 0 {
				t.Errorf("%s reaches out of the unit sphere", s.Name)
				break
			}
		}
		count := 0
		for _, m := range field.Mask(s.Render(c, 32, 1)) {
			if m {
				count++
			}
		}
		if count < 10 {
			t.Errorf("%s shows %d pixels", s.Name, count)
		}
	}
	if _, err := Read(strings.NewReader(`[{"primitives":[{"kind":99}]}]`)); err == nil {
		t.Error("an unknown kind was accepted")
	}
}
