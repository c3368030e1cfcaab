package rules

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"sync"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/queue"
)

// Governor makes a worker spare its card. A proportional-integral controller on
// the temperature decides which share of the time the worker rests between its
// steps; beyond the hot limit it asks for a hold, which makes the worker save
// and wait. It fulfils the worker's Governor and is safe for concurrent use.
type Governor struct {
	limits Limits
	guards func(*gpu.Sample) bool
	now    func() time.Time
	log    *slog.Logger

	mu       sync.Mutex
	integral map[int]float64
	peak     map[int]float64   // °C above the target, falling slowly
	seen     map[int]time.Time // when these two were last moved
	shares   map[int]float64   // by card: share of the time to rest
	maxed    map[int]time.Time
	held     map[int]bool
	failed   map[int]bool         // held because resting was not enough
	refusing map[[2]string]string // by rule and key: why

	restUntil time.Time
	last      time.Time // the last call of Pause
	slowing   bool      // announced
}

// The controller's constants: gains per °C and per °C and second, chosen by
// simulation (the tests draw it) of cards with time constants of 12 s to 2 minutes
// and of steps of 0.1 to 2 s: half the gains let a card with a poor cooler stay
// above the limit for twice as long, twice the gains bring nothing more.
const (
	gainP   = 0.08
	gainI   = 0.004
	maxRest = 0.9
	// forget is how fast a high temperature is forgotten: some chips warm and cool
	// by 15 °C within a second (seen on an H200), so that one look a second
	// says little about what the next would.
	forget = 10 * time.Second
	// maxedFor is how long resting at maxRest may fail before the card is held.
	maxedFor = 2 * time.Minute
	// longestLook bounds the time between two looks that one of them answers for.
	longestLook = 10 * time.Second
	// longestRest bounds one rest between two steps.
	longestRest = 8 * time.Second
	// holdFor is what Pause answers during a hold; the worker saves when asked to
	// rest for 10 s or longer.
	holdFor = 30 * time.Second
)

// NewGovernor makes a governor. guards says whose sensors count; now is the
// clock (nil: time.Now).
func NewGovernor(l Limits, guards func(*gpu.Sample) bool, now func() time.Time, log *slog.Logger) *Governor {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Governor{limits: l, guards: guards, now: now, log: log,
		integral: map[int]float64{}, peak: map[int]float64{}, seen: map[int]time.Time{}, shares: map[int]float64{}, maxed: map[int]time.Time{}, held: map[int]bool{}, failed: map[int]bool{}, refusing: map[[2]string]string{}}
}

// Observe takes a snapshot and what changed with it. Called at each look, about
// each second.
func (g *Governor) Observe(s *Snapshot, changes []Transition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	guarded := map[int]bool{}
	for i := range s.Cards {
		c := &s.Cards[i]
		if g.guards(c) {
			guarded[c.Index] = true
			g.control(c, s.At)
		}
	}
	for _, t := range changes {
		if t.Rule.Action != Refuse || t.Card != NoCard && !guarded[t.Card] {
			continue
		}
		id := [2]string{t.Rule.Code, t.Key}
		if t.State == queue.Firing {
			g.refusing[id] = t.Text
		} else {
			delete(g.refusing, id)
		}
	}
	slowing := g.share() > 0.01
	if slowing != g.slowing {
		g.slowing = slowing
		if slowing {
			g.log.Warn("the card is warm: resting between steps", "share", fmt.Sprintf("%.2f", g.share()))
		} else {
			g.log.Info("the card is cool: full speed again")
		}
	}
}

// control is one step of one card's controller.
func (g *Governor) control(c *gpu.Sample, at time.Time) {
	target := g.limits.GPUWarm - warmClear - 1
	t, margin := c.Temperature, c.SlowdownMargin
	var excess float64 // °C above where the card is to settle
	switch {
	case t.Known:
		excess = t.V - target
	case margin.Known: // some cards report nothing but the margin
		excess = g.limits.GPUMargin + 5 - margin.V
	default:
		return // unknown: go on as before
	}
	passed := time.Duration(0)
	if last, ok := g.seen[c.Index]; ok {
		passed = min(max(at.Sub(last), 0), longestLook)
	}
	g.seen[c.Index] = at
	peak, ok := g.peak[c.Index]
	if peak = excess + (peak-excess)*math.Exp(-passed.Seconds()/forget.Seconds()); !ok || excess > peak {
		peak = excess
	}
	g.peak[c.Index] = peak
	i := g.integral[c.Index] + gainI*peak*passed.Seconds()
	g.integral[c.Index] = min(max(i, 0), maxRest)
	share := min(max(gainP*peak+g.integral[c.Index], 0), maxRest)
	g.shares[c.Index] = share

	if share < maxRest {
		delete(g.maxed, c.Index)
	} else if g.maxed[c.Index].IsZero() {
		g.maxed[c.Index] = at
	}
	since := g.maxed[c.Index]
	tooHot := t.Known && t.V > g.limits.GPUHot || margin.Known && margin.V <= g.limits.GPUMargin ||
		!since.IsZero() && at.Sub(since) > maxedFor
	cool := excess < -3 && (!margin.Known || margin.V > g.limits.GPUMargin+3)
	switch {
	case !g.held[c.Index] && tooHot:
		g.held[c.Index] = true
		g.failed[c.Index] = !since.IsZero() && at.Sub(since) > maxedFor
		g.log.Error("the card is too hot: saving and waiting", "gpu", c.Index, "temperature", t, "margin", margin)
	case g.held[c.Index] && cool:
		delete(g.held, c.Index)
		delete(g.failed, c.Index)
		delete(g.maxed, c.Index)
		g.log.Info("the card has cooled: going on", "gpu", c.Index)
	}
}

// share is the largest of all guarded cards.
func (g *Governor) share() float64 {
	var m float64
	for _, s := range g.shares {
		m = max(m, s)
	}
	return m
}

// Pause is how long to rest before the next step. The length of a step is
// measured between the calls, so that the share of rest holds for any worker.
func (g *Governor) Pause() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	worked := now.Sub(g.last)
	if g.restUntil.After(g.last) {
		worked = now.Sub(g.restUntil)
	}
	first := g.last.IsZero()
	g.last = now
	if len(g.held) > 0 {
		g.restUntil = now // what follows a hold is a fresh measurement
		return holdFor
	}
	if left := g.restUntil.Sub(now); left > 0 {
		return left
	}
	share := g.share()
	if first || share <= 0 {
		return 0
	}
	rest := min(time.Duration(float64(worked)*share/(1-share)), longestRest)
	g.restUntil = now.Add(rest)
	return rest
}

// Overloaded are the cards that are held because resting as long as may be has
// not cooled them.
func (g *Governor) Overloaded() map[int]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.failed)
}

// Resting is the share of the time that is rested now, and whether work is held.
func (g *Governor) Resting() (share float64, held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.share(), len(g.held) > 0
}

// Admit returns an error while no new work should be taken.
func (g *Governor) Admit() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.held {
		return fmt.Errorf("GPU %d is too hot", i)
	}
	why := ""
	for _, text := range g.refusing {
		if why == "" || text < why { // the same one each time
			why = text
		}
	}
	if why != "" {
		return errors.New(why)
	}
	return nil
}
