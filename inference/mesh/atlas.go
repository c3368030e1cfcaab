package mesh

import (
	"math"
	"slices"
)

// Atlas lays the faces of a mesh out in the unit square. A vertex appears once for
// every chart that it is part of.
type Atlas struct {
	Source []int32      // the mesh vertex behind each atlas vertex
	UV     [][2]float32 // in 0..1, v downwards as in the picture
	Faces  [][3]int32   // of atlas vertices, in the order of the mesh's faces
	Charts []int32      // the chart of each face
	Size   int          // of the texture that it was made for
	Fill   float64      // share of the texels inside charts' boxes
}

// chart is a connected set of faces that can be projected flat along its axis.
type chart struct {
	faces []int32
	axis  Vec
	uv    map[int32][2]float32 // world units, from the box's corner
	w, h  float32
	x, y  int // place in texels
}

const (
	chartCone = 0.5 // least cosine between a face and its chart's axis
	gutter    = 2   // empty texels around a chart
)

// Unwrap cuts the mesh into charts that project flat without overlap and packs them
// into a texture of size texels a side.
func (m *Mesh) Unwrap(size int) *Atlas {
	charts := m.charts()
	for i := range charts {
		m.flatten(&charts[i])
	}
	slices.SortStableFunc(charts, func(a, b chart) int {
		if a.h != b.h {
			if a.h > b.h {
				return -1
			}
			return 1
		}
		return 0
	})
	// The largest scale at which all fit, by bisection.
	var area float64
	for i := range charts {
		area += float64(charts[i].w * charts[i].h)
	}
	lo, hi := 0.0, 1.2*float64(size)/math.Sqrt(max(area, 1e-12))
	for range 14 {
		mid := (lo + hi) / 2
		if pack(charts, mid, size) {
			lo = mid
		} else {
			hi = mid
		}
	}
	pack(charts, lo, size)
	a := &Atlas{Size: size, Faces: make([][3]int32, len(m.Faces)), Charts: make([]int32, len(m.Faces))}
	for ci := range charts {
		c := &charts[ci]
		id := make(map[int32]int32, len(c.uv))
		for _, f := range c.faces {
			a.Charts[f] = int32(ci)
			for k, v := range m.Faces[f] {
				n, ok := id[v]
				if !ok {
					n = int32(len(a.UV))
					id[v] = n
					p := c.uv[v]
					a.Source = append(a.Source, v)
					a.UV = append(a.UV, [2]float32{
						(float32(c.x+gutter) + p[0]*float32(lo)) / float32(size),
						(float32(c.y+gutter) + p[1]*float32(lo)) / float32(size),
					})
				}
				a.Faces[f][k] = n
			}
		}
	}
	a.Fill = area * lo * lo / float64(size*size)
	return a
}

// charts grows regions of faces that look roughly the same way.
func (m *Mesh) charts() []chart {
	n := len(m.Faces)
	normals, area := make([]Vec, n), make([]float32, n)
	for i, f := range m.Faces {
		w := m.normal(f)
		area[i] = w.norm()
		normals[i] = w.unit()
	}
	type edge struct{ a, b int32 }
	owner := make(map[edge]int32, n*3)
	for i, f := range m.Faces {
		for k := range 3 {
			owner[edge{f[k], f[(k+1)%3]}] = int32(i)
		}
	}
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case area[a] > area[b]:
			return -1
		case area[a] < area[b]:
			return 1
		}
		return 0
	})
	taken := make([]bool, n)
	var out []chart
	for _, seed := range order {
		for !taken[seed] {
			c := m.grow(seed, taken, normals, area, func(a, b int32) (int32, bool) { i, ok := owner[edge{b, a}]; return i, ok })
			c.faces = m.withoutOverlap(c)
			for _, f := range c.faces {
				taken[f] = true
			}
			out = append(out, c)
		}
	}
	return out
}

