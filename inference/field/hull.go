package field

import (
	"math"
	"slices"
)

// Hull is what the masks say about space.
type Hull struct {
	N        int
	Distance []float32 // (N, N, N): signed distance in world units, positive inside
	Active   []bool    // (N, N, N): inside, or so close outside that the surface may lie there
	// Disputed holds, for every view, the background pixels (Size, Size) that contradict
	// what a source view shows; nil where there are none.
	Disputed [][]bool
}

// cone is a silhouette in space.
type cone struct {
	pr           Projection
	size         int
	mask, dilate []bool
	votes        uint32 // two empty a point; the highest bit counts as one, however often
	source       bool
}

// pixel is where a point falls; points outside of the picture fall on its border.
func (c *cone) pixel(x, y, z float64) int {
	u, v, _ := c.pr.Project(x, y, z)
	return min(max(int(v), 0), c.size-1)*c.size + min(max(int(u), 0), c.size-1)
}

// footprint calls f with the pixels that a voxel of edge h may cover.
func (c *cone) footprint(x, y, z, h float64, f func(p int)) {
	u, v, depth := c.pr.Project(x, y, z)
	r := h / 2 * c.pr.scale / depth
	for j := max(int(v-r), 0); j <= min(int(v+r), c.size-1); j++ {
		for i := max(int(u-r), 0); i <= min(int(u+r), c.size-1); i++ {
			f(j*c.size + i)
		}
	}
}

// NewHull intersects the views' silhouette cones on a grid of n samples a side. A
// source view's background empties a point; of the redrawn views two must agree, where
// those from below count as one: they err alike (a brim comes out narrower). But where
// that would take away what a source view shows, the least contradicted points on the
// way stay: see keepSources. The active
// region is that of masks dilated by two pixels, grown by one voxel.
func NewHull(views []View, n int) *Hull {
	const below = 1 << 31
	cones := make([]cone, len(views))
	parallel(len(views), func(i int) {
		v := &views[i]
		cones[i] = cone{v.Camera.Projection(v.Image.Size), v.Image.Size, v.Mask, Dilate(v.Mask, v.Image.Size, 2), 1, v.Source}
		switch {
		case v.Source:
			cones[i].votes = 2
		case v.Camera.Elevation < -5:
			cones[i].votes = below
		}
	})
	count := func(v uint32) uint32 { return v&^below + v>>31 }
	enough := func(v uint32) bool { return count(v) >= 2 }
	cast := func(v *uint32, vote uint32) {
		if vote == below {
			*v |= below
		} else {
			*v += vote
		}
	}
	h := &Hull{N: n}
	inside, wide := make([]bool, n*n*n), make([]bool, n*n*n)
	against := make([]uint8, n*n*n) // votes of redrawn views
	step := 2 / float64(n)
	parallel(n, func(k int) {
		z := (float64(k)+0.5)*step - 1
		for j := range n {
			y := (float64(j)+0.5)*step - 1
			for i := range n {
				x := (float64(i)+0.5)*step - 1
				if x*x+y*y+z*z >= 0.98*0.98 {
					against[(k*n+j)*n+i] = outside
					continue
				}
				o := (k*n+j)*n + i
				var out, far uint32 // votes against the point, and against its neighbourhood
				for c := range cones {
					q := &cones[c]
					p := q.pixel(x, y, z)
					if q.mask[p] {
						continue
					}
					cast(&out, q.votes)
					if q.source {
						against[o] = outside
					}
					if !q.dilate[p] {
						cast(&far, q.votes)
						if q.source {
							break
						}
					}
				}
				inside[o], wide[o] = !enough(out), !enough(far)
				if against[o] != outside {
					against[o] = uint8(min(count(out), outside-1))
				}
			}
		}
	})
	h.Disputed = keepSources(cones, n, inside, wide, against)
	h.Active = growVoxels(wide, n)
	h.Distance = SignedDistance(inside, n)
	return h
}

// outside marks a point that a source view empties.
const outside = 255

// keepSources puts back what the redrawn views took away from the source views' silhouettes:
// where a source view shows the object and nothing is left on the way there, nor on that
// to the pixels around, the points with the fewest votes against them stay. The network
// redraws thin parts (wings, slats) a few pixels off. It returns the redrawn views'
// background pixels that say otherwise.
func keepSources(cones []cone, n int, inside, wide []bool, against []uint8) [][]bool {
	disputed := make([][]bool, len(cones))
	step := 2 / float64(n)
	at := func(o int) (x, y, z float64) {
		return (float64(o%n)+0.5)*step - 1, (float64(o/n%n)+0.5)*step - 1, (float64(o/n/n)+0.5)*step - 1
	}
	if !slices.ContainsFunc(cones, func(c cone) bool { return !c.source }) {
		return disputed
	}
	back := make([][]bool, len(cones))
	parallel(len(cones), func(c int) {
		q := &cones[c]
		if !q.source {
			return
		}
		covered, least := make([]bool, q.size*q.size), make([]uint8, q.size*q.size)
		for p := range least {
			least[p] = outside
		}
		for o, v := range against {
			if v == outside {
				continue
			}
			x, y, z := at(o)
			if inside[o] {
				q.footprint(x, y, z, step, func(p int) { covered[p] = true })
			} else {
				p := q.pixel(x, y, z)
				least[p] = min(least[p], v)
			}
		}
		covered = Dilate(covered, q.size, 1)
		back[c] = make([]bool, len(against))
		for o, v := range against {
			if v == outside || inside[o] {
				continue
			}
			p := q.pixel(at(o))
			back[c][o] = q.mask[p] && !covered[p] && v == least[p]
		}
	})
	var kept []int
	for _, b := range back {
		for o, v := range b {
			if v && !inside[o] {
				inside[o], wide[o] = true, true
				kept = append(kept, o)
			}
		}
	}
	parallel(len(cones), func(c int) {
		q := &cones[c]
		if q.source || len(kept) == 0 {
			return
		}
		d := make([]bool, q.size*q.size)
		for _, o := range kept {
			x, y, z := at(o)
			q.footprint(x, y, z, step, func(p int) { d[p] = d[p] || !q.mask[p] })
		}
		disputed[c] = d
	})
	return disputed
}

