package monitor

import (
	"fmt"
	"html"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// bars are the heights of a sparkline.
var bars = []rune("▁▂▃▄▅▆▇█")

// Sparkline draws the series in at most width characters, the highest value of
// each character's time; a space where nothing is known.
func (s Series) Sparkline(width int) string {
	values := s.shrink(width)
	lo, hi, ok := extent(values)
	if !ok {
		return ""
	}
	var b strings.Builder
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			b.WriteByte(' ')
		case hi == lo:
			b.WriteRune(bars[0])
		default:
			b.WriteRune(bars[int((v-lo)/(hi-lo)*float64(len(bars)-1)+0.5)])
		}
	}
	return b.String()
}

// Extent is the lowest, the highest and the last known value.
func (s Series) Extent() (lowest, highest, last float64, ok bool) {
	lowest, highest, ok = extent(s.Values)
	last = math.NaN()
	for _, v := range s.Values {
		if !math.IsNaN(v) {
			last = v
		}
	}
	return lowest, highest, last, ok
}

func extent(values []float64) (lo, hi float64, ok bool) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) {
			lo, hi, ok = min(lo, v), max(hi, v), true
		}
	}
	return lo, hi, ok
}

// shrink takes the highest of each group so that at most width values stay.
func (s Series) shrink(width int) []float64 {
	n := len(s.Values)
	if n <= width {
		return s.Values
	}
	out := make([]float64, width)
	for i := range out {
		out[i] = math.NaN()
		for _, v := range s.Values[i*n/width : (i+1)*n/width] {
			if !math.IsNaN(v) && !(v <= out[i]) {
				out[i] = v
			}
		}
	}
	return out
}

// SVG draws every series as a small plot of its own, one below the other, with
// its extent and the time below the last.
func SVG(title string, figures map[string]Series) string {
	const width, height, gap = 900, 70, 14
	names := slices.Sorted(maps.Keys(figures))
	left := 210 // of the plots; the names stand before them, a character no wider than 7
	for _, name := range names {
		left = max(left, 20+7*utf8.RuneCountInString(name))
	}
	var b strings.Builder
	total := 40 + len(names)*(height+gap) + 24
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, left+width+60, total)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="10" y="22" font-size="15">%s</text>`, html.EscapeString(title))
	y := 40
	var from, to time.Time
	for _, name := range names {
		s := figures[name]
		lo, hi, last, ok := s.Extent()
		if !ok {
			continue
		}
		from, to = s.Start, s.Start.Add(time.Duration(len(s.Values))*Step)
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text><text x="10" y="%d" fill="#666">now %.4g</text>`, y+20, html.EscapeString(name), y+38, last)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#666">%.4g</text><text x="%d" y="%d" fill="#666">%.4g</text>`, left+width+6, y+11, hi, left+width+6, y+height, lo)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#ddd"/>`, left, y, width, height)
		values := s.shrink(width)
		drawing := false
		b.WriteString(`<path fill="none" stroke="#1668b8" d="`)
		for i, v := range values {
			if math.IsNaN(v) {
				drawing = false
				continue
			}
			command := "L"
			if !drawing {
				command = "M"
			}
			drawing = true
			scaled := 0.5
			if hi > lo {
				scaled = (v - lo) / (hi - lo)
			}
			x := float64(left) + (float64(i)+0.5)*width/float64(len(values))
			fmt.Fprintf(&b, "%s%.1f %.1f", command, x, float64(y+height)-4-scaled*(height-8))
			if command == "M" {
				b.WriteString("h.1") // a lone point is seen too
			}
		}
		b.WriteString(`"/>`)
		y += height + gap
	}
	if !from.IsZero() {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#666">%s</text><text x="%d" y="%d" fill="#666" text-anchor="end">%s</text>`,
			left, y+6, from.Local().Format("02 Jan 15:04"), left+width, y+6, to.Local().Format("02 Jan 15:04"))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
