// Package monitor keeps what the watch sees where others can look at it: the
// newest sample of each process, and a day of history, both as records of the
// queue's State (Redis or SQLite). It draws them as text and as SVG.
package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/queue"
)

// Live is what one process of the service last saw. It is also its sign of life.
type Live struct {
	Name     string       `json:"name"` // the worker's name, or "bot of HOST"
	Role     string       `json:"role"` // worker, bot or up
	Host     string       `json:"host"`
	Version  string       `json:"version"`
	Started  time.Time    `json:"started"`
	At       time.Time    `json:"at"`
	Cards    []gpu.Sample `json:"cards,omitempty"`
	Local    host.Sample  `json:"local"`
	Doing    []Doing      `json:"doing,omitempty"`
	Rest     float64      `json:"rest,omitempty"` // share of the time that the governor lets the worker rest
	Held     bool         `json:"held,omitempty"` // the governor holds the work
	Refusing string       `json:"refusing,omitempty"`
	Firing   []string     `json:"firing,omitempty"` // codes of rules
}

// Doing is a job in a worker's hands.
type Doing struct {
	Job   string      `json:"job"`
	Kind  queue.Kind  `json:"kind"`
	Stage queue.Stage `json:"stage"`
	Step  int         `json:"step"`
	Total int         `json:"total"`
}

// Life is how long records are kept: history, and the last word of a process
// that did not say goodbye.
const Life = 24 * time.Hour

// Quiet is the age from which a record is shown as old.
const Quiet = 30 * time.Second

const livePrefix = "ops/live/"

// Tell writes the record of this process.
func Tell(ctx context.Context, s queue.State, l *Live) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode the sign of life: %w", err)
	}
	_, err = s.Put(ctx, livePrefix+l.Name, text, queue.AnyVersion, Life)
	return err
}

// Goodbye removes the record: the process ends in good order.
func Goodbye(ctx context.Context, s queue.State, name string) error {
	return s.Delete(ctx, livePrefix+name, queue.AnyVersion)
}

// Forget removes the record of a process that has not spoken since the version;
// one that does speak again is back.
func Forget(ctx context.Context, s queue.State, name, version string) error {
	err := s.Delete(ctx, livePrefix+name, version)
	if queue.CodeOf(err) == queue.CodeConflict {
		return nil
	}
	return err
}

// Fleet reads the records of all processes, by name, and for each a mark that
// changes whenever it is written.
func Fleet(ctx context.Context, s queue.State) ([]Live, map[string]string, error) {
	keys, err := s.Keys(ctx, livePrefix, "")
	if err != nil {
		return nil, nil, err
	}
	var out []Live
	marks := map[string]string{}
	for _, k := range keys {
		r, err := s.Get(ctx, k)
		if queue.CodeOf(err) == queue.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		var l Live
		if err := json.Unmarshal(r.Value, &l); err != nil {
			continue // of another version
		}
		out = append(out, l)
		marks[l.Name] = r.Version
	}
	slices.SortFunc(out, func(a, b Live) int { return strings.Compare(a.Name, b.Name) })
	return out, marks, nil
}

// Figures are the numbers of a sample that history keeps, by name. What is not
// known is not there.
func Figures(l *Live) map[string]float64 {
	out := map[string]float64{}
	put := func(name string, v gpu.Value) {
		if v.Known {
			out[name] = v.V
		}
	}
	share := func(name string, s host.Share) {
		if s.Known {
			out[name] = 100 * s.Fraction()
		}
	}
	for i := range l.Cards {
		c := &l.Cards[i]
		name := fmt.Sprintf("gpu%d ", c.Index)
		put(name+"temperature °C", c.Temperature)
		put(name+"margin °C", c.SlowdownMargin)
		put(name+"power W", c.Power)
		put(name+"utilisation %", c.Utilisation)
		put(name+"clock MHz", c.ClockSM)
		if m := c.MemoryShare(); m.Known {
			out[name+"memory %"] = 100 * m.V
		}
	}
	if l.Role != "bot" {
		out["rest %"] = 100 * l.Rest
	}
	share("memory %", l.Local.Memory)
	if l.Local.Load != nil {
		out["load"] = *l.Local.Load
	}
	for dir, d := range l.Local.Disks {
		share("disk "+dir+" %", d)
	}
	for name, r := range l.Local.Servers {
		if r.Error == "" {
			out[name+" ms"] = float64(r.Latency) / float64(time.Millisecond)
		}
	}
	return out
}
