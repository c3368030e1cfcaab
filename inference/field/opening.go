package field

import (
	"math"
	"slices"
)

// Opening is where a fitted object may be open to the top: the columns that enter it
// from above at least a wall's thickness away from its sides.
//
// Silhouettes cannot show a hollow, and a fit that starts from the full hull seals it:
// the surface moves only where colours disagree, and then only a little. Whether there
// is a hollow has to be decided as a whole: Hollow proposes one, and the caller fits
// both and keeps what explains the views better.
type Opening struct {
	n       int
	solid   []bool
	side    []float32 // (n, n, n): distance to the object's outside within the slice, voxels
	top     []int     // (n, n): highest solid voxel of the column, −1 if none
	columns []bool    // (n, n)
}

const (
	leastWall    = 1.6 // voxels of an opening's side, and
	leastColumns = 40  // columns in it, on a grid of 64
	skin         = 3   // voxels below the top at which a column's place is judged
	floor        = 1.6 // walls' thicknesses that a vessel's floor is thick: what sees it sees it aslant
	slope        = 5   // voxels that a lid's columns may be below its highest, on a grid of 64
)

// FindOpening looks for the largest opening of a field; nil if there is none.
func FindOpening(g *Grid) *Opening {
	n := g.N
	o := &Opening{n: n, solid: make([]bool, n*n*n), side: make([]float32, n*n*n), top: make([]int, n*n), columns: make([]bool, n*n)}
	parallel(n, func(z int) {
		for i := z * n * n; i < (z+1)*n*n; i++ {
			o.solid[i] = g.V[i*4] > 0
		}
		o.measureSides(z)
	})
	open := make([]bool, n*n)
	for i := range o.top {
		o.top[i] = -1
		for z := n - 1; z >= 0; z-- {
			if o.solid[z*n*n+i] {
				o.top[i] = max(o.top[i], z)
			}
		}
		open[i] = o.open(i, leastWall)
	}
	var best []int
	for _, c := range components(open, n, true) {
		if len(c.pixels) > len(best) {
			best = c.pixels
		}
	}
	// A lid is about level, with nothing on it: the shoulders around a bottle's neck are none.
	highest := 0
	for _, i := range best {
		o.columns[i], highest = true, max(highest, o.top[i])
	}
	for _, hole := range components(o.columns, n, false) {
		for _, i := range hole.pixels {
			if !hole.border {
				highest = max(highest, o.top[i])
			}
		}
	}
	clear(o.columns)
	best = slices.DeleteFunc(best, func(i int) bool { return (highest-o.top[i])*64 > slope*n })
	if len(best) < leastColumns*n*n/(64*64) {
		return nil
	}
	for _, i := range best {
		o.columns[i] = true
	}
	return o
}

// measureSides measures, within a slice, the distance of solid voxels to the outside.
func (o *Opening) measureSides(z int) {
	n := o.n
	slice := o.side[z*n*n : (z+1)*n*n]
	for i := range slice {
		if o.solid[z*n*n+i] {
			slice[i] = 1e9
		}
	}
	line, at, edge := make([]float32, n), make([]int, n), make([]float32, n+1)
	for _, s := range [2][2]int{{1, n}, {n, 1}} {
		for q := range n {
			for i := range n {
				line[i] = slice[q*s[1]+i*s[0]]
			}
			envelope(line, at, edge)
			k := 0
			for i := range n {
				for edge[k+1] < float32(i) {
					k++
				}
				t := float32(i - at[k])
				slice[q*s[1]+i*s[0]] = t*t + line[at[k]]
			}
		}
	}
	for i := range slice {
		slice[i] = float32(math.Sqrt(float64(slice[i])))
	}
}

func (o *Opening) open(column int, wall float64) bool {
	z := o.top[column] - skin
	return z >= 0 && float64(o.side[z*o.n*o.n+column]) > wall
}

// Lid reports whether a world point lies on the closed top of the opening, give or
// take two voxels.
func (o *Opening) Lid(p [3]float64) bool {
	n := o.n
	var i [3]int
	for k := range p {
		i[k] = int((p[k] + 1) * float64(n) / 2)
		if i[k] < 0 || i[k] >= n {
			return false
		}
	}
	c := i[1]*n + i[0]
	return o.columns[c] && i[2] >= o.top[c]-2
}

// Hollow empties the opening in a grid of the same size: all that is more than a
// wall's thickness (voxels) from the outside beside and below, as far as that reaches
// without a break from the lid. It reports whether there was anything to empty.
func (o *Opening) Hollow(g *Grid, wall float64) bool {
	n := o.n
	// With the air above the lid counted as inside, the distance to the outside is that
	// to the sides and the underside.
	tall := slices.Clone(o.solid)
	for i, in := range o.columns {
		if in {
			for z := o.top[i] + 1; z < n; z++ {
				tall[z*n*n+i] = true
			}
		}
	}
	out := squaredDistance(tall, n, false)
	pit := make([]bool, n*n*n)
	count := 0
	for i, in := range o.columns {
		if !in || !o.open(i, wall) {
			continue
		}
		bottom := o.top[i]
		for bottom > 0 && o.solid[(bottom-1)*n*n+i] {
			bottom--
		}
		for z := o.top[i]; z >= 0; z-- {
			v := z*n*n + i
			// In the skin the columns' place was judged already.
			if z < o.top[i]-skin && (float64(out[v]) <= wall*wall || float64(z-bottom) < floor*wall) {
				break
			}
			pit[v] = true
			count++
		}
		// The distance to the pit's boundary must not end at the lid.
		for z := o.top[i] + 1; z < n; z++ {
			pit[z*n*n+i] = true
		}
	}
	if count < leastColumns*n*n/(64*64) {
		return false
	}
	for i, d := range SignedDistance(pit, n) {
		g.V[i*4] = min(g.V[i*4], -d)
	}
	return true
}
