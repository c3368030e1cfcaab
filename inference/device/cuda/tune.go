//go:build cuda

package cuda

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gorgonia.org/cu"
)

// tuner chooses the tile and the depth split of each product. Measured choices
// are kept in a file for each card model and build of the kernels.
type tuner struct {
	card     *Card
	chosen   map[string]choice
	changed  bool
	file     string
	start    cu.Event
	stop     cu.Event
	scratch  Ptr
	room     int64
	force    func([]choice) choice      // for tests
	forceWay func([]way) way            // for tests
	trace    func(c choice, ms float64) // for tests
}

func newTuner(c *Card) *tuner {
	t := &tuner{card: c, chosen: map[string]choice{}}
	if c.options.Deterministic {
		return t
	}
	dir := c.options.CacheDir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return t
		}
		dir = filepath.Join(user, "dreamcad")
	}
	t.file = filepath.Join(dir, fmt.Sprintf("tuning-sm%d-%d-%s.json", c.cc, c.info.Threads, sourceDigest[:12]))
	b, err := os.ReadFile(t.file)
	if err != nil {
		return t
	}
	var held map[string]choice
	if json.Unmarshal(b, &held) != nil {
		return t
	}
	for key, ch := range held {
		if strings.HasPrefix(ch.Kernel, "group_") {
			t.chosen[key] = ch
		}
		for _, tile := range slices.Concat(genericTiles, hopperTiles) {
			if kernelNames[tile.kernel] == ch.Kernel && ch.Splits >= 1 && ch.Splits <= 64 {
				ch.tile = tile
				t.chosen[key] = ch
			}
		}
	}
	return t
}

// save writes new choices; a failure only costs the next process the measuring.
func (t *tuner) save() {
	if t.room != 0 {
		t.card.release(t.scratch, t.room)
		t.scratch, t.room = 0, 0
	}
	if !t.changed || t.file == "" {
		return
	}
	t.changed = false
	b, err := json.MarshalIndent(t.chosen, "", " ")
	if err != nil || os.MkdirAll(filepath.Dir(t.file), 0o755) != nil {
		return
	}
	tmp := fmt.Sprintf("%s.%d", t.file, os.Getpid())
	if os.WriteFile(tmp, b, 0o644) == nil {
		_ = os.Rename(tmp, t.file)
	}
}

func tuningKey(p *GemmParams) string {
	fold := 0
	if p.E.Fold != 0 {
		fold = 1
	}
	return fmt.Sprintf("m%d n%d k%d c%d kw%d s%d u%d%d h%d w%d b%d a%d f%d", p.E.M, p.E.N, p.K, p.C, p.KW, p.Stride, p.Shift, p.Parity, p.OH, p.OW, p.Batched, p.E.Act, fold)
}

// product computes a matrix product or convolution in the best known way.
func (l *lowering) product(p *GemmParams) {
	t := l.card.tuner
	switch l.mode {
	case modeTune:
		if !l.card.options.Deterministic {
			if key := tuningKey(p); t.chosen[key].Splits == 0 {
				t.chosen[key] = l.measure(p)
				t.changed = true
			}
		}
	case modeLaunch:
		c := t.chosen[tuningKey(p)]
		switch {
		case t.force != nil:
			c = t.force(t.candidates(p))
		case c.Splits == 0:
			c = t.candidates(p)[0]
		}
		l.run(p, c)
	}
}

