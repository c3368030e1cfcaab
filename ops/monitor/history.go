package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreamcad/queue"
)

const (
	// Step is the time between two points of history.
	Step = 10 * time.Second
	// span is the time that one record holds, saveEvery how often it is written.
	span      = 10 * time.Minute
	saveEvery = time.Minute
	points    = int(span / Step)
)

const historyPrefix = "ops/history/"

// block is one record: span of history from Start on, a point each Step.
type block struct {
	Start  int64                 `json:"start"`  // Unix seconds
	Series map[string][]*float64 `json:"series"` // points values; null: unknown
}

func blockKey(name string, start time.Time) string {
	return fmt.Sprintf("%s%s/%d", historyPrefix, name, start.Unix())
}

// History records the figures of one process. It is for one goroutine.
type History struct {
	state queue.State
	name  string
	block block
	saved time.Time
	fresh bool // something is not yet written
}

// NewHistory makes the history of the process with that name.
func NewHistory(state queue.State, name string) *History {
	return &History{state: state, name: name}
}

// Add notes figures. Of several within one Step the highest stays. It writes to
// the state once a minute; a failed write is repeated with the next.
func (h *History) Add(ctx context.Context, at time.Time, figures map[string]float64) error {
	start := at.Truncate(span)
	if h.block.Start != start.Unix() {
		if err := h.save(ctx, at); err != nil && ctx.Err() == nil {
			return err
		}
		h.block = block{Start: start.Unix(), Series: map[string][]*float64{}}
		// What this process, or the one before it, has written is gone on with.
		if r, err := h.state.Get(ctx, blockKey(h.name, start)); err == nil {
			var old block
			if json.Unmarshal(r.Value, &old) == nil && old.Series != nil {
				h.block.Series = old.Series
			}
		} else if queue.CodeOf(err) != queue.CodeNotFound {
			h.block.Start = 0 // try again
			return err
		}
	}
	i := int(at.Sub(start) / Step)
	for name, v := range figures {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		s := h.block.Series[name]
		if len(s) != points {
			s = make([]*float64, points)
			h.block.Series[name] = s
		}
		v = math.Round(v*100) / 100
		if s[i] == nil || v > *s[i] {
			s[i] = &v
			h.fresh = true
		}
	}
	if at.Sub(h.saved) >= saveEvery {
		return h.save(ctx, at)
	}
	return nil
}

func (h *History) save(ctx context.Context, at time.Time) error {
	if !h.fresh {
		return nil
	}
	text, err := json.Marshal(h.block)
	if err != nil {
		return fmt.Errorf("encode history: %w", err)
	}
	if _, err := h.state.Put(ctx, blockKey(h.name, time.Unix(h.block.Start, 0)), text, queue.AnyVersion, Life+span); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	h.saved, h.fresh = at, false
	return nil
}

// Close writes what is not yet written.
func (h *History) Close(ctx context.Context) error { return h.save(ctx, time.Now()) }

// Recorded lists the processes that have history since then, by name: also those
// that have said goodbye.
func Recorded(ctx context.Context, s queue.State, since time.Time) ([]string, error) {
	names := map[string]bool{}
	for last := ""; ; {
		keys, err := s.Keys(ctx, historyPrefix, last)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			at := strings.LastIndexByte(k, '/')
			start, err := strconv.ParseInt(k[at+1:], 10, 64)
			if err == nil && time.Unix(start, 0).Add(span).After(since) {
				names[k[len(historyPrefix):at]] = true
			}
			last = k
		}
		if len(keys) == 0 {
			return slices.Sorted(maps.Keys(names)), nil
		}
	}
}

// Series is a figure over time: one value each Step from Start on, NaN where it
// is not known.
type Series struct {
	Start  time.Time
	Values []float64
}

// Read returns the figures of a process from since to until, by name.
func Read(ctx context.Context, s queue.State, name string, since, until time.Time) (map[string]Series, error) {
	first := since.Truncate(span)
	n := int(until.Sub(first)/span) + 1
	out := map[string]Series{}
	for b := range n {
		start := first.Add(time.Duration(b) * span)
		r, err := s.Get(ctx, blockKey(name, start))
		if queue.CodeOf(err) == queue.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		var x block
		if err := json.Unmarshal(r.Value, &x); err != nil {
			continue // of another version
		}
		for figure, values := range x.Series {
			o, ok := out[figure]
			if !ok {
				o = Series{Start: first, Values: make([]float64, n*points)}
				for i := range o.Values {
					o.Values[i] = math.NaN()
				}
				out[figure] = o
			}
			for i, v := range values {
				if v != nil && i < points {
					o.Values[b*points+i] = *v
				}
			}
		}
	}
	lo, hi := int(since.Sub(first)/Step), int(until.Sub(first)/Step)+1
	for figure, o := range out {
		hi := min(hi, len(o.Values))
		out[figure] = Series{Start: first.Add(time.Duration(lo) * Step), Values: o.Values[min(lo, hi):hi]}
	}
	return out, nil
}
