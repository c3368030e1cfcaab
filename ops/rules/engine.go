package rules

import (
	"maps"
	"time"

	"dreamcad/queue"
)

// Transition is the begin or the end of a condition.
type Transition struct {
	Rule  *Rule
	Key   string
	Card  int // index, or NoCard
	State queue.AlertState
	Value float64
	Text  string
	Since time.Time // when the rule fired
	At    time.Time
}

// Engine evaluates rules over snapshots. It is for one goroutine.
type Engine struct {
	rules  []Rule
	states map[[2]string]*state
}

type state struct {
	firing bool
	since  time.Time // when it fired
	turn   time.Time // since when readings ask for the other state; zero: they do not

	latest Transition // while it fires: what would be told now
	said   string     // the text that was told last
	saidAt time.Time
}

// NewEngine makes an engine in which nothing fires.
func NewEngine(rules []Rule) *Engine {
	return &Engine{rules: rules, states: map[[2]string]*state{}}
}

// Rules lists what the engine evaluates.
func (e *Engine) Rules() []Rule { return e.rules }

// Adopt takes over a condition that an earlier process announced, so that its
// end is announced too.
func (e *Engine) Adopt(code, key string, since time.Time) {
	e.states[[2]string{code, key}] = &state{firing: true, since: since}
}

// Release forgets the conditions of the shared rules: another process goes on with them.
func (e *Engine) Release() {
	for i := range e.rules {
		if r := &e.rules[i]; r.Shared {
			maps.DeleteFunc(e.states, func(id [2]string, _ *state) bool { return id[0] == r.Code })
		}
	}
}

// Firing counts the conditions that hold now, by rule; rules without any are there with 0.
func (e *Engine) Firing() map[string]int {
	out := make(map[string]int, len(e.rules))
	for i := range e.rules {
		out[e.rules[i].Code] = 0
	}
	for id, st := range e.states {
		if st.firing {
			out[id[0]]++
		}
	}
	return out
}

// Evaluate judges one snapshot and returns what changed. What a snapshot does
// not mention, or does not know, stays as it is.
func (e *Engine) Evaluate(s *Snapshot) []Transition {
	var out []Transition
	for i := range e.rules {
		r := &e.rules[i]
		if r.Shared && s.Elsewhere {
			continue
		}
		for _, x := range r.read(s) {
			if !x.Value.Known {
				continue
			}
			id := [2]string{r.Code, x.Key}
			st := e.states[id]
			if st == nil {
				st = &state{}
				e.states[id] = st
			}
			if to, ok := st.step(r, x.Value.V, s.At); ok {
				out = append(out, Transition{Rule: r, Key: x.Key, Card: x.Card, State: to, Value: x.Value.V,
					Text: r.text(&x, to), Since: st.since, At: s.At})
				st.said, st.saidAt = out[len(out)-1].Text, s.At
			}
			if st.firing {
				st.latest = Transition{Rule: r, Key: x.Key, Card: x.Card, State: queue.Firing, Value: x.Value.V,
					Text: r.text(&x, queue.Firing), Since: st.since, At: s.At}
			}
			if !st.firing && st.turn.IsZero() {
				delete(e.states, id) // nothing to remember: names of jobs and workers come and go
			}
		}
	}
	return out
}

// News returns the firing conditions whose text has changed since it was told,
// each at most once in the given time. They are no changes of state: only
// messages are to be edited.
func (e *Engine) News(at time.Time, every time.Duration) []Transition {
	var out []Transition
	for _, st := range e.states {
		if !st.firing || st.latest.Rule == nil || st.latest.Text == st.said || at.Sub(st.saidAt) < every {
			continue
		}
		st.said, st.saidAt = st.latest.Text, at
		out = append(out, st.latest)
	}
	return out
}

// step advances one condition by one known reading.
func (st *state) step(r *Rule, v float64, at time.Time) (queue.AlertState, bool) {
	wants, hold := r.beyond(v), r.Hold
	if st.firing {
		wants, hold = r.back(v), r.ClearHold
	}
	if !wants {
		st.turn = time.Time{}
		return "", false
	}
	if st.turn.IsZero() {
		st.turn = at
	}
	if at.Sub(st.turn) < hold {
		return "", false
	}
	st.firing, st.turn = !st.firing, time.Time{}
	if st.firing {
		st.since = at
		return queue.Firing, true
	}
	return queue.Resolved, true
}
