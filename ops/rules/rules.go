// Package rules judges what the sensors read. Rules are values; an Engine turns
// snapshots into transitions (a condition begins or ends), and a Governor turns
// both into what the worker does about them. Time comes from the snapshots, so
// tests move it. An unknown reading neither fires nor resolves anything.
package rules

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/queue"
)

// Snapshot is one look at everything.
type Snapshot struct {
	At    time.Time
	Host  string // name of this machine
	Cards []gpu.Sample
	Local host.Sample
	Queue *queue.Stats // nil: not looked at this time

	Workers  []Quiet            // all workers of the service, by name
	Jobs     []Quiet            // the jobs in this worker's hands, by id
	Unread   map[string]float64 // consumer of the outbox → seconds that its oldest message waits
	Retired  map[string]bool    // consumers of whom nothing is expected
	Failures *Rate              // nil: not looked at
	Poison   *Poison            // nil: not looked at
	Sessions []Session          // this bot's connections to chat platforms
	// Overloaded are the cards that resting has not cooled ([Governor.Overloaded]).
	Overloaded map[int]bool
	// Elsewhere: another process judges the shared rules, for all.
	Elsewhere bool
}

// Poison are the inputs that were set aside lately because they crash workers.
type Poison struct {
	Jobs   int           // within Window
	Window time.Duration // how long one is told
	Newest string        // which, by which workers and how those ended; empty: none is kept
}

// Session is the connection to a chat platform.
type Session struct {
	Platform string
	Up       bool
	Problem  string // "" or why it is down
}

// Reading is one value that a rule compares with its thresholds.
type Reading struct {
	Key     string // what it is about, the same from every process that sees it
	Subject string // the same for people: "GPU 0 (NVIDIA H200) of host7"
	Value   gpu.Value
	Detail  string // appended to the message, if there is more to say
	Ended   string // the end in words; empty: the value, and that it is over
	Card    int    // index of the card, or NoCard
}

// NoCard marks a reading that is not about a card.
const NoCard = -1

// Action is what the program does by itself while a rule fires.
type Action string

// The actions.
const (
	Tell   Action = "tell"   // nothing but the alert
	Slow   Action = "slow"   // pauses between steps
	Hold   Action = "hold"   // checkpoint and wait
	Refuse Action = "refuse" // take no new work
)

// Sentence tells people what the action is.
func (a Action) Sentence() string {
	switch a {
	case Slow:
		return "The worker rests between its steps until it is cooler."
	case Hold:
		return "The worker saves its work and waits until the card has cooled."
	case Refuse:
		return "The worker finishes what it has and takes no new work until this is over."
	default:
		return ""
	}
}

// Undone tells people what the end of a rule changes.
func (a Action) Undone() string {
	switch a {
	case Slow:
		return "The worker no longer rests for it."
	case Hold:
		return "The work goes on."
	case Refuse:
		return "It no longer keeps the worker from new work."
	default:
		return ""
	}
}

// Rule is a condition with hysteresis. It fires when a reading was beyond Fire
// for Hold, and resolves when it was back at Clear for ClearHold.
type Rule struct {
	Code     string         `json:"code"`
	Title    string         `json:"title"`
	Severity queue.Severity `json:"severity"`
	// Below inverts the comparison: it fires at or under Fire.
	Below     bool          `json:"below,omitempty"`
	Fire      float64       `json:"fire"`
	Clear     float64       `json:"clear"`
	Unit      string        `json:"unit"` // °C, %, s; empty for yes or no
	Hold      time.Duration `json:"-"`    // hold_seconds
	ClearHold time.Duration `json:"-"`    // clear_hold_seconds
	Action    Action        `json:"action"`
	// Shared: every process that looks sees the same, so one of them judges it for
	// all, and ends what another began.
	Shared bool `json:"shared,omitempty"`
	// Common: many processes are likely to see the same at once, each with its own
	// eyes. While they cannot agree through the queue, one tells it for all.
	Common bool `json:"common,omitempty"`

	read func(*Snapshot) []Reading
}

