package mesh

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"dreamcad/inference/field"
)

// Buffer is what a rasterised mesh covers. Pixel centres lie at +0.5.
type Buffer struct {
	Width, Height int
	Face          []int32      // (Height, Width): −1 where nothing is
	Bary          [][2]float32 // weights of the face's second and third corner
	Depth         []float32    // along the viewing axis; +Inf where nothing is
}

// rasterise draws triangles given as (x, y, depth) in pixels. Weights are corrected
// for perspective if flat is false; flat triangles all have depth 0.
func rasterise(corner func(face, k int) [3]float32, faces, width, height int, flat bool) *Buffer {
	b := &Buffer{width, height, make([]int32, width*height), make([][2]float32, width*height), make([]float32, width*height)}
	inf := float32(math.Inf(1))
	for i := range b.Face {
		b.Face[i], b.Depth[i] = -1, inf
	}
	for f := range faces {
		p, q, r := corner(f, 0), corner(f, 1), corner(f, 2)
		area := (q[0]-p[0])*(r[1]-p[1]) - (q[1]-p[1])*(r[0]-p[0])
		if area > -1e-12 && area < 1e-12 || !flat && (p[2] <= 0 || q[2] <= 0 || r[2] <= 0) {
			continue
		}
		inv := 1 / area
		x0, x1 := span(min(p[0], q[0], r[0]), max(p[0], q[0], r[0]), width)
		y0, y1 := span(min(p[1], q[1], r[1]), max(p[1], q[1], r[1]), height)
		for y := y0; y <= y1; y++ {
			py := float32(y) + 0.5
			for x := x0; x <= x1; x++ {
				px := float32(x) + 0.5
				u := ((px-p[0])*(r[1]-p[1]) - (py-p[1])*(r[0]-p[0])) * inv
				v := ((q[0]-p[0])*(py-p[1]) - (q[1]-p[1])*(px-p[0])) * inv
				w := 1 - u - v
				if u < -1e-5 || v < -1e-5 || w < -1e-5 {
					continue
				}
				i := y*width + x
				var z float32
				if !flat {
					w, u, v = w/p[2], u/q[2], v/r[2]
					z = 1 / (w + u + v)
					u, v = u*z, v*z
				}
				if z < b.Depth[i] {
					b.Depth[i], b.Face[i], b.Bary[i] = z, int32(f), [2]float32{u, v}
				}
			}
		}
	}
	return b
}

func span(lo, hi float32, n int) (int, int) {
	return max(0, int(math.Ceil(float64(lo)-0.5))), min(n-1, int(math.Floor(float64(hi)-0.5)))
}

// Rasterise draws the mesh into size×size pixels.
func (m *Mesh) Rasterise(cam field.Camera, size int) *Buffer {
	pr := cam.Projection(size)
	at := make([][3]float32, len(m.Vertices))
	for i, p := range m.Vertices {
		u, v, d := pr.Project(float64(p[0]), float64(p[1]), float64(p[2]))
		at[i] = [3]float32{float32(u), float32(v), float32(d)}
	}
	return rasterise(func(f, k int) [3]float32 { return at[m.Faces[f][k]] }, len(m.Faces), size, size, false)
}

// Silhouette is the mesh's mask in size×size pixels, a pixel set where more than half
// of it is covered.
func (m *Mesh) Silhouette(cam field.Camera, size int) []bool {
	const sub = 2
	b := m.Rasterise(cam, size*sub)
	out := make([]bool, size*size)
	for i := range out {
		n := 0
		for k := range sub * sub {
			if b.Face[(i/size*sub+k/sub)*size*sub+i%size*sub+k%sub] >= 0 {
				n++
			}
		}
		out[i] = 2*n > sub*sub
	}
	return out
}

// each calls work for 0 … n−1 on all cores.
func each(n int, work func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				work(i)
			}
		})
	}
	wg.Wait()
}
