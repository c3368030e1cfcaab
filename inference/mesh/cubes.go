package mesh

import "sync"

// Marching cubes with a table made from one rule instead of typed in: on every face of
// a cube each run of inside corners is cut off by its own segment. The rule looks only
// at the face's four corners, so neighbouring cubes agree and the surface is closed.
// Loops of segments are filled with triangles none of whose diagonals lies in a face
// of the cube, so that no edge gets more than two triangles.

// Corners are numbered by bits x=1, y=2, z=4. Edge numbers: axis·4 + the two other
// bits in ascending order.
var cubeTable = sync.OnceValue(makeCubeTable)

// edgeOf numbers the edge between two corners that differ in one bit.
func edgeOf(a, b int) int {
	switch lo := min(a, b); a ^ b {
	case 1:
		return lo >> 1 & 3
	case 2:
		return 4 + lo&1 + lo>>2&1*2
	default:
		return 8 + lo&3
	}
}

// edgeFaces are the two cube faces that an edge lies in, as axis·2 + side.
func edgeFaces(e int) [2]int {
	a, lo, hi := e/4, e&1, e>>1&1
	switch a {
	case 0:
		return [2]int{2 + lo, 4 + hi}
	case 1:
		return [2]int{0 + lo, 4 + hi}
	default:
		return [2]int{0 + lo, 2 + hi}
	}
}

func shareFace(a, b int) bool {
	p, q := edgeFaces(a), edgeFaces(b)
	return p[0] == q[0] || p[0] == q[1] || p[1] == q[0] || p[1] == q[1]
}

// makeCubeTable lists, for each set of inside corners, triangles of edge numbers.
func makeCubeTable() *[256][][3]uint8 {
	// The faces' corners, counter-clockwise seen from outside the cube.
	faces := [6][4]int{{0, 4, 6, 2}, {1, 3, 7, 5}, {0, 1, 5, 4}, {2, 6, 7, 3}, {0, 2, 3, 1}, {4, 5, 7, 6}}
	var table [256][][3]uint8
	for set := range 256 {
		in := func(c int) bool { return set>>c&1 == 1 }
		var next [12]int
		for i := range next {
			next[i] = -1
		}
		for _, f := range faces {
			for k := range 4 {
				// A run of inside corners starts behind corner k…
				if in(f[k]) || !in(f[(k+1)%4]) {
					continue
				}
				end := k + 1
				for in(f[(end+1)%4]) {
					end++
				}
				next[edgeOf(f[k], f[(k+1)%4])] = edgeOf(f[end%4], f[(end+1)%4])
			}
		}
		var done [12]bool
		for e := range 12 {
			if next[e] < 0 || done[e] {
				continue
			}
			var loop []int
			for at := e; !done[at]; at = next[at] {
				done[at] = true
				loop = append(loop, at)
			}
			table[set] = append(table[set], fillLoop(loop)...)
		}
	}
	return &table
}

// fillLoop triangulates a polygon of edge points without diagonals in the cube's
// faces.
func fillLoop(loop []int) [][3]uint8 {
	var fill func(lo, hi int) ([][3]uint8, bool)
	fill = func(lo, hi int) ([][3]uint8, bool) {
		if hi-lo < 2 {
			return nil, true
		}
		for mid := lo + 1; mid < hi; mid++ {
			if mid > lo+1 && shareFace(loop[lo], loop[mid]) || mid < hi-1 && shareFace(loop[mid], loop[hi]) {
				continue
			}
			left, ok := fill(lo, mid)
			if !ok {
				continue
			}
			right, ok := fill(mid, hi)
			if !ok {
				continue
			}
			t := append(left, right...)
			return append(t, [3]uint8{uint8(loop[lo]), uint8(loop[mid]), uint8(loop[hi])}), true
		}
		return nil, false
	}
	t, ok := fill(0, len(loop)-1)
	if !ok {
		panic("marching cubes: a loop has no triangulation; the table's test forbids it")
	}
	return t
}

// March returns the surface value = iso of a field of n samples a side, with v > iso
// inside. Samples sit at the cell centres of [−1, 1]³; outside of them all is empty.
func March(v []float32, n int, iso float32) *Mesh {
	table := cubeTable()
	m := &Mesh{}
	// ids holds, for the two z-planes in use, the vertex on the edge from each sample
	// along x, y and z.
	p := n + 2
	var ids [2][]int32
	for i := range ids {
		ids[i] = make([]int32, p*p*3)
	}
	plane := func(z int) []int32 { return ids[z&1] }
	at := func(x, y, z int) float32 {
		if x < 0 || y < 0 || z < 0 || x >= n || y >= n || z >= n {
			return iso - 1
		}
		return v[(z*n+y)*n+x]
	}
	step := 2 / float32(n)
	vertex := func(x, y, z, axis int) int32 {
		slot := &plane(z)[((y+1)*p+x+1)*3+axis]
		if *slot != 0 {
			return *slot - 1
		}
		d := [3]int{}
		d[axis] = 1
		a, b := at(x, y, z), at(x+d[0], y+d[1], z+d[2])
		// Off the samples themselves, so that no triangle has zero area.
		t := min(max((iso-a)/(b-a), 0.02), 0.98)
		q := Vec{(float32(x)+0.5)*step - 1, (float32(y)+0.5)*step - 1, (float32(z)+0.5)*step - 1}
		q[axis] += t * step
		m.Vertices = append(m.Vertices, q)
		*slot = int32(len(m.Vertices))
		return *slot - 1
	}
	for z := -1; z < n; z++ {
		clear(plane(z + 1))
		for y := -1; y < n; y++ {
			// Corners move along x: the set's upper x corners become the lower ones.
			high := 0
			for x := -1; x < n; x++ {
				low := high
				high = 0
				if x+1 < n {
					for k := range 4 {
						if at(x+1, y+k&1, z+k>>1) > iso {
							high |= 1 << k
						}
					}
				}
				if low == high && (low == 0 || low == 15) {
					continue
				}
				set := 0
				for k := range 4 {
					set |= low>>k&1<<(2*k) | high>>k&1<<(2*k+1)
				}
				for _, t := range table[set] {
					var f [3]int32
					for i, e := range t {
						a, lo, hi := int(e)/4, int(e)&1, int(e)>>1&1
						switch a {
						case 0:
							f[i] = vertex(x, y+lo, z+hi, 0)
						case 1:
							f[i] = vertex(x+lo, y, z+hi, 1)
						default:
							f[i] = vertex(x+lo, y+hi, z, 2)
						}
					}
					m.Faces = append(m.Faces, f)
				}
			}
		}
	}
	return m
}
