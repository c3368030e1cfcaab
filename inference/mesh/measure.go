package mesh

import "math"

// Roughness is the mean angle in degrees between the normals of neighbouring faces,
// weighted by the length of their common edge over the mean of their heights: the
// total turning of the surface, free of how finely it is meshed.
func (m *Mesh) Roughness() float64 {
	type edge struct{ a, b int32 }
	normal := make(map[edge]Vec, 3*len(m.Faces))
	for _, f := range m.Faces {
		n := m.normal(f)
		for k := range 3 {
			normal[edge{f[k], f[(k+1)%3]}] = n
		}
	}
	var turn, length float64
	for _, f := range m.Faces {
		n := m.normal(f)
		for k := range 3 {
			e := edge{f[(k+1)%3], f[k]}
			o, ok := normal[e]
			if !ok || e.a > e.b {
				continue
			}
			l := float64(m.Vertices[e.a].sub(m.Vertices[e.b]).norm())
			c := float64(n.unit().dot(o.unit()))
			turn += l * math.Acos(min(max(c, -1), 1)) * 180 / math.Pi
			length += l
		}
	}
	if length == 0 {
		return 0
	}
	return turn / length
}

// Depth is how deep a ray straight down the middle of the mesh's upper part goes below
// the highest point before it meets the surface, as a share of the height. The middle
// is that of the rim: of the vertices in the highest eighth.
func (m *Mesh) Depth() float64 {
	if len(m.Vertices) == 0 {
		return 0
	}
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	for _, v := range m.Vertices {
		lo, hi = min(lo, v[2]), max(hi, v[2])
	}
	low, high := Vec{9, 9, 9}, Vec{-9, -9, -9}
	for _, v := range m.Vertices {
		if v[2] < hi-(hi-lo)/8 {
			continue
		}
		for k := range v {
			low[k], high[k] = min(low[k], v[k]), max(high[k], v[k])
		}
	}
	x, y := (low[0]+high[0])/2, (low[1]+high[1])/2
	top := lo
	for _, f := range m.Faces {
		a, b, c := m.Vertices[f[0]], m.Vertices[f[1]], m.Vertices[f[2]]
		area := (b[0]-a[0])*(c[1]-a[1]) - (b[1]-a[1])*(c[0]-a[0])
		if area == 0 {
			continue
		}
		u := ((x-a[0])*(c[1]-a[1]) - (y-a[1])*(c[0]-a[0])) / area
		v := ((b[0]-a[0])*(y-a[1]) - (b[1]-a[1])*(x-a[0])) / area
		if u < 0 || v < 0 || u+v > 1 {
			continue
		}
		top = max(top, a[2]+u*(b[2]-a[2])+v*(c[2]-a[2]))
	}
	return float64((hi - top) / (hi - lo))
}