// candidates are the ways to compute a product, the most promising first.
func (t *tuner) candidates(p *GemmParams) []choice {
	type ranked struct {
		choice
		cost float64
	}
	var all []ranked
	sms := t.card.info.Threads
	for _, tile := range slices.Concat(hopperTiles, genericTiles) {
		if !tile.fits(t.card, p) {
			continue
		}
		mt, nt := (int(p.E.M)+tile.bm-1)/tile.bm, (int(p.E.N)+tile.bn-1)/tile.bn
		steps := tile.steps(p)
		for _, splits := range []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32} {
			if splits > 1 && (p.Batched != 0 || p.E.Fold != 0 || steps/splits < 4 || int64(splits)*int64(p.E.M)*int64(p.E.N)*4 > partialBytes) {
				continue
			}
			blocks := mt * nt * splits * max(1, int(p.Batched))
			waves := (blocks + sms*tile.blocks - 1) / (sms * tile.blocks)
			// Cycles of one multiprocessor for a wave: products at 4096 or 1600 a cycle, plus start and epilogue.
			rate := 1600.0
			if tile.hopper {
				rate = 3000
			}
			work := float64((steps+splits-1)/splits) * 64 * float64(tile.bm*tile.bn) / rate
			cost := float64(waves) * (float64(tile.blocks)*work + 2500)
			if splits > 1 {
				cost += 3500 + float64(splits)*float64(p.E.M)*float64(p.E.N)*8/2500
			}
			all = append(all, ranked{choice{kernelNames[tile.kernel], splits, tile}, cost})
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		switch {
		case a.cost < b.cost:
			return -1
		case a.cost > b.cost:
			return 1
		}
		return 0
	})
	out := make([]choice, len(all))
	for i, r := range all {
		out[i] = r.choice
	}
	return out
}

// measure times the most promising candidates on the real operands, with the
// result going to memory of its own.
func (l *lowering) measure(p *GemmParams) choice {
	t := l.card.tuner
	all := t.candidates(p)
	if len(all) > 16 {
		all = all[:16]
	}
	if len(all) == 1 {
		return all[0]
	}
	q := *p
	width := max(int64(p.E.Ldo), int64(p.E.Ldr)) * 4
	bytes := max(int64(p.E.M)*width, int64(p.E.M)*int64(p.E.Ldo)*4*max(1, int64(p.Batched))) + 4096
	if bytes > t.room {
		t.card.release(t.scratch, t.room)
		t.scratch, t.room = 0, 0
		s, err := t.card.allocate(bytes, "measuring")
		if err != nil {
			return all[0] // no room to measure: take the estimate
		}
		t.scratch, t.room = s, bytes
	}
	for _, f := range []*Ptr{&q.E.Out, &q.E.Out32, &q.E.Residual, &q.E.Residual32} {
		if *f != 0 {
			*f = t.scratch
		}
	}
	best, bestTime := all[0], 1e30
	for _, c := range all {
		ms := l.time(func() { l.run(&q, c) })
		if t.trace != nil {
			t.trace(c, ms)
		}
		if ms < bestTime {
			best, bestTime = c, ms
		}
	}
	return best
}

// time is the milliseconds that launches take, infinite when they fail.
func (l *lowering) time(launch func()) float64 {
	t := l.card.tuner
	if t.start == (cu.Event{}) && l.err == nil {
		t.start, l.err = cu.MakeEvent(cu.DefaultEvent)
		if l.err == nil {
			t.stop, l.err = cu.MakeEvent(cu.DefaultEvent)
		}
	}
	const runs = 8
	launch()
	if l.err != nil {
		return math.Inf(1)
	}
	_ = t.start.Record(l.card.stream)
	for range runs {
		launch()
	}
	_ = t.stop.Record(l.card.stream)
	if l.err = l.card.synchronize(); l.err != nil {
		return math.Inf(1)
	}
	ms, err := t.start.Elapsed(t.stop)
	if err != nil {
		return math.Inf(1)
	}
	return ms / runs
}

// way is one of several kernels for an operation.
type way struct {
	kernel string
	launch func()
}

// best launches the fastest of several ways; measure tells whether trying them out harms nobody.
func (l *lowering) best(key string, measure bool, ways []way) {
	t := l.card.tuner
	switch l.mode {
	case modeTune:
		if l.card.options.Deterministic || !measure || len(ways) == 1 || t.chosen[key].Splits != 0 {
			return
		}
		fastest, best := math.Inf(1), ways[0]
		for _, w := range ways {
			if ms := l.time(w.launch); ms < fastest {
				fastest, best = ms, w
			}
		}
		t.chosen[key] = choice{Kernel: best.kernel, Splits: 1}
		t.changed = true
	case modeLaunch:
		if t.forceWay != nil {
			t.forceWay(ways).launch()
			return
		}
		for _, w := range ways {
			if w.kernel == t.chosen[key].Kernel {
				w.launch()
				return
			}
		}
		ways[0].launch()
	}
}
