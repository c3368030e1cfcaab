package asset

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"slices"
	"sync"

	"dreamcad/inference/field"
)

// Turntable encodes pictures of one size as a looping GIF, delay hundredths of a
// second each, with one palette for all.
func Turntable(frames []field.Image, delay int) ([]byte, error) {
	if len(frames) == 0 {
		return nil, fmt.Errorf("making a turntable of no pictures")
	}
	p := newPalette(frames)
	out := gif.GIF{}
	var wg sync.WaitGroup
	for _, f := range frames {
		im := image.NewPaletted(image.Rect(0, 0, f.Size, f.Size), p.colours)
		wg.Go(func() {
			for i := range im.Pix {
				im.Pix[i] = p.index(f.Pix[i*3:])
			}
		})
		out.Image = append(out.Image, im)
		out.Delay = append(out.Delay, delay)
	}
	wg.Wait()
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, &out); err != nil {
		return nil, fmt.Errorf("encoding a turntable: %w", err)
	}
	return b.Bytes(), nil
}

// palette maps colours, cut to bits a channel, to at most 256 representatives.
type palette struct {
	colours color.Palette
	table   []uint8
}

const bits = 6

func cell(p []float32) int {
	k := 0
	for _, v := range p[:3] {
		k = k<<bits | int(level(v))>>(8-bits)
	}
	return k
}

// newPalette divides the colours in use by median cuts.
func newPalette(frames []field.Image) *palette {
	count := make([]int, 1<<(3*bits))
	for _, f := range frames {
		for i := 0; i < len(f.Pix); i += 3 {
			count[cell(f.Pix[i:])]++
		}
	}
	type box struct {
		cells  []int
		axis   int
		spread int
	}
	channel := func(c, axis int) int { return c >> (bits * (2 - axis)) & (1<<bits - 1) }
	measure := func(cells []int) box {
		b := box{cells: cells}
		weight := 0
		for _, c := range cells {
			weight += min(count[c], 256)
		}
		best := 0
		for axis := range 3 {
			lo, hi := 1<<bits, 0
			for _, c := range cells {
				v := channel(c, axis)
				lo, hi = min(lo, v), max(hi, v)
			}
			if hi-lo > best {
				best, b.axis = hi-lo, axis
			}
		}
		b.spread = best * best * weight
		return b
	}
	var used []int
	for c, n := range count {
		if n > 0 {
			used = append(used, c)
		}
	}
	boxes := []box{measure(used)}
	for len(boxes) < 256 {
		widest := 0
		for i, b := range boxes {
			if b.spread > boxes[widest].spread {
				widest = i
			}
		}
		b := boxes[widest]
		if b.spread == 0 {
			break
		}
		slices.SortFunc(b.cells, func(x, y int) int {
			if d := channel(x, b.axis) - channel(y, b.axis); d != 0 {
				return d
			}
			return x - y
		})
		lo, hi := channel(b.cells[0], b.axis), channel(b.cells[len(b.cells)-1], b.axis)
		cut := 1
		for cut < len(b.cells)-1 && channel(b.cells[cut], b.axis) <= (lo+hi)/2 {
			cut++
		}
		boxes[widest] = measure(b.cells[:cut])
		boxes = append(boxes, measure(b.cells[cut:]))
	}
	p := &palette{table: make([]uint8, len(count))}
	for i, b := range boxes {
		var sum [3]int
		n := 0
		for _, c := range b.cells {
			p.table[c] = uint8(i)
			for k := range sum {
				sum[k] += channel(c, k) * count[c]
			}
			n += count[c]
		}
		full := func(k int) uint8 { return uint8((sum[k]*255/max(n, 1) + (1<<bits-1)/2) / (1<<bits - 1)) }
		p.colours = append(p.colours, color.RGBA{full(0), full(1), full(2), 255})
	}
	return p
}

func (p *palette) index(v []float32) uint8 { return p.table[cell(v)] }
