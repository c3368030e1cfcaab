package rules

import (
	"slices"
	"testing"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/queue"
)

func silent(qs []Quiet, name string) time.Duration {
	i := slices.IndexFunc(qs, func(q Quiet) bool { return q.Name == name })
	if i < 0 {
		return -1
	}
	return qs[i].For
}

func TestSilence(t *testing.T) {
	s := &Silence{Longest: 20 * time.Second}
	s.Know("old")
	s.Know("dead")
	look := func(second int, excused bool, marks map[string]string) []Quiet {
		return s.Take(at(second), marks, excused)
	}
	got := look(0, false, map[string]string{"a": "1", "b": "1", "dead": "1"})
	if silent(got, "a") != 0 || silent(got, "old") != 0 || silent(got, "dead") != -1 { // one look cannot tell of dead whether it is back
		t.Errorf("at first: %v", got)
	}
	got = look(10, false, map[string]string{"a": "2", "b": "1", "dead": "1"})
	if silent(got, "dead") != 10*time.Second || silent(got, "a") != 0 || silent(got, "b") != 10*time.Second {
		t.Errorf("a moved, b did not: %v", got)
	}
	// An hour in which nobody could look counts as one look.
	if got = look(3610, false, map[string]string{"a": "2", "b": "1"}); silent(got, "b") != 30*time.Second {
		t.Errorf("after an outage: %v", got)
	}
	if got = look(3620, true, map[string]string{"a": "2", "b": "1"}); silent(got, "b") != 30*time.Second {
		t.Errorf("excused: %v", got)
	}
	if got = look(3630, false, map[string]string{"a": "2"}); silent(got, "b") != 0 || silent(got, "a") != 30*time.Second ||
		!slices.Contains(got, Quiet{Name: "b", Gone: true, Was: 30 * time.Second}) {
		t.Errorf("b has gone: %v", got)
	}
	if got = look(3640, false, map[string]string{"b": "1"}); silent(got, "b") != 0 {
		t.Errorf("b is back: %v", got)
	}
	if got = look(9999, false, map[string]string{"b": "9"}); silent(got, "a") != -1 || silent(got, "old") != -1 {
		t.Errorf("what went long ago is still known: %v", got)
	}
}

func TestOutcomes(t *testing.T) {
	o := &Outcomes{Window: time.Minute}
	for _, x := range []struct {
		second                   int
		done, failed, input, bad int64
		want                     Rate
	}{
		{0, 100, 7, 5, 1, Rate{}}, // what was before counts not
		{10, 104, 8, 5, 1, Rate{5, 1}},
		{20, 104, 18, 15, 1, Rate{5, 1}}, // ten with bad input say nothing
		{30, 104, 18, 15, 2, Rate{6, 2}},
		{81, 105, 18, 15, 2, Rate{1, 0}},
		{91, 2, 0, 0, 0, Rate{}}, // emptied
	} {
		if got := o.Take(at(x.second), map[string]int64{"done": x.done, "failed": x.failed, "failed_input": x.input, "quarantined": x.bad}); got != x.want {
			t.Errorf("second %d: %+v, want %+v", x.second, got, x.want)
		}
	}
}

// A worker that is given up, forgotten or has said goodbye ends its alert with a
// sentence, as one that is back does.
func TestTheEndOfALostWorker(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	text := func(second int, q Quiet) string {
		q.Name = "w"
		s := ""
		for _, c := range e.Evaluate(&Snapshot{At: at(second), Workers: []Quiet{q}}) {
			s += string(c.State) + ": " + c.Text
		}
		return s
	}
	lost := "firing: A worker is lost: worker w is at 7200 s of silence."
	for i, x := range []struct {
		look Quiet
		want string
	}{
		{Quiet{For: 2 * time.Hour}, lost},
		{Quiet{Gone: true, Was: 2 * time.Hour}, "resolved: A worker is lost: worker w. It was silent for 2h0m0s and is no longer expected."},
		{Quiet{For: 2 * time.Hour}, lost},
		{Quiet{}, "resolved: A worker is lost: worker w. It gives signs of life again."},
		{Quiet{For: 2 * time.Hour}, lost},
		{Quiet{Gone: true}, "resolved: A worker is lost: worker w. It is no longer expected."},
	} {
		if got := text(i, x.look); got != x.want {
			t.Errorf("look %d: %q, want %q", i, got, x.want)
		}
	}
}

func TestRetiredConsumers(t *testing.T) {
	c, e := &Consumers{}, NewEngine(Default(DefaultLimits()))
	served := map[string]bool{"bots/slack": true}
	look := func(second int, outbox map[string]int64) string {
		s := &Snapshot{At: at(second), Queue: &queue.Stats{Outbox: outbox}, Unread: map[string]float64{}}
		for name, n := range outbox {
			s.Unread[name] = float64(n)
		}
		s.Retired = c.Retired(s.At, outbox, func(name string) bool { return served[name] })
		return states(e.Evaluate(s))
	}
	waiting := map[string]int64{"bots/slack": 5000, "bots/old": 9000}
	if got := look(0, waiting); got != "outbox_age firing" { // of one
		t.Errorf("%q", got)
	}
	if got := look(60, waiting); got != "outbox firing" {
		t.Errorf("%q", got)
	}
	delete(served, "bots/slack") // its bot was not seen for long
	look(70, waiting)
	if got := look(80, waiting); got != "outbox resolved, outbox_age resolved" {
		t.Errorf("%q", got)
	}
	served["bots/slack"] = true
	look(90, waiting)
	if got := look(150, waiting); got != "outbox firing" {
		t.Errorf("it is back: %q", got)
	}
	look(160, map[string]int64{}) // an operator forgot both
	if got := look(170, map[string]int64{}); got != "outbox resolved, outbox_age resolved" {
		t.Errorf("%q", got)
	}
	if look(9999, map[string]int64{}); len(c.known) != 0 {
		t.Errorf("what went long ago is still known: %v", c.known)
	}
}

