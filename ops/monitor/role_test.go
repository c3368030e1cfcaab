package monitor

import (
	"testing"
	"time"

	"dreamcad/queue"
)

func TestRole(t *testing.T) {
	for name, q := range states(t) {
		t.Run(name, func(t *testing.T) { testRole(t, q) })
	}
}

func testRole(t *testing.T, q queue.State) {
	now := time.Unix(1_700_000_000, 0)
	fleet := []Live{{Name: "a", Host: "h1"}, {Name: "b", Host: "h1"}, {Name: "c", Host: "h2"}}
	const life = 5 * time.Second // longer than the steps below take
	a, b, c := NewRole(q, "a", "h1", life), NewRole(q, "b", "h1", life), NewRole(q, "c", "h2", life)
	take := func(r *Role) (gained, lost bool) {
		t.Helper()
		gained, lost, err := r.Take(t.Context(), now, fleet)
		if err != nil {
			t.Fatal(err)
		}
		return gained, lost
	}
	if a.Owner() || a.Defers(now) {
		t.Error("before the queue has answered each tells for itself and none judges for all")
	}
	for range 2 {
		take(a)
		take(b)
		take(c)
	}
	if !a.Owner() || b.Owner() || c.Owner() {
		t.Fatal("there is not one owner")
	}
	defers := func(when string, at time.Time, wants ...bool) {
		t.Helper()
		for i, r := range []*Role{a, b, c} {
			if got := r.Defers(at); got != wants[i] {
				t.Errorf("%s: process %d defers: %v", when, i, got)
			}
		}
	}
	now = now.Add(time.Hour)
	defers("in good times", now, false, false, false)
	for _, r := range []*Role{a, b, c} {
		r.Away(now)
		r.Away(now.Add(time.Second))
	}
	defers("the queue is away", now.Add(time.Second), false, true, true)
	defers("it stays away: a deputy of another host stands in", now.Add(2*DeputyAfter), false, true, false)

	now = now.Add(3 * DeputyAfter)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // the record ends
		if gained, _ := take(b); gained && b.Owner() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody takes over")
		}
	}
	if _, lost := take(a); !lost || a.Owner() {
		t.Error("two owners")
	}
	take(c)
	defers("back a moment ago: what a told may not be noted yet, so that b holds back though it owns the role", now.Add(time.Second), false, true, true)
	for _, r := range []*Role{a, b, c} {
		r.Away(now.Add(2 * time.Second))
	}
	defers("away again at once: the same outage", now.Add(3*time.Second), false, true, true)
	defers("its deputy stands in", now.Add(2*DeputyAfter), false, true, false)
	now = now.Add(3 * DeputyAfter)
	take(b)
	take(a)
	take(c)
	defers("back", now.Add(time.Minute), false, false, false)
	now = now.Add(time.Hour)
	for _, r := range []*Role{a, b, c} {
		r.Away(now)
	}
	defers("the next outage is the new owner's", now.Add(time.Second), true, false, true)
	take(b)
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gained, _ := take(c); !gained || b.Owner() {
		t.Error("the role was not handed over")
	}
}

func TestServed(t *testing.T) {
	q := states(t)["sqlite"]
	at := time.Unix(1_700_000_000, 0).UTC()
	if err := Serve(t.Context(), q, "bots/slack", at); err != nil {
		t.Fatal(err)
	}
	got, err := Served(t.Context(), q)
	if err != nil || len(got) != 1 || !got["bots/slack"] {
		t.Errorf("%v %v", got, err)
	}
	if last, err := LastServed(t.Context(), q, "bots/slack"); err != nil || !last.Equal(at) {
		t.Errorf("%v %v", last, err)
	}
	if err := Unserve(t.Context(), q, "bots/slack"); err != nil {
		t.Fatal(err)
	}
	if last, err := LastServed(t.Context(), q, "bots/slack"); err != nil || !last.IsZero() {
		t.Errorf("%v %v", last, err)
	}
}
