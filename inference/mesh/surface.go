package mesh

import (
	"errors"
	"math"

	"dreamcad/inference/field"
)

// Options of the extraction.
type Options struct {
	Faces   int `json:"faces"`   // budget
	Texture int `json:"texture"` // texels a side
}

// DefaultOptions are for a model of 128-pixel views.
func DefaultOptions() Options { return Options{Faces: 8000, Texture: 512} }

// Surface extracts the closed surface of a field. It is the level, slightly outside
// zero, whose silhouettes agree best with the source views: the fit rounds thin parts
// off a little.
func Surface(g *field.Grid, views []field.View, opt Options) (*Mesh, error) {
	n := g.N
	h := g.Voxel()
	f := make([]float32, n*n*n)
	for i := range f {
		f[i] = min(max(g.V[i*4], -4*h), 4*h)
	}
	blur(f, n, 0.6)
	tau := level(f, n, views)
	m := March(f, n, tau*h).Clean(0.01)
	if len(m.Faces) == 0 {
		return nil, errors.New("extracting a surface: the field is empty")
	}
	m.Smooth(6)
	if len(m.Faces) > opt.Faces {
		m = m.Decimate(opt.Faces)
	}
	return m, nil
}

// level finds, in voxels, the level with the best mean overlap with the source views.
func level(f []float32, n int, views []field.View) float32 {
	// A grid of only f, so that the silhouettes come from what is marched.
	g, err := field.NewGrid(n)
	if err != nil {
		return 0
	}
	for i, v := range f {
		g.V[i*4] = v
	}
	h := g.Voxel()
	candidates := []float32{-0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1, 0}
	scores := make([][]float64, len(views))
	each(len(views), func(k int) {
		v := &views[k]
		if !v.Source {
			return
		}
		score := make([]float64, len(candidates))
		scores[k] = score
		const sub = 2
		size := v.Image.Size
		peak := g.Peak(v.Camera, size*sub, -h)
		mask := make([]bool, size*size)
		for c, tau := range candidates {
			for i := range mask {
				count := 0
				for k := range sub * sub {
					if peak[(i/size*sub+k/sub)*size*sub+i%size*sub+k%sub] > tau*h {
						count++
					}
				}
				mask[i] = 2*count > sub*sub
			}
			score[c] = IoU(mask, v.Mask)
		}
	})
	score := make([]float64, len(candidates))
	for _, s := range scores {
		for c, x := range s {
			score[c] += x
		}
	}
	best := len(candidates) - 2
	for c, s := range score {
		if s > score[best] {
			best = c
		}
	}
	return candidates[best]
}

// blur applies a Gaussian of sigma samples to an (n, n, n) array.
func blur(f []float32, n int, sigma float64) {
	radius := int(math.Ceil(3 * sigma))
	kernel := make([]float32, 2*radius+1)
	var sum float32
	for i := range kernel {
		x := float64(i - radius)
		kernel[i] = float32(math.Exp(-x * x / (2 * sigma * sigma)))
		sum += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= sum
	}
	for _, axis := range [3][3]int{{1, n, n * n}, {n, 1, n * n}, {n * n, 1, n}} {
		stride, a, b := axis[0], axis[1], axis[2]
		each(n, func(p int) {
			line := make([]float32, n)
			for q := range n {
				o := p*b + q*a
				for i := range n {
					line[i] = f[o+i*stride]
				}
				for i := range n {
					var s float32
					for k, w := range kernel {
						s += w * line[min(max(i+k-radius, 0), n-1)]
					}
					f[o+i*stride] = s
				}
			}
		})
	}
}
