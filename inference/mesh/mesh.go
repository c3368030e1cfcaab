// Package mesh turns a field into a textured surface: marching cubes, cleaning,
// smoothing, decimation, texture atlas, baking, and a rasteriser for previews.
//
// Meshes are in the network's world (z up, see package camera) with triangles
// counter-clockwise seen from outside. Every step keeps a closed manifold closed and
// manifold: each edge has two faces, which run through it in opposite directions, and
// the faces around a vertex form one fan.
package mesh

import "math"

// Vec is a point or a direction.
type Vec [3]float32

func (a Vec) add(b Vec) Vec       { return Vec{a[0] + b[0], a[1] + b[1], a[2] + b[2]} }
func (a Vec) sub(b Vec) Vec       { return Vec{a[0] - b[0], a[1] - b[1], a[2] - b[2]} }
func (a Vec) scale(s float32) Vec { return Vec{a[0] * s, a[1] * s, a[2] * s} }
func (a Vec) dot(b Vec) float32   { return a[0]*b[0] + a[1]*b[1] + a[2]*b[2] }
func (a Vec) norm() float32       { return float32(math.Sqrt(float64(a.dot(a)))) }
func (a Vec) cross(b Vec) Vec {
	return Vec{a[1]*b[2] - a[2]*b[1], a[2]*b[0] - a[0]*b[2], a[0]*b[1] - a[1]*b[0]}
}
func (a Vec) unit() Vec {
	if n := a.norm(); n > 0 {
		return a.scale(1 / n)
	}
	return a
}

// Mesh is a triangle surface.
type Mesh struct {
	Vertices []Vec
	Faces    [][3]int32
}

// normal is the face's normal times twice its area.
func (m *Mesh) normal(f [3]int32) Vec {
	a := m.Vertices[f[0]]
	return m.Vertices[f[1]].sub(a).cross(m.Vertices[f[2]].sub(a))
}

// Normals are the vertices' unit normals, the faces weighted by area.
func (m *Mesh) Normals() []Vec {
	n := make([]Vec, len(m.Vertices))
	for _, f := range m.Faces {
		w := m.normal(f)
		for _, v := range f {
			n[v] = n[v].add(w)
		}
	}
	for i := range n {
		n[i] = n[i].unit()
	}
	return n
}

// Topology is what Check finds.
type Topology struct {
	Watertight bool // every edge has two faces that run through it in opposite directions
	Manifold   bool // watertight, and the faces around each vertex form one fan
	Components int
	Genus      int // handles, summed over the components; −1 if not manifold
	BadEdges   int
}

// Check examines the connections of a mesh.
func (m *Mesh) Check() Topology {
	var t Topology
	type edge struct{ a, b int32 }
	seen := make(map[edge]int, len(m.Faces)*3)
	for _, f := range m.Faces {
		for k := range 3 {
			seen[edge{f[k], f[(k+1)%3]}]++
		}
	}
	for e, n := range seen {
		if n != 1 || seen[edge{e.b, e.a}] != 1 || e.a == e.b {
			t.BadEdges++
		}
	}
	t.Watertight = t.BadEdges == 0 && len(m.Faces) > 0
	label, n := m.components()
	_ = label
	t.Components = n
	t.Manifold = t.Watertight && m.fans()
	t.Genus = -1
	if t.Manifold {
		used := make([]bool, len(m.Vertices))
		vertices := 0
		for _, f := range m.Faces {
			for _, v := range f {
				if !used[v] {
					used[v] = true
					vertices++
				}
			}
		}
		euler := vertices - len(seen)/2 + len(m.Faces)
		t.Genus = n - euler/2
	}
	return t
}

// fans reports whether the faces around every vertex are one fan, given that every
// edge has two faces.
func (m *Mesh) fans() bool {
	type corner struct{ v, from int32 }
	next := make(map[corner]int32, len(m.Faces)*3)
	count := make([]int, len(m.Vertices))
	first := make([]int32, len(m.Vertices))
	for _, f := range m.Faces {
		for k := range 3 {
			v := f[k]
			next[corner{v, f[(k+1)%3]}] = f[(k+2)%3]
			count[v]++
			first[v] = f[(k+1)%3]
		}
	}
	for v, n := range count {
		if n == 0 {
			continue
		}
		at, steps := first[v], 0
		for {
			to, ok := next[corner{int32(v), at}]
			if !ok {
				return false
			}
			steps++
			if at = to; at == first[v] || steps > n {
				break
			}
		}
		if steps != n {
			return false
		}
	}
	return true
}

// components labels the vertices by connected piece and counts the pieces that have
// faces.
func (m *Mesh) components() (label []int32, n int) {
	parent := make([]int32, len(m.Vertices))
	for i := range parent {
		parent[i] = int32(i)
	}
	find := func(i int32) int32 {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	for _, f := range m.Faces {
		a := find(f[0])
		parent[find(f[1])] = a
		parent[find(f[2])] = a
	}
	label = make([]int32, len(m.Vertices))
	id := make(map[int32]int32)
	for _, f := range m.Faces {
		r := find(f[0])
		k, ok := id[r]
		if !ok {
			k = int32(len(id))
			id[r] = k
		}
		for _, v := range f {
			label[v] = k
		}
	}
	return label, len(id)
}

// Clean keeps the pieces that enclose at least share of the largest piece's volume,
// and drops the walls of cavities.
func (m *Mesh) Clean(share float64) *Mesh {
	label, n := m.components()
	volume := make([]float64, n)
	for _, f := range m.Faces {
		a, b, c := m.Vertices[f[0]], m.Vertices[f[1]], m.Vertices[f[2]]
		volume[label[f[0]]] += float64(a.dot(b.cross(c))) / 6
	}
	var largest float64
	for _, v := range volume {
		largest = max(largest, v)
	}
	out := &Mesh{Vertices: m.Vertices}
	for _, f := range m.Faces {
		if v := volume[label[f[0]]]; v > 0 && v >= share*largest {
			out.Faces = append(out.Faces, f)
		}
	}
	return out.compact()
}

// compact drops the vertices that no face uses.
func (m *Mesh) compact() *Mesh {
	id := make([]int32, len(m.Vertices))
	out := &Mesh{Faces: make([][3]int32, len(m.Faces))}
	for i, f := range m.Faces {
		for k, v := range f {
			if id[v] == 0 {
				out.Vertices = append(out.Vertices, m.Vertices[v])
				id[v] = int32(len(out.Vertices))
			}
			out.Faces[i][k] = id[v] - 1
		}
	}
	return out
}

// Smooth applies passes of Taubin's filter: a smoothing step, then a slightly larger
// step back, which keeps the volume (Taubin 1995).
func (m *Mesh) Smooth(passes int) {
	const forward, back = 0.5, -0.53
	degree := make([]float32, len(m.Vertices))
	for _, f := range m.Faces {
		for _, v := range f {
			degree[v]++ // each neighbour is met once as the next corner
		}
	}
	sum := make([]Vec, len(m.Vertices))
	for range passes {
		for _, k := range [2]float32{forward, back} {
			clear(sum)
			for _, f := range m.Faces {
				for i, v := range f {
					sum[v] = sum[v].add(m.Vertices[f[(i+1)%3]])
				}
			}
			for v := range m.Vertices {
				if degree[v] > 0 {
					p := m.Vertices[v]
					m.Vertices[v] = p.add(sum[v].scale(1 / degree[v]).sub(p).scale(k))
				}
			}
		}
	}
}
