// Package field holds an object as a dense grid of signed distance and colour and
// fits that grid to pictures of the object.
//
// Space is the network's world: z up, the object inside the unit sphere. A [Grid]
// of N cells a side covers [-1, 1]³ with samples at the cell centres, so one voxel
// is h = 2/N long. Each sample holds (f, r, g, b): f is the signed distance to the
// surface, positive inside; colour is in 0..1. Between samples the field is
// trilinear. Pictures are formed as in NeuS (Wang et al. 2021): with
// Φ(f) = 1/(1+exp(f/β)) the opacity of a segment is α = max(0, 1 − Φ_{k+1}/Φ_k).
//
// The hot loops are plain functions over flat buffers (kernels_*.go), so that
// another device can take them over. Shapes: (N, N, N, 4) is indexed
// ((z·N + y)·N + x)·4 + channel; images are (H, W, 3).
package field

import (
	"fmt"
	"math"

	"dreamcad/inference/camera"
)

// Background is the grey that the views are drawn on.
const Background = 0.5

// Camera is a pinhole camera that looks at the origin, in the network's convention.
type Camera struct {
	camera.Camera
	camera.Lens
}

type vec [3]float64

func (a vec) dot(b vec) float64   { return a[0]*b[0] + a[1]*b[1] + a[2]*b[2] }
func (a vec) scale(s float64) vec { return vec{a[0] * s, a[1] * s, a[2] * s} }
func (a vec) add(b vec) vec       { return vec{a[0] + b[0], a[1] + b[1], a[2] + b[2]} }

// Position is where the camera stands.
func (c Camera) Position() [3]float64 {
	p, _, _ := c.Basis()
	return vec(p).scale(c.Distance)
}

// Projection maps world points to pixels of a square image of a given size.
type Projection struct {
	pos, right, up vec
	scale          float64 // pixels per unit of tangent
	half           float64
	Distance       float64
}

// Projection prepares the mapping to a size×size image.
func (c Camera) Projection(size int) Projection {
	p, r, u := c.Basis()
	h := float64(size) / 2
	return Projection{pos: p, right: r, up: u, scale: h / math.Tan(c.FOV*math.Pi/360), half: h, Distance: c.Distance}
}

// Project returns pixel coordinates (x right, y down, pixel centres at +0.5) and the
// depth along the viewing axis.
func (p *Projection) Project(x, y, z float64) (u, v, depth float64) {
	q := vec{x, y, z}
	depth = p.Distance - q.dot(p.pos)
	s := p.scale / depth
	return p.half + q.dot(p.right)*s, p.half - q.dot(p.up)*s, depth
}

// Ray returns the unit direction through pixel coordinates (u, v).
func (p *Projection) Ray(u, v float64) (dir [3]float64) {
	a, b := (u-p.half)/p.scale, (p.half-v)/p.scale
	d := p.pos.scale(-1).add(p.right.scale(a)).add(p.up.scale(b))
	return d.scale(1 / math.Sqrt(d.dot(d)))
}

// Image is a square picture with values in 0..1, Pix of shape (Size, Size, 3).
type Image struct {
	Size int
	Pix  []float32
}

// NewImage returns a picture of the background.
func NewImage(size int) Image {
	im := Image{size, make([]float32, size*size*3)}
	for i := range im.Pix {
		im.Pix[i] = Background
	}
	return im
}

// Sample reads the picture bilinearly at pixel coordinates, clamped to its border.
func (im Image) Sample(u, v float64) (c [3]float32) {
	s := im.Size
	hi := float64(s) - 1.001
	u, v = min(max(u-0.5, 0), hi), min(max(v-0.5, 0), hi)
	i, j := int(u), int(v)
	a, b := float32(u-float64(i)), float32(v-float64(j))
	p := im.Pix[(j*s+i)*3:]
	q := p[s*3:]
	for k := range c {
		x := p[k] + (p[k+3]-p[k])*a
		y := q[k] + (q[k+3]-q[k])*a
		c[k] = x + (y-x)*b
	}
	return c
}

// View is one picture of the object and what is known of it.
type View struct {
	Camera Camera
	Image  Image
	Mask   []bool  // (Size, Size): where the object is
	Weight float32 // of its rays in the loss
	Source bool    // one of the views that the network drew from noise alone
	Unsure []bool  // (Size, Size): pixels that no ray is made of; nil: none
}

// Grid is the field: N samples a side.
type Grid struct {
	N int
	V []float32 // (N, N, N, 4)
}

// NewGrid returns a grid of zeros. N must be even and at least 8.
func NewGrid(n int) (*Grid, error) {
	if n < 8 || n%2 != 0 || n > 512 {
		return nil, fmt.Errorf("making a grid of %d cells a side: want an even number from 8 to 512", n)
	}
	return &Grid{N: n, V: make([]float32, n*n*n*4)}, nil
}

// Voxel is the length of a voxel in world units.
func (g *Grid) Voxel() float32 { return 2 / float32(g.N) }

// At reads the field trilinearly at a world point, clamped to the grid.
func (g *Grid) At(x, y, z float64) (s [4]float32) {
	n := g.N
	var i [3]int
	var a [3]float32
	for k, p := range [3]float64{x, y, z} {
		q := min(max((p+1)*0.5*float64(n)-0.5, 0), float64(n)-1.001)
		i[k] = int(q)
		a[k] = float32(q - float64(i[k]))
	}
	b := ((i[2]*n+i[1])*n + i[0]) * 4
	Y, Z := n*4, n*n*4
	v := g.V
	for c := range s {
		o := b + c
		p := v[o] + (v[o+4]-v[o])*a[0]
		q := v[o+Y] + (v[o+Y+4]-v[o+Y])*a[0]
		r := v[o+Z] + (v[o+Z+4]-v[o+Z])*a[0]
		t := v[o+Z+Y] + (v[o+Z+Y+4]-v[o+Z+Y])*a[0]
		p += (q - p) * a[1]
		r += (t - r) * a[1]
		s[c] = p + (r-p)*a[2]
	}
	return s
}

// Upsample returns the field on a grid of n samples a side.
func (g *Grid) Upsample(n int) (*Grid, error) {
	out, err := NewGrid(n)
	if err != nil {
		return nil, err
	}
	step := 2 / float64(n)
	parallel(n, func(z int) {
		for y := range n {
			for x := range n {
				s := g.At((float64(x)+0.5)*step-1, (float64(y)+0.5)*step-1, (float64(z)+0.5)*step-1)
				copy(out.V[((z*n+y)*n+x)*4:], s[:])
			}
		}
	})
	return out, nil
}
