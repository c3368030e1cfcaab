package mesh

import "math"

// quadric is the symmetric matrix of a sum of squared distances to planes (Garland and
// Heckbert 1997): xx, xy, xz, xw, yy, yz, yw, zz, zw, ww.
type quadric [10]float64

func (q *quadric) add(o *quadric) {
	for i := range q {
		q[i] += o[i]
	}
}

func planeQuadric(n [3]float64, d, w float64) quadric {
	a, b, c := n[0], n[1], n[2]
	return quadric{w * a * a, w * a * b, w * a * c, w * a * d, w * b * b, w * b * c, w * b * d, w * c * c, w * c * d, w * d * d}
}

func (q *quadric) cost(p [3]float64) float64 {
	x, y, z := p[0], p[1], p[2]
	return q[0]*x*x + 2*q[1]*x*y + 2*q[2]*x*z + 2*q[3]*x + q[4]*y*y + 2*q[5]*y*z + 2*q[6]*y + q[7]*z*z + 2*q[8]*z + q[9]
}

// best is the point of least cost, if the quadric determines one.
func (q *quadric) best() (p [3]float64, ok bool) {
	a, b, c, d, e, f := q[0], q[1], q[2], q[4], q[5], q[7]
	c0, c1, c2 := d*f-e*e, c*e-b*f, b*e-c*d
	det := a*c0 + b*c1 + c*c2
	trace := a + d + f
	if math.Abs(det) < 1e-5*trace*trace*trace {
		return p, false
	}
	x, y, z := -q[3]/det, -q[6]/det, -q[8]/det
	return [3]float64{
		x*c0 + y*c1 + z*c2,
		x*c1 + y*(a*f-c*c) + z*(b*c-a*e),
		x*c2 + y*(b*c-a*e) + z*(a*d-b*b),
	}, true
}

// collapse is a candidate: the edge (u, v) drawn together at p.
type collapse struct {
	cost           float64
	u, v           int32
	stampU, stampV int32
	p              Vec
}

// before orders candidates: the cheapest first, ties by their ends.
func (a *collapse) before(b *collapse) bool {
	if a.cost != b.cost {
		return a.cost < b.cost
	}
	return a.u < b.u || a.u == b.u && a.v < b.v
}

// collapses is a heap whose first is the next; a node has four children.
type collapses []collapse

func (h collapses) down(i int) {
	x := h[i]
	for {
		k := 4*i + 1
		if k >= len(h) {
			break
		}
		best := k
		for c := k + 1; c < min(k+4, len(h)); c++ {
			if h[c].before(&h[best]) {
				best = c
			}
		}
		if !h[best].before(&x) {
			break
		}
		h[i] = h[best]
		i = best
	}
	h[i] = x
}

func (h collapses) build() {
	for i := len(h) / 4; i >= 0 && len(h) > 0; i-- {
		h.down(i)
	}
}

func (h *collapses) push(x collapse) {
	*h = append(*h, x)
	o := *h
	i := len(o) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !x.before(&o[up]) {
			break
		}
		o[i] = o[up]
		i = up
	}
	o[i] = x
}

func (h *collapses) pop() collapse {
	o := *h
	x := o[0]
	last := len(o) - 1
	o[0] = o[last]
	*h = o[:last]
	if last > 0 {
		(*h).down(0)
	}
	return x
}

// decimator collapses the cheapest edges first.
type decimator struct {
	m       *Mesh
	quadric []quadric
	faces   [][]int32 // of each vertex
	dead    []bool    // faces
	stamp   []int32
	mark    []int32 // scratch: vertices seen in pass markID
	markID  int32
	queue   collapses
}

// Decimate reduces a closed manifold to about budget faces and returns a new mesh. An
// edge is collapsed only if its ends have exactly two common neighbours (the link
// condition, which keeps the surface a manifold of the same genus) and no remaining
// face turns over.
func (m *Mesh) Decimate(budget int) *Mesh {
	d := &decimator{
		m:       &Mesh{append([]Vec(nil), m.Vertices...), append([][3]int32(nil), m.Faces...)},
		quadric: make([]quadric, len(m.Vertices)), faces: make([][]int32, len(m.Vertices)),
		dead: make([]bool, len(m.Faces)), stamp: make([]int32, len(m.Vertices)), mark: make([]int32, len(m.Vertices)),
	}
	for i, f := range m.Faces {
		n := m.normal(f)
		if area := n.norm(); area > 0 {
			u := [3]float64{float64(n[0] / area), float64(n[1] / area), float64(n[2] / area)}
			a := m.Vertices[f[0]]
			q := planeQuadric(u, -(u[0]*float64(a[0]) + u[1]*float64(a[1]) + u[2]*float64(a[2])), float64(area))
			for _, v := range f {
				d.quadric[v].add(&q)
			}
		}
		for _, v := range f {
			d.faces[v] = append(d.faces[v], int32(i))
		}
	}
	var edges [][2]int32
	for _, f := range m.Faces {
		for k := range 3 {
			if u, v := f[k], f[(k+1)%3]; u < v {
				edges = append(edges, [2]int32{u, v})
			}
		}
	}
	d.queue = make(collapses, len(edges), 2*len(edges))
	const part = 4096
	each((len(edges)+part-1)/part, func(p int) {
		for i := p * part; i < min((p+1)*part, len(edges)); i++ {
			d.queue[i] = d.candidate(edges[i][0], edges[i][1])
		}
	})
	d.queue.build()
	left := len(m.Faces)
	for left > budget && len(d.queue) > 0 {
		c := d.queue.pop()
		if c.stampU != d.stamp[c.u] || c.stampV != d.stamp[c.v] || !d.allowed(&c) {
			continue
		}
		d.apply(&c)
		left -= 2
	}
	out := &Mesh{Vertices: d.m.Vertices}
	for i, f := range d.m.Faces {
		if !d.dead[i] {
			out.Faces = append(out.Faces, f)
		}
	}
	return out.compact()
}

