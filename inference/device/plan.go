package device

import (
	"math"
	"slices"
)

// Plan places the planned values of a program in one arena so that values which
// live at the same time never overlap. Offsets and the total are in elements,
// multiples of align; outside buffers have offset -1. A value lives from its
// first write to its last use. Pad elements are kept free behind each value.
func Plan(p *Program, align, pad int) (offsets []int, total int) {
	type span struct{ id, first, last, size int }
	spans := make([]span, len(p.Values))
	for i, v := range p.Values {
		size := (v.Shape.Len() + pad + align - 1) / align * align
		spans[i] = span{i, math.MaxInt, -1, size}
	}
	for k, o := range p.Ops {
		reads, writes := o.Operands()
		for _, t := range append(reads, writes...) {
			if t.Present() {
				s := &spans[t.Value]
				s.first, s.last = min(s.first, k), max(s.last, k)
			}
		}
	}
	offsets = make([]int, len(spans))
	// Large values first: each goes to the lowest gap among those it meets in time.
	slices.SortStableFunc(spans, func(a, b span) int { return b.size - a.size })
	var placed []span
	for _, s := range spans {
		offsets[s.id] = -1
		if p.Values[s.id].Buffer != nil || s.last < 0 {
			continue
		}
		var near []span
		for _, q := range placed {
			if q.first <= s.last && s.first <= q.last {
				near = append(near, q)
			}
		}
		slices.SortFunc(near, func(a, b span) int { return offsets[a.id] - offsets[b.id] })
		at := 0
		for _, q := range near {
			if at+s.size <= offsets[q.id] {
				break
			}
			at = max(at, offsets[q.id]+q.size)
		}
		offsets[s.id] = at
		total = max(total, at+s.size)
		placed = append(placed, s)
	}
	return offsets, total
}