func (m *Mesh) grow(seed int32, taken []bool, normals []Vec, area []float32, across func(a, b int32) (int32, bool)) chart {
	sum := normals[seed].scale(area[seed])
	axis := normals[seed]
	in := map[int32]bool{seed: true}
	c := chart{faces: []int32{seed}}
	for at := 0; at < len(c.faces); at++ {
		f := m.Faces[c.faces[at]]
		for k := range 3 {
			o, ok := across(f[k], f[(k+1)%3])
			if !ok || taken[o] || in[o] || normals[o].dot(axis) < chartCone+0.1 {
				continue
			}
			in[o] = true
			c.faces = append(c.faces, o)
			sum = sum.add(normals[o].scale(area[o]))
			// The axis follows the first faces, then stays, so that it ends near all.
			if len(c.faces) < 64 {
				axis = sum.unit()
			}
		}
	}
	c.axis = sum.unit()
	// Faces that the final axis sees too flat go back; so do those cut off with them.
	c.faces = m.connected(seed, c.faces, func(i int32) bool { return i == seed || normals[i].dot(c.axis) >= chartCone*0.6 }, across)
	if normals[seed].dot(c.axis) < chartCone*0.6 {
		c.faces, c.axis = []int32{seed}, normals[seed]
	}
	return c
}

// connected keeps the faces that ok allows and that hang together with seed.
func (m *Mesh) connected(seed int32, faces []int32, ok func(int32) bool, across func(a, b int32) (int32, bool)) []int32 {
	open := make(map[int32]bool, len(faces))
	for _, f := range faces {
		open[f] = ok(f)
	}
	open[seed] = false
	out := []int32{seed}
	for at := 0; at < len(out); at++ {
		f := m.Faces[out[at]]
		for k := range 3 {
			if o, found := across(f[k], f[(k+1)%3]); found && open[o] {
				open[o] = false
				out = append(out, o)
			}
		}
	}
	return out
}

// frame is a right-handed frame whose third axis is n; the second image axis points
// down, so that charts keep their orientation in the picture.
func frame(n Vec) (x, y Vec) {
	h := Vec{0, 0, 1}
	if n[2] > 0.9 || n[2] < -0.9 {
		h = Vec{1, 0, 0}
	}
	x = h.cross(n).unit()
	return x, x.cross(n)
}

// withoutOverlap drops the faces that would cover others when the chart is projected:
// those that claim a sample strictly inside a face accepted before.
func (m *Mesh) withoutOverlap(c chart) []int32 {
	x, y := frame(c.axis)
	at := func(v int32) (float32, float32) { p := m.Vertices[v]; return p.dot(x), p.dot(y) }
	lo, hi := [2]float32{9, 9}, [2]float32{-9, -9}
	for _, f := range c.faces {
		for _, v := range m.Faces[f] {
			u, w := at(v)
			lo[0], lo[1], hi[0], hi[1] = min(lo[0], u), min(lo[1], w), max(hi[0], u), max(hi[1], w)
		}
	}
	// Samples along the longer side: finer than the texture, of which a unit of a mesh
	// inside the unit sphere takes some 200 texels.
	longer := max(hi[0]-lo[0], hi[1]-lo[1], 1e-6)
	grid := int(min(max(longer*500, 16), 384))
	scale := float32(grid) / longer
	claimed := make([]bool, (grid+1)*(grid+1))
	var keep []int32
	for _, f := range c.faces {
		var p [3][2]float32
		for k, v := range m.Faces[f] {
			u, w := at(v)
			p[k] = [2]float32{(u - lo[0]) * scale, (w - lo[1]) * scale}
		}
		clash := false
		cover(p, grid+1, func(i int) { clash = clash || claimed[i] })
		if clash && len(keep) > 0 {
			continue
		}
		cover(p, grid+1, func(i int) { claimed[i] = true })
		keep = append(keep, f)
	}
	if len(keep) == len(c.faces) {
		return keep
	}
	return keep[:connectedPrefix(m, keep)]
}

