// Package shapes holds solids whose true surface is known, and draws them: views to
// judge a reconstruction apart from the model that made its views.
//
// A shape is a list of signed-distance primitives combined in order, in the manner of
// the mini model's training data (inference/models/mini/train). Space is the
// network's world (z up, front towards +x) after Normalise. Distances here are
// negative inside; the field package has the opposite sign.
package shapes

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"

	"dreamcad/inference/field"
)

// Kinds of primitive and what Size means for each.
const (
	Ellipsoid = iota // radii
	Box              // half sizes, radius of the edges
	Cylinder         // radius, half height, radius of the edges; axis z
	Frustum          // radius below, radius above, half height
	Torus            // radius, radius of the tube; around z
	Capsule          // radius, half length; axis z
	Taper            // half sizes at the bottom, scale of x and of y at the top
)

// Operations that join a primitive to those before it.
const (
	Union = iota
	Subtract
	Smooth // union blended over Blend
	Intersect
)

// Finishes of a material.
const (
	Matte = iota
	Plastic
	Ceramic
	Wood
	Metal
	Stone
	Glass
)

// Primitive is one solid.
type Primitive struct {
	Kind      int        `json:"kind"`
	Operation int        `json:"op"`
	Material  int        `json:"material"`
	Blend     float64    `json:"blend"`
	Centre    [3]float64 `json:"centre"`
	Rotation  [9]float64 `json:"rotation"` // rows are the local axes
	Size      [5]float64 `json:"size"`
}

// Material is a surface.
type Material struct {
	Colour    [3]float64 `json:"colour"`
	Second    [3]float64 `json:"second"`
	Pattern   int        `json:"pattern"` // 0 none, 1 stripes, 2 spots, 3 segments
	Frequency float64    `json:"frequency"`
	Phase     float64    `json:"phase"`
	Finish    int        `json:"finish"`
}

// Shape is an object. Centre and Scale take the primitives' space to the world.
type Shape struct {
	Name       string      `json:"name"`
	Caption    string      `json:"caption"`
	Radius     float64     `json:"radius"` // wanted largest distance from the origin
	Materials  []Material  `json:"materials"`
	Primitives []Primitive `json:"primitives"`

	centre vec
	scale  float64
}

// Read decodes a list of shapes (JSON) and normalises them.
func Read(r io.Reader) ([]*Shape, error) {
	var list []*Shape
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return nil, fmt.Errorf("reading shapes: %w", err)
	}
	for _, s := range list {
		for _, p := range s.Primitives {
			if p.Kind < 0 || p.Kind > Taper || p.Material < 0 || p.Material >= len(s.Materials) {
				return nil, fmt.Errorf("reading shape %q: primitive of kind %d with material %d", s.Name, p.Kind, p.Material)
			}
		}
		s.Normalise()
	}
	return list, nil
}

type vec [3]float64

func (a vec) plus(b vec) vec          { return vec{a[0] + b[0], a[1] + b[1], a[2] + b[2]} }
func (a vec) minus(b vec) vec         { return vec{a[0] - b[0], a[1] - b[1], a[2] - b[2]} }
func (a vec) times(s float64) vec     { return vec{a[0] * s, a[1] * s, a[2] * s} }
func (a vec) dot(b vec) float64       { return a[0]*b[0] + a[1]*b[1] + a[2]*b[2] }
func (a vec) norm() float64           { return math.Sqrt(a.dot(a)) }
func (a vec) unit() vec               { return a.times(1 / (a.norm() + 1e-9)) }
func clamp(x, lo, hi float64) float64 { return min(max(x, lo), hi) }

func (p *Primitive) distance(w vec) float64 {
	d0 := w.minus(p.Centre)
	r := &p.Rotation
	q := vec{r[0]*d0[0] + r[1]*d0[1] + r[2]*d0[2], r[3]*d0[0] + r[4]*d0[1] + r[5]*d0[2], r[6]*d0[0] + r[7]*d0[1] + r[8]*d0[2]}
	a := &p.Size
	switch p.Kind {
	case Ellipsoid:
		s := vec{q[0] / a[0], q[1] / a[1], q[2] / a[2]}
		k0 := s.norm()
		k1 := vec{s[0] / a[0], s[1] / a[1], s[2] / a[2]}.norm()
		if k1 < 1e-6 {
			return -min(a[0], a[1], a[2])
		}
		return k0 * (k0 - 1) / k1
	case Box:
		x, y, z := math.Abs(q[0])-a[0]+a[3], math.Abs(q[1])-a[1]+a[3], math.Abs(q[2])-a[2]+a[3]
		return vec{max(x, 0), max(y, 0), max(z, 0)}.norm() + min(max(x, y, z), 0) - a[3]
	case Cylinder:
		x, z := math.Hypot(q[0], q[1])-a[0]+a[2], math.Abs(q[2])-a[1]+a[2]
		return min(max(x, z), 0) + math.Hypot(max(x, 0), max(z, 0)) - a[2]
	case Frustum:
		h, r1, r2, x, y := a[2], a[0], a[1], math.Hypot(q[0], q[1]), q[2]
		kx, ky := r2-r1, 2*h
		top := r2
		if y < 0 {
			top = r1
		}
		ax, ay := x-min(x, top), math.Abs(y)-h
		t := clamp(((r2-x)*kx+(h-y)*ky)/(kx*kx+ky*ky), 0, 1)
		bx, by := x-r2+kx*t, y-h+ky*t
		d := math.Sqrt(min(ax*ax+ay*ay, bx*bx+by*by))
		if bx < 0 && ay < 0 {
			return -d
		}
		return d
	case Torus:
		return math.Hypot(math.Hypot(q[0], q[1])-a[0], q[2]) - a[1]
	case Capsule:
		return vec{q[0], q[1], q[2] - clamp(q[2], -a[1], a[1])}.norm() - a[0]
	default:
		sx, sy := a[0]*(1-a[3])/(2*a[2]), a[1]*(1-a[4])/(2*a[2])
		x := (math.Abs(q[0]) + sx*q[2] - a[0]*(1+a[3])*0.5) / math.Sqrt(1+sx*sx)
		y := (math.Abs(q[1]) + sy*q[2] - a[1]*(1+a[4])*0.5) / math.Sqrt(1+sy*sy)
		return max(x, y, math.Abs(q[2])-a[2])
	}
}