func (d *decimator) candidate(u, v int32) collapse {
	q := d.quadric[u]
	q.add(&d.quadric[v])
	a, b := d.m.Vertices[u], d.m.Vertices[v]
	mid := a.add(b).scale(0.5)
	span := a.sub(b).norm()
	wide := func(p Vec) [3]float64 { return [3]float64{float64(p[0]), float64(p[1]), float64(p[2])} }
	p := mid
	cost := q.cost(wide(mid))
	if o, ok := q.best(); ok {
		r := Vec{float32(o[0]), float32(o[1]), float32(o[2])}
		if r.sub(mid).norm() < 2*span {
			p, cost = r, q.cost(o)
		}
	}
	// A trace of the length keeps flat regions evenly meshed.
	cost = max(cost, 0) + 1e-7*float64(span*span)
	return collapse{cost, u, v, d.stamp[u], d.stamp[v], p}
}

func (d *decimator) allowed(c *collapse) bool {
	// Link condition: exactly two common neighbours, and neither of them would be left
	// with fewer than three.
	d.markID++
	for _, f := range d.faces[c.u] {
		for _, v := range d.m.Faces[f] {
			d.mark[v] = d.markID
		}
	}
	d.mark[c.u], d.mark[c.v] = 0, 0
	common := 0
	var both [2]int32
	count := func(v int32) {
		if d.mark[v] == d.markID {
			d.mark[v] = 0
			if common < 2 {
				both[common] = v
			}
			common++
		}
	}
	for _, f := range d.faces[c.v] {
		for _, v := range d.m.Faces[f] {
			count(v)
		}
	}
	if common != 2 || len(d.faces[both[0]]) <= 3 || len(d.faces[both[1]]) <= 3 {
		return false
	}
	return d.keepsSide(c.u, c.v, c.p) && d.keepsSide(c.v, c.u, c.p)
}

// keepsSide reports whether the faces of v that stay look the same way when v moves
// to p, and stay reasonably shaped.
func (d *decimator) keepsSide(v, other int32, p Vec) bool {
	for _, i := range d.faces[v] {
		f := d.m.Faces[i]
		if f[0] == other || f[1] == other || f[2] == other {
			continue
		}
		before := d.m.normal(f)
		var q [3]Vec
		for k, w := range f {
			if q[k] = d.m.Vertices[w]; w == v {
				q[k] = p
			}
		}
		a, b := q[1].sub(q[0]), q[2].sub(q[0])
		after := a.cross(b)
		size := after.norm()
		if after.dot(before) < 0.3*size*before.norm() {
			return false
		}
		c := q[2].sub(q[1])
		if longest := max(a.dot(a), b.dot(b), c.dot(c)); size < 0.02*longest {
			return false
		}
	}
	return true
}

func (d *decimator) apply(c *collapse) {
	u, v := c.u, c.v
	d.m.Vertices[u] = c.p
	d.quadric[u].add(&d.quadric[v])
	d.stamp[u]++
	d.stamp[v]++
	keep := d.faces[u][:0]
	for _, i := range d.faces[u] {
		if f := d.m.Faces[i]; f[0] == v || f[1] == v || f[2] == v {
			d.dead[i] = true
			for _, w := range f {
				if w != u && w != v {
					d.faces[w] = without(d.faces[w], i)
				}
			}
			continue
		}
		keep = append(keep, i)
	}
	for _, i := range d.faces[v] {
		if d.dead[i] {
			continue
		}
		for k, w := range d.m.Faces[i] {
			if w == v {
				d.m.Faces[i][k] = u
			}
		}
		keep = append(keep, i)
	}
	d.faces[u], d.faces[v] = keep, nil
	d.markID++
	d.mark[u] = d.markID
	for _, i := range keep {
		for _, w := range d.m.Faces[i] {
			if d.mark[w] != d.markID {
				d.mark[w] = d.markID
				d.queue.push(d.candidate(min(u, w), max(u, w)))
			}
		}
	}
}

func without(s []int32, x int32) []int32 {
	for i, v := range s {
		if v == x {
			return append(s[:i], s[i+1:]...)
		}
	}
	return s
}
