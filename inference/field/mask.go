package field

import (
	"math"
	"slices"
)

// Mask finds the object on the grey background. Thresholds are of the largest
// difference of a channel from the background. The limits come from experiments with
// the mini model: glass is nearly the colour of the background, and the decoder
// leaves a faint fringe around objects.
func Mask(im Image) []bool { return MaskNear(im, nil) }

// MaskNear is Mask for a picture whose object is expected where hint is set: far
// outside of that nothing counts, and well inside thin bands of background are filled.
func MaskNear(im Image, hint []bool) []bool {
	const (
		object = 0.02  // above: not background
		faint  = 0.006 // above: not background if it hangs together with the object,
		reach  = 6     // so many pixels away: the shaded part of a grey thing
		ghost  = 0.1   // a smaller piece without a pixel above this is a smudge
		glass  = 0.015 // an enclosed hole with a larger median is see-through, not open
		fringe = 0.045 // pixels at the edge below this are peeled,
		strong = 0.09  // if a pixel above this is near: else the object itself is grey
		peels  = 2
		speck  = 8 // pixels; smaller pieces and holes are noise
		inside = 3 // pixels inside the hint bands are filled,
		beyond = 8 // so many outside all is dropped
	)
	n := im.Size
	diff := make([]float32, n*n)
	m := make([]bool, n*n)
	for i := range diff {
		for c := range 3 {
			diff[i] = max(diff[i], float32(math.Abs(float64(im.Pix[i*3+c]-Background))))
		}
		m[i] = diff[i] > object
	}
	if hint != nil {
		for i, in := range Dilate(hint, n, beyond) {
			m[i] = m[i] && in
		}
	}
	dropSmudges(m, diff, n, ghost)
	for i, in := range Dilate(m, n, reach) {
		m[i] = m[i] || in && diff[i] > faint
	}
	if hint != nil {
		outside := make([]bool, n*n)
		for i, h := range hint {
			outside[i] = !h
		}
		gap := Dilate(outside, n, inside)
		for i, o := range gap {
			gap[i] = !o && !m[i]
		}
		for _, g := range components(gap, n, true) {
			if thin(g.pixels, n) {
				for _, i := range g.pixels {
					m[i] = true
				}
			}
		}
	}
	for _, hole := range components(m, n, false) {
		if hole.border {
			continue
		}
		if len(hole.pixels) <= speck || median(diff, hole.pixels) > glass {
			for _, i := range hole.pixels {
				m[i] = true
			}
		}
	}
	for range peels {
		rim := dilateSquare(m, n)
		for i := range m {
			if m[i] && rim[i] && diff[i] < fringe && near(diff, n, i, strong) {
				m[i] = false
			}
		}
	}
	parts := components(m, n, true)
	for _, p := range parts {
		if len(parts) > 1 && len(p.pixels) <= speck {
			for _, i := range p.pixels {
				m[i] = false
			}
		}
	}
	return m
}

// dropSmudges clears the pieces that are much smaller than the largest and nowhere
// clearly different from the background.
func dropSmudges(m []bool, diff []float32, n int, ghost float32) {
	parts := components(m, n, true)
	largest := 0
	for _, p := range parts {
		largest = max(largest, len(p.pixels))
	}
	for _, p := range parts {
		var top float32
		for _, i := range p.pixels {
			top = max(top, diff[i])
		}
		if top < ghost && len(p.pixels)*10 < largest {
			for _, i := range p.pixels {
				m[i] = false
			}
		}
	}
}

// near reports whether a pixel within two of pixel i exceeds limit.
func near(v []float32, n, i int, limit float32) bool {
	for y := max(0, i/n-2); y <= min(n-1, i/n+2); y++ {
		for x := max(0, i%n-2); x <= min(n-1, i%n+2); x++ {
			if v[y*n+x] > limit {
				return true
			}
		}
	}
	return false
}

type component struct {
	pixels []int
	border bool // touches the image's border
}

// components are the 4-connected pieces of the pixels equal to value.
func components(m []bool, n int, value bool) []component {
	seen := make([]bool, len(m))
	var out []component
	var stack []int
	for i := range m {
		if seen[i] || m[i] != value {
			continue
		}
		var c component
		stack = append(stack[:0], i)
		seen[i] = true
		for len(stack) > 0 {
			p := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			c.pixels = append(c.pixels, p)
			x, y := p%n, p/n
			if x == 0 || y == 0 || x == n-1 || y == n-1 {
				c.border = true
			}
			for _, d := range [4][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}} {
				u, v := x+d[0], y+d[1]
				if u < 0 || v < 0 || u >= n || v >= n || seen[v*n+u] || m[v*n+u] != value {
					continue
				}
				seen[v*n+u] = true
				stack = append(stack, v*n+u)
			}
		}
		out = append(out, c)
	}
	return out
}

// thin reports whether a component holds no square of 5×5 pixels: where the
// shading of an object passes through the background's grey it leaves such bands.
func thin(pixels []int, n int) bool {
	in := make(map[int]bool, len(pixels))
	for _, p := range pixels {
		in[p] = true
	}
	for _, p := range pixels {
		full := true
		for k := range 25 {
			if !in[p+(k/5-2)*n+k%5-2] {
				full = false
				break
			}
		}
		if full {
			return false
		}
	}
	return true
}

func median(v []float32, at []int) float32 {
	s := make([]float32, len(at))
	for i, k := range at {
		s[i] = v[k]
	}
	slices.Sort(s)
	if len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[len(s)/2]
}

// dilateSquare marks the pixels of which one of the 8 neighbours, or they
// themselves, are unset.
func dilateSquare(m []bool, n int) []bool {
	out := make([]bool, len(m))
	for y := range n {
		for x := range n {
			for v := max(0, y-1); v <= min(n-1, y+1); v++ {
				for u := max(0, x-1); u <= min(n-1, x+1); u++ {
					if !m[v*n+u] {
						out[y*n+x] = true
					}
				}
			}
		}
	}
	return out
}

// Dilate grows a size×size mask by steps in the four directions.
func Dilate(m []bool, size, steps int) []bool {
	cur := slices.Clone(m)
	for range steps {
		next := slices.Clone(cur)
		for y := range size {
			for x := range size {
				if !cur[y*size+x] {
					continue
				}
				i := y*size + x
				if x > 0 {
					next[i-1] = true
				}
				if x < size-1 {
					next[i+1] = true
				}
				if y > 0 {
					next[i-size] = true
				}
				if y < size-1 {
					next[i+size] = true
				}
			}
		}
		cur = next
	}
	return cur
}