// MarshalJSON writes the times in seconds, as hold_seconds and clear_hold_seconds.
func (r Rule) MarshalJSON() ([]byte, error) {
	type plain Rule
	return json.Marshal(struct {
		plain
		Hold      float64 `json:"hold_seconds"`
		ClearHold float64 `json:"clear_hold_seconds"`
	}{plain(r), r.Hold.Seconds(), r.ClearHold.Seconds()})
}

// beyond and back are the two sides of the hysteresis.
func (r *Rule) beyond(v float64) bool {
	if r.Below {
		return v <= r.Fire
	}
	return v > r.Fire
}

func (r *Rule) back(v float64) bool {
	if r.Below {
		return v >= r.Clear
	}
	return v <= r.Clear
}

// Condition is the rule in words.
func (r *Rule) Condition() string {
	lasting := func(what string, d time.Duration) string {
		if d == 0 {
			return what
		}
		return fmt.Sprintf("%s for %v", what, d)
	}
	if r.Unit == "" {
		return lasting("when it is so", r.Hold) + ", until " + lasting("it is not", r.ClearHold)
	}
	sign := ">"
	if r.Below {
		sign = "≤"
	}
	return lasting(fmt.Sprintf("%s %g %s", sign, r.Fire, r.Unit), r.Hold) + ", until " + lasting(fmt.Sprintf("%g %s", r.Clear, r.Unit), r.ClearHold)
}

// text is the message of a transition.
func (r *Rule) text(x *Reading, state queue.AlertState) string {
	value := ""
	if r.Unit != "" {
		value = fmt.Sprintf(" is at %.4g %s", x.Value.V, r.Unit)
	}
	t := fmt.Sprintf("%s: %s%s.", r.Title, x.Subject, value)
	if state == queue.Resolved && x.Ended != "" {
		return fmt.Sprintf("%s: %s. %s", r.Title, x.Subject, x.Ended)
	}
	if state == queue.Resolved {
		return strings.TrimSpace(t + " It is over. " + r.Action.Undone())
	}
	if x.Detail != "" {
		t += " " + x.Detail
	}
	if s := r.Action.Sentence(); s != "" {
		t += " " + s
	}
	return t
}

// Limits are the thresholds that people set; everything else follows from them.
type Limits struct {
	GPUWarm     float64       // °C: the worker slows down
	GPUHot      float64       // °C: the worker stops and waits
	GPUMargin   float64       // °C below the card's own slowdown: the same
	VRAM        float64       // percent
	Memory      float64       // percent
	Disk        float64       // percent: tell
	DiskRefuse  float64       // percent: take no new work
	ServerSlow  time.Duration // a server's answer
	QueueAge    time.Duration // the oldest interactive job that waits
	OutboxDepth float64       // events that a consumer has not read
	OutboxAge   time.Duration // the oldest message that waits to be sent
	WorkerLost  time.Duration // a worker's silence
	WorkerGone  time.Duration // the silence after which it is no longer expected
	NoProgress  time.Duration // a job's standstill
	FailureRate float64       // percent of the jobs that ended within FailureWindow
	// FailureWindow is the time over which failures are counted.
	FailureWindow time.Duration
}

// fewestJobs must have ended for a failure rate to mean something.
const fewestJobs = 5

// DefaultLimits are what dream watches with unless told otherwise.
func DefaultLimits() Limits {
	return Limits{
		GPUWarm: 83, GPUHot: 90, GPUMargin: 2, VRAM: 90, Memory: 90, Disk: 90, DiskRefuse: 97,
		ServerSlow: 500 * time.Millisecond, QueueAge: 15 * time.Minute, OutboxDepth: 1000,
		OutboxAge: 2 * time.Minute, WorkerLost: time.Minute, WorkerGone: 2 * time.Hour, NoProgress: 3 * time.Minute, FailureRate: 25, FailureWindow: 15 * time.Minute,
	}
}

// warmClear is how far below GPUWarm a card counts as cool again.
const warmClear = 2
