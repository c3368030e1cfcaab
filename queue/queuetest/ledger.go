package queuetest

import (
	"context"
	"testing"
	"time"

	"dreamcad/queue"
)

// Ledger follows acknowledged jobs to their outcomes: the counts of the fault
// matrix.
type Ledger struct {
	T       testing.TB
	Q       queue.Queue
	Want    []string // ids of acknowledged jobs
	counted map[string]bool
}

// The lines that make test-faults adds up over the rounds of a row.
const (
	CountsLine  = "counts: %d jobs, %d lost, %d effects other than once"
	RestartLine = "restart: %d ms after the fault"
)

// Counts writes what a row saw: acknowledged jobs, those that were lost, and
// those whose effect happened other than once.
func Counts(t testing.TB, jobs, lost, twice int) {
	t.Helper()
	t.Logf(CountsLine, jobs, lost, twice)
}

// Restarted writes how long after the fault the work began again.
func Restarted(t testing.TB, after time.Duration) {
	t.Helper()
	t.Logf(RestartLine, after.Milliseconds())
}

// Settle waits until every job is over and returns how many are lost (unknown
// or not over in time) and how many have other than one outcome event.
func (l *Ledger) Settle(ctx context.Context, within time.Duration) (lost, twice int) {
	l.T.Helper()
	end := time.Now().Add(within)
	for _, id := range l.Want {
		for {
			j, err := l.Q.Job(ctx, id)
			if err == nil && j.Status.Terminal() {
				break
			}
			if time.Now().After(end) {
				l.T.Logf("job %s is %s (%v) at the end", id, j.Status, err)
				lost++
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	n := map[string]int{}
	for cur := ""; ; {
		es, err := l.Q.Events(ctx, cur, 1000, 0)
		if err != nil {
			l.T.Fatal(err)
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			if e.Kind.Outcome() {
				n[e.Job]++
			}
			cur = e.ID
		}
	}
	for _, id := range l.Want {
		if n[id] > 1 || n[id] == 0 && lost == 0 {
			l.T.Logf("job %s has %d outcomes", id, n[id])
			twice++
		}
	}
	return lost, twice
}

// Check is Settle that must find nothing, with the invariants. A ledger counts
// each job once, however often it is checked.
func (l *Ledger) Check(ctx context.Context, within time.Duration) {
	l.T.Helper()
	lost, twice := l.Settle(ctx, within)
	fresh := 0
	if l.counted == nil {
		l.counted = map[string]bool{}
	}
	for _, id := range l.Want {
		if !l.counted[id] {
			l.counted[id] = true
			fresh++
		}
	}
	Counts(l.T, fresh, lost, twice)
	if lost > 0 || twice > 0 {
		l.T.Error("jobs were lost or told other than once")
	}
	if vs, err := l.Q.Audit(ctx); err != nil || len(vs) > 0 {
		l.T.Errorf("invariants: %v %v", vs, err)
	}
}
