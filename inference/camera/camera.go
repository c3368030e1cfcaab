// Package camera places the virtual cameras of a multi-view model.
//
// The network's world has z up and the front of an object towards +x. A camera
// sits on a sphere around the origin and looks at it. Azimuth 0 is at -y; it
// grows counter-clockwise seen from above, so the front is seen from azimuth
// 90. Manifests count from the front instead: see Camera.FrontAzimuth. Exported
// meshes have y up and the front towards +z: see Export.
//
// Matrices follow bytedance/MVDream, mvdream/camera_utils.py.
package camera

import "math"

// Front is the azimuth, in degrees, from which the front of an object is seen.
const Front = 90

// Camera is a viewpoint on the unit sphere. The network knows neither field of
// view nor distance: see Lens.
type Camera struct {
	Azimuth   float64 // degrees, the network's convention
	Elevation float64 // degrees above the horizon
}

// Lens is what the network is never told, but what its pictures were made with.
type Lens struct {
	FOV      float64 // vertical and horizontal field of view in degrees
	Distance float64 // from the origin; objects stay within the unit sphere
}

// Orbit returns n cameras at one elevation, azimuths start, start+span/n, ...
func Orbit(start, elevation, span float64, n int) []Camera {
	cs := make([]Camera, n)
	for i := range cs {
		cs[i] = Camera{Azimuth: start + float64(i)*span/float64(n), Elevation: elevation}
	}
	return cs
}

// FromFront is the camera whose azimuth is counted from the front, as manifests do.
func FromFront(azimuth, elevation float64) Camera {
	return Camera{Azimuth: azimuth + Front, Elevation: elevation}
}

// FrontAzimuth is the azimuth counted from the front, in [0, 360) degrees.
func (c Camera) FrontAzimuth() float64 {
	a := math.Mod(c.Azimuth-Front, 360)
	if a < 0 {
		a += 360
	}
	return a
}

// Basis returns the orthonormal frame of the camera in the network's world:
// its position on the unit sphere (it looks along -position), the direction of
// the image's right and of the image's up.
func (c Camera) Basis() (position, right, up [3]float64) {
	sa, ca := math.Sincos(c.Azimuth * math.Pi / 180)
	se, ce := math.Sincos(c.Elevation * math.Pi / 180)
	return [3]float64{ce * sa, -ce * ca, se}, [3]float64{ca, sa, 0}, [3]float64{-se * sa, se * ca, ce}
}

// Matrix is the camera-to-world matrix, row-major (4, 4), that the network
// reads: columns right, up, backwards and position.
func (c Camera) Matrix() [16]float32 {
	p, r, u := c.Basis()
	var m [16]float32
	for i := range 3 {
		m[4*i], m[4*i+1], m[4*i+2], m[4*i+3] = float32(r[i]), float32(u[i]), float32(p[i]), float32(p[i])
	}
	m[15] = 1
	return m
}

// Matrices stacks the matrices of cs to (len(cs), 16).
func Matrices(cs []Camera) []float32 {
	out := make([]float32, 0, 16*len(cs))
	for _, c := range cs {
		m := c.Matrix()
		out = append(out, m[:]...)
	}
	return out
}

// Project maps a point of the network's world to image coordinates: u to the
// right and v downwards, both in [0, 1] inside the picture, and its depth along
// the viewing direction.
func (l Lens) Project(c Camera, p [3]float64) (u, v, depth float64) {
	pos, right, up := c.Basis()
	depth = l.Distance - dot(p, pos)
	t := math.Tan(l.FOV*math.Pi/360) * depth
	return 0.5 + 0.5*dot(p, right)/t, 0.5 - 0.5*dot(p, up)/t, depth
}

// Ray returns the origin and the unit direction of the ray through image point
// (u, v) of [0, 1]², in the network's world.
func (l Lens) Ray(c Camera, u, v float64) (origin, direction [3]float64) {
	pos, right, up := c.Basis()
	t := math.Tan(l.FOV * math.Pi / 360)
	x, y := (2*u-1)*t, (1-2*v)*t
	for i := range 3 {
		origin[i] = pos[i] * l.Distance
		direction[i] = -pos[i] + x*right[i] + y*up[i]
	}
	n := math.Sqrt(dot(direction, direction))
	for i := range 3 {
		direction[i] /= n
	}
	return origin, direction
}

func dot(a, b [3]float64) float64 { return a[0]*b[0] + a[1]*b[1] + a[2]*b[2] }
