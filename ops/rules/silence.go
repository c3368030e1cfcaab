package rules

import (
	"maps"
	"slices"
	"time"
)

// Silence measures for how long things have shown no sign of life: workers whose
// record does not change, jobs whose progress stands still. It counts only time
// in which it was looked, by the clock of the looker, so that neither clocks that
// differ nor a server that was away raise a false alarm.
type Silence struct {
	// Longest is the most that one look may add; 0: no bound.
	Longest time.Duration
	last    time.Time
	known   map[string]*quiet
}

type quiet struct {
	mark   string
	silent time.Duration
	told   bool          // talked about before, and not yet seen
	gone   time.Time     // since when it is not there; zero: it is
	was    time.Duration // for how long it was silent when it went
}

// Quiet is one thing and for how long it has been silent.
type Quiet struct {
	Name string
	For  time.Duration
	Gone bool          // in good order, or it is no longer expected: silent for 0
	Was  time.Duration // if so, for how long it was silent before
}

// remember is how long something that has gone is still mentioned, so that what
// was said about it is taken back.
const remember = 10 * time.Minute

// Know mentions a thing that was talked about before this process began.
func (s *Silence) Know(name string) {
	if s.known == nil {
		s.known = map[string]*quiet{}
	}
	if s.known[name] == nil {
		s.known[name] = &quiet{told: true}
	}
}

// Take notes one look: a mark for each thing that is there, which changes with
// every sign of life. Of those in excused none is expected.
func (s *Silence) Take(now time.Time, marks map[string]string, excused bool) []Quiet {
	passed := now.Sub(s.last)
	if s.last.IsZero() || passed < 0 {
		passed = 0
	}
	if s.Longest > 0 {
		passed = min(passed, s.Longest)
	}
	s.last = now
	if s.known == nil {
		s.known = map[string]*quiet{}
	}
	fresh := map[string]bool{}
	for name, mark := range marks {
		q := s.known[name]
		switch {
		case q != nil && q.told: // one look cannot tell whether it is silent still
			q.mark, q.told = mark, false
			fresh[name] = true
		case q == nil || q.mark != mark || !q.gone.IsZero():
			s.known[name] = &quiet{mark: mark}
		case !excused:
			q.silent += passed
		}
	}
	var out []Quiet
	for _, name := range slices.Sorted(maps.Keys(s.known)) {
		q := s.known[name]
		_, there := marks[name]
		if !there {
			if q.gone.IsZero() {
				q.gone, q.was, q.silent = now, q.silent, 0
			} else if now.Sub(q.gone) > remember {
				delete(s.known, name)
				continue
			}
		}
		if !fresh[name] {
			out = append(out, Quiet{Name: name, For: q.silent, Gone: !there, Was: q.was})
		}
	}
	return out
}

// Outcomes measures how many of the jobs that ended lately failed. Those that
// failed for what their requester gave count neither way.
type Outcomes struct {
	Window time.Duration
	seen   []count
}

type count struct {
	at        time.Time
	done, bad int64
}

// Rate is what ended within a window.
type Rate struct{ Ended, Bad int64 }

// Take notes the counters of the queue (since its beginning).
func (o *Outcomes) Take(at time.Time, counters map[string]int64) Rate {
	c := count{at, counters["done"], counters["failed"] - counters["failed_input"] + counters["quarantined"]}
	if n := len(o.seen); n > 0 && (c.done < o.seen[n-1].done || c.bad < o.seen[n-1].bad) {
		o.seen = nil // the queue was emptied
	}
	o.seen = append(o.seen, c)
	for len(o.seen) > 1 && at.Sub(o.seen[0].at) > o.Window {
		o.seen = o.seen[1:]
	}
	r := Rate{Bad: c.bad - o.seen[0].bad}
	r.Ended = r.Bad + c.done - o.seen[0].done
	return r
}