func (s *Shape) raw(w vec) (d float64, material int) {
	d = 1e9
	for i := range s.Primitives {
		p := &s.Primitives[i]
		e := p.distance(w)
		switch p.Operation {
		case Subtract:
			if -e > d {
				d, material = -e, p.Material
			}
		case Intersect:
			d = max(d, e)
		case Smooth:
			h := max(p.Blend-math.Abs(d-e), 0) / p.Blend
			if e < d {
				material = p.Material
			}
			d = min(d, e) - h*h*p.Blend*0.25
		default:
			if e < d {
				d, material = e, p.Material
			}
		}
	}
	return d, material
}

// Distance is the signed distance of a world point, negative inside, and the
// material of the nearest part. Joins make it a bound rather than exact.
func (s *Shape) Distance(x, y, z float64) (d float64, material int) {
	d, material = s.raw(vec{x, y, z}.times(1 / s.scale).plus(s.centre))
	return d * s.scale, material
}

// Normal is the outward unit normal of the distance at a world point.
func (s *Shape) Normal(x, y, z float64) [3]float64 {
	const e = 0.003
	var n vec
	for _, k := range [4]vec{{1, -1, -1}, {-1, -1, 1}, {-1, 1, -1}, {1, 1, 1}} {
		d, _ := s.Distance(x+k[0]*e, y+k[1]*e, z+k[2]*e)
		n = n.plus(k.times(d))
	}
	return n.unit()
}

// Normalise centres the shape's bounding box and scales it to Radius (0.9 if unset).
func (s *Shape) Normalise() {
	const cells, extent = 40, 3.6
	lo, hi := vec{9, 9, 9}, vec{-9, -9, -9}
	var in []vec
	for i := range cells * cells * cells {
		p := vec{float64(i % cells), float64(i / cells % cells), float64(i / cells / cells)}
		for k := range p {
			p[k] = (p[k]+0.5)/cells*extent - extent/2
		}
		if d, _ := s.raw(p); d < extent/cells*0.5 {
			in = append(in, p)
			for k := range p {
				lo[k], hi[k] = min(lo[k], p[k]), max(hi[k], p[k])
			}
		}
	}
	s.centre = lo.plus(hi).times(0.5)
	far := 0.05
	for _, p := range in {
		far = max(far, p.minus(s.centre).norm())
	}
	radius := s.Radius
	if radius == 0 {
		radius = 0.9
	}
	s.scale = radius / far
}

// Render draws the shape in size×size pixels with spp² rays each.
func (s *Shape) Render(cam field.Camera, size, spp int) field.Image {
	im := field.NewImage(size)
	pr := cam.Projection(size)
	o := vec(cam.Position())
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for y := w; y < size; y += workers {
				for x := range size {
					var sum vec
					for k := range spp * spp {
						d := vec(pr.Ray(float64(x)+(float64(k%spp)+0.5)/float64(spp), float64(y)+(float64(k/spp)+0.5)/float64(spp)))
						c := s.trace(o, d)
						for i := range c {
							sum[i] += clamp(c[i], 0, 1)
						}
					}
					for i := range sum {
						im.Pix[(y*size+x)*3+i] = float32(sum[i] / float64(spp*spp))
					}
				}
			}
		})
	}
	wg.Wait()
	return im
}

func (s *Shape) trace(o, d vec) vec {
	grey := vec{field.Background, field.Background, field.Background}
	b, c := o.dot(d), o.dot(o)-1.06
	disc := b*b - c
	if disc < 0 {
		return grey
	}
	t, end := max(-b-math.Sqrt(disc), 0), -b+math.Sqrt(disc)
	for range 72 {
		if t >= end {
			return grey
		}
		p := o.plus(d.times(t))
		dist, m := s.Distance(p[0], p[1], p[2])
		if dist < 0.0015 {
			return s.shade(p, vec(s.Normal(p[0], p[1], p[2])), d.times(-1), m)
		}
		t += dist * 0.92
	}
	return grey
}