// What another process judges is not judged here; who takes over goes on.
func TestSharedRulesElsewhere(t *testing.T) {
	first, second := NewEngine(Default(DefaultLimits())), NewEngine(Default(DefaultLimits()))
	see := func(e *Engine, sec int, elsewhere bool, silent time.Duration) string {
		return states(e.Evaluate(&Snapshot{At: at(sec), Elsewhere: elsewhere, Workers: []Quiet{{Name: "w", For: silent}}, Jobs: []Quiet{{Name: "j", For: silent}}}))
	}
	if a, b := see(first, 0, false, time.Hour), see(second, 0, true, time.Hour); a != "worker_lost firing, no_progress firing" || b != "no_progress firing" {
		t.Errorf("%q and %q", a, b)
	}
	first.Release()
	second.Adopt("worker_lost", "w", at(0))
	if n := first.Firing(); n["worker_lost"] != 0 || n["no_progress"] != 1 {
		t.Errorf("%v", n)
	}
	if a, b := see(first, 1, true, 0), see(second, 1, false, 0); a != "no_progress resolved" || b != "worker_lost resolved, no_progress resolved" {
		t.Errorf("%q and %q", a, b)
	}
}

func TestFailureRateNeedsSomeJobs(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	at0 := func(second int, r Rate) string { return states(e.Evaluate(&Snapshot{At: at(second), Failures: &r})) }
	if got := at0(0, Rate{4, 4}); got != "" {
		t.Errorf("four jobs are too few: %s", got)
	}
	if got := at0(1, Rate{5, 2}); got != "failure_rate firing" {
		t.Errorf("two of five: %q", got)
	}
	at0(2, Rate{2, 1})
	if got := at0(99, Rate{2, 1}); got != "" {
		t.Errorf("two jobs say nothing: %s", got)
	}
	at0(100, Rate{})
	if got := at0(200, Rate{}); got != "failure_rate resolved" {
		t.Errorf("nothing fails any more: %q", got)
	}
}

func TestOverride(t *testing.T) {
	rs, err := Override(Default(DefaultLimits()), []string{"disk fire=80 clear=70.5 hold=1s clear_hold=2s severity=critical", "memory off", "gpu_warm clear_hold=1s", ""})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rs, func(r Rule) bool { return r.Code == "disk" })
	if r := rs[i]; r.Fire != 80 || r.Clear != 70.5 || r.Hold != time.Second || r.ClearHold != 2*time.Second || r.Severity != "critical" {
		t.Errorf("disk is %+v", r)
	}
	if slices.ContainsFunc(rs, func(r Rule) bool { return r.Code == "memory" }) {
		t.Error("memory is still there")
	}
	for line, want := range map[string]string{
		"dsk off":               `there is no rule "dsk" (dream ops rules lists them)`,
		"disk fire=hot":         "rule disk: fire=hot is not a number",
		"gpu_memory fire=NaN":   "rule gpu_memory: fire=NaN is not a number that can be reached; off switches a rule off",
		"outbox fire=+Inf":      "rule outbox: fire=+Inf is not a number that can be reached; off switches a rule off",
		"failure_rate fire=250": "rule failure_rate: fire=250 is not a percentage",
		"memory off now":        "rule memory: off stands alone",
		"memory fire=80 off":    "rule memory: off stands alone",
		"disk colour=red":       `rule disk: "colour=red" is unknown; possible are fire=, clear=, hold=, clear_hold=, severity= and off`,
		"disk hold=-1s":         "rule disk: hold=-1s is negative",
		"disk severity=loud":    `rule disk: severity "loud" is not info, warning or critical`,
		"disk clear=95":         "rule disk: it would end at 95 % before it begins at 90",
		"gpu_warm fire=20":      "rule gpu_warm: set ops.gpu_warm to change its threshold",
		"gpu_margin clear=20":   "rule gpu_margin: set ops.gpu_margin to change its threshold",
	} {
		if _, err := Override(Default(DefaultLimits()), []string{line}); err == nil || err.Error() != want {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestRestingFailsIsTold(t *testing.T) {
	l := DefaultLimits()
	g := NewGovernor(l, func(*gpu.Sample) bool { return true }, nil, nil)
	e := NewEngine(Default(l))
	var got []string
	look := func(second int, celsius float64) {
		s := cardAt(second, celsius)
		s.Overloaded = g.Overloaded()
		changes := e.Evaluate(s)
		g.Observe(s, changes)
		if x := states(changes); x != "" {
			got = append(got, x)
		}
	}
	for second := range 400 {
		look(second, 89) // whatever the worker does
	}
	for second := 400; second < 450; second++ {
		look(second, 50)
	}
	want := []string{"gpu_warm firing", "gpu_overloaded firing", "gpu_overloaded resolved", "gpu_warm resolved"}
	if !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}