// connectedPrefix reorders faces so that those connected to the first come first, and
// counts them.
func connectedPrefix(m *Mesh, faces []int32) int {
	parent := make(map[int32]int32)
	var find func(int32) int32
	find = func(v int32) int32 {
		p, ok := parent[v]
		if !ok || p == v {
			parent[v] = v
			return v
		}
		r := find(p)
		parent[v] = r
		return r
	}
	for _, f := range faces {
		t := m.Faces[f]
		parent[find(t[1])] = find(t[0])
		parent[find(t[2])] = find(t[0])
	}
	root := find(m.Faces[faces[0]][0])
	slices.SortStableFunc(faces, func(a, b int32) int {
		x, y := find(m.Faces[a][0]) == root, find(m.Faces[b][0]) == root
		switch {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	n := 0
	for n < len(faces) && find(m.Faces[faces[n]][0]) == root {
		n++
	}
	return n
}

// cover calls mark for the samples strictly inside a triangle on a grid of n samples a
// side.
func cover(p [3][2]float32, n int, mark func(i int)) {
	area := (p[1][0]-p[0][0])*(p[2][1]-p[0][1]) - (p[1][1]-p[0][1])*(p[2][0]-p[0][0])
	if area == 0 {
		return
	}
	inv := 1 / area
	x0, x1 := span(min(p[0][0], p[1][0], p[2][0]), max(p[0][0], p[1][0], p[2][0]), n)
	y0, y1 := span(min(p[0][1], p[1][1], p[2][1]), max(p[0][1], p[1][1], p[2][1]), n)
	for y := y0; y <= y1; y++ {
		for x := x0; x <= x1; x++ {
			px, py := float32(x)+0.5, float32(y)+0.5
			u := ((px-p[0][0])*(p[2][1]-p[0][1]) - (py-p[0][1])*(p[2][0]-p[0][0])) * inv
			v := ((p[1][0]-p[0][0])*(py-p[0][1]) - (p[1][1]-p[0][1])*(px-p[0][0])) * inv
			if u > 1e-3 && v > 1e-3 && u+v < 1-1e-3 {
				mark(y*n + x)
			}
		}
	}
}

// flatten projects a chart and turns it so that its box is small and lies down.
func (m *Mesh) flatten(c *chart) {
	x, y := frame(c.axis)
	c.uv = make(map[int32][2]float32)
	for _, f := range c.faces {
		for _, v := range m.Faces[f] {
			p := m.Vertices[v]
			c.uv[v] = [2]float32{p.dot(x), p.dot(y)}
		}
	}
	best, turn := math.Inf(1), 0.0
	const tries = 24
	box := func(angle float64) (lo, hi [2]float32) {
		s, k := math.Sincos(angle)
		lo, hi = [2]float32{9, 9}, [2]float32{-9, -9}
		for _, p := range c.uv {
			a, b := p[0]*float32(k)-p[1]*float32(s), p[0]*float32(s)+p[1]*float32(k)
			lo[0], lo[1], hi[0], hi[1] = min(lo[0], a), min(lo[1], b), max(hi[0], a), max(hi[1], b)
		}
		return lo, hi
	}
	for i := range tries {
		angle := float64(i) * math.Pi / tries
		lo, hi := box(angle)
		w, h := float64(hi[0]-lo[0]), float64(hi[1]-lo[1])
		if area := w * h; h <= w && area < best*0.999 {
			best, turn = area, angle
		}
	}
	lo, hi := box(turn)
	s, k := math.Sincos(turn)
	for v, p := range c.uv {
		c.uv[v] = [2]float32{p[0]*float32(k) - p[1]*float32(s) - lo[0], p[0]*float32(s) + p[1]*float32(k) - lo[1]}
	}
	c.w, c.h = hi[0]-lo[0], hi[1]-lo[1]
}

// pack places the charts at a scale (texels a unit) on a skyline: each where its top
// edge ends up lowest. It reports whether all fit.
func pack(charts []chart, scale float64, size int) bool {
	sky := make([]int, size)
	for i := range charts {
		c := &charts[i]
		w := int(math.Ceil(float64(c.w)*scale)) + 2*gutter
		h := int(math.Ceil(float64(c.h)*scale)) + 2*gutter
		if w > size || h > size {
			return false
		}
		bestX, bestY := -1, size
		// Only places where the skyline steps (or a regular raster) can be best.
		for x := 0; x+w <= size; x++ {
			if x > 0 && sky[x] == sky[x-1] && x+w < size && x%16 != 0 {
				continue
			}
			y := 0
			for _, s := range sky[x : x+w] {
				if s > y {
					y = s
					if y >= bestY {
						break
					}
				}
			}
			if y < bestY {
				bestX, bestY = x, y
			}
		}
		if bestX < 0 || bestY+h > size {
			return false
		}
		c.x, c.y = bestX, bestY
		for k := bestX; k < bestX+w; k++ {
			sky[k] = bestY + h
		}
	}
	return true
}