// growVoxels sets the six neighbours of set voxels too.
func growVoxels(m []bool, n int) []bool {
	out := make([]bool, len(m))
	copy(out, m)
	parallel(n, func(z int) {
		for y := range n {
			for x := range n {
				i := (z*n+y)*n + x
				if out[i] {
					continue
				}
				if x > 0 && m[i-1] || x < n-1 && m[i+1] || y > 0 && m[i-n] || y < n-1 && m[i+n] ||
					z > 0 && m[i-n*n] || z < n-1 && m[i+n*n] {
					out[i] = true
				}
			}
		}
	})
	return out
}

// SignedDistance measures, at each voxel's centre, the distance to the boundary of a
// set of voxels in world units, positive inside.
func SignedDistance(inside []bool, n int) []float32 {
	in, out := squaredDistance(inside, n, false), squaredDistance(inside, n, true)
	h := 2 / float32(n)
	d := make([]float32, len(inside))
	parallel(n, func(z int) {
		for i := z * n * n; i < (z+1)*n*n; i++ {
			if inside[i] {
				d[i] = (float32(math.Sqrt(float64(in[i]))) - 0.5) * h
			} else {
				d[i] = (0.5 - float32(math.Sqrt(float64(out[i])))) * h
			}
		}
	})
	return d
}

// squaredDistance is the squared Euclidean distance in voxels of each voxel to the
// nearest one equal to value (Felzenszwalb and Huttenlocher's lower envelopes, one
// axis after the other).
func squaredDistance(m []bool, n int, value bool) []float32 {
	const far = 1e9
	d := make([]float32, len(m))
	parallel(n, func(z int) {
		for i := z * n * n; i < (z+1)*n*n; i++ {
			if m[i] != value {
				d[i] = far
			}
		}
	})
	for _, axis := range [3][3]int{{1, n, n * n}, {n, 1, n * n}, {n * n, 1, n}} {
		stride, a, b := axis[0], axis[1], axis[2]
		parallel(n, func(p int) {
			line, at, edge := make([]float32, n), make([]int, n), make([]float32, n+1)
			for q := range n {
				o := p*b + q*a
				for i := range n {
					line[i] = d[o+i*stride]
				}
				envelope(line, at, edge)
				k := 0
				for i := range n {
					for edge[k+1] < float32(i) {
						k++
					}
					t := float32(i - at[k])
					d[o+i*stride] = t*t + line[at[k]]
				}
			}
		})
	}
	return d
}

// envelope finds the parabolas line[i] + (x − i)² that are lowest somewhere: at their
// centres, edge the borders between them.
func envelope(line []float32, at []int, edge []float32) {
	k := 0
	at[0] = 0
	edge[0], edge[1] = float32(math.Inf(-1)), float32(math.Inf(1))
	for i := 1; i < len(line); i++ {
		var s float32
		for {
			j := at[k]
			s = ((line[i] + float32(i*i)) - (line[j] + float32(j*j))) / float32(2*(i-j))
			if s > edge[k] {
				break
			}
			k--
		}
		k++
		at[k] = i
		edge[k], edge[k+1] = s, float32(math.Inf(1))
	}
}

// Start returns a grid that holds the hull, coloured with the mean of what the masks
// show at each point.
func (h *Hull) Start(views []View) (*Grid, error) {
	g, err := NewGrid(h.N)
	if err != nil {
		return nil, err
	}
	n := h.N
	type source struct {
		pr Projection
		v  *View
	}
	src := make([]source, len(views))
	for i := range views {
		src[i] = source{views[i].Camera.Projection(views[i].Image.Size), &views[i]}
	}
	step := 2 / float64(n)
	parallel(n, func(k int) {
		for j := range n {
			for i := range n {
				o := (k*n+j)*n + i
				g.V[o*4] = h.Distance[o]
				c := [3]float32{Background, Background, Background}
				if h.Active[o] {
					c = meanColour(len(src), func(s int) (*View, *Projection) { return src[s].v, &src[s].pr },
						(float64(i)+0.5)*step-1, (float64(j)+0.5)*step-1, (float64(k)+0.5)*step-1)
				}
				copy(g.V[o*4+1:], c[:])
			}
		}
	})
	h.Confine(g)
	return g, nil
}

func meanColour(n int, at func(int) (*View, *Projection), x, y, z float64) (c [3]float32) {
	var sum float32
	for s := range n {
		v, pr := at(s)
		u, w, _ := pr.Project(x, y, z)
		size := v.Image.Size
		weight := float32(1e-3)
		if v.Mask[min(max(int(w), 0), size-1)*size+min(max(int(u), 0), size-1)] {
			weight = 1
		}
		p := v.Image.Sample(u, w)
		for k := range c {
			c[k] += p[k] * weight
		}
		sum += weight
	}
	for k := range c {
		c[k] /= sum
	}
	return c
}

// Confine makes everything outside the active region empty.
func (h *Hull) Confine(g *Grid) {
	limit := -1 / float32(h.N)
	for i, a := range h.Active {
		if !a {
			g.V[i*4] = min(h.Distance[i], limit)
		}
	}
}
