package queuetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"dreamcad/queue"
)

func switches(b *bench) {
	b.submit(Request("a", "1"))
	b.submit(bulk("b", "2"))
	for _, s := range []struct {
		scope queue.Scope
		name  string
		left  string
	}{{queue.AllJobs, "", ""}, {queue.OfClass, "interactive", "2"}, {queue.OfClass, "bulk", "1"}, {queue.OfUser, "test:a", "2"}, {queue.OfUser, "test:b", "1"}} {
		b.ok(b.q.Pause(b.ctx, s.scope, s.name, "why"))
		b.ok(b.q.Pause(b.ctx, s.scope, s.name, "why"))
		st, err := b.q.Stats(b.ctx)
		b.ok(err)
		if len(st.Switches) != 1 || st.Switches[0].Scope != s.scope || st.Switches[0].Name != s.name || st.Switches[0].Why != "why" {
			b.t.Fatalf("switches %+v", st.Switches)
		}
		b.audit()
		if s.left == "" {
			b.empty(Caps("w"))
		} else {
			l := b.lease("w")
			if l.Job.Prompt != s.left {
				b.t.Fatalf("%s %s paused: leased %q", s.scope, s.name, l.Job.Prompt)
			}
			b.empty(Caps("w"))
			b.ok(b.q.GiveBack(b.ctx, l.Ref(), queue.GiveBackOptions{Reason: queue.Returned, Used: 1}))
		}
		b.ok(b.q.Resume(b.ctx, s.scope, s.name))
		b.ok(b.q.Resume(b.ctx, s.scope, s.name))
	}
	b.ok(b.q.Pause(b.ctx, queue.OfUser, "test:c", ""))
	b.submit(Request("c", "3")) // submit while paused
	b.audit()
	got := []string{b.lease("w").Job.Prompt, b.lease("w").Job.Prompt}
	if !slices.Equal(got, []string{"1", "2"}) {
		b.t.Fatalf("order afterwards %v", got)
	}
	b.empty(Caps("w"))
	b.ok(b.q.Resume(b.ctx, queue.OfUser, "test:c"))
	b.lease("w")
	b.code(b.q.Pause(b.ctx, queue.OfClass, "nonsense", ""), queue.CodeInvalid)
}

func requeue(b *bench) {
	id := b.submit(Request("a", "1"))
	b.code(b.q.Requeue(b.ctx, id), queue.CodeConflict)
	_, err := b.q.Fail(b.ctx, b.lease("w").Ref(), queue.Failure{Kind: queue.FailInput})
	b.ok(err)
	b.ok(b.q.Requeue(b.ctx, id))
	l := b.lease("w")
	if l.Job.ID != id || l.Job.Attempt != 2 || l.Job.Failure != nil {
		b.t.Fatalf("%+v", l.Job)
	}
	b.complete(l, 1)
	b.code(b.q.Requeue(b.ctx, id), queue.CodeConflict)
}

func outbox(b *bench) {
	if end, err := b.q.End(b.ctx); err != nil || len(b.events(end)) != 0 {
		b.t.Fatalf("empty stream: end %q %v", end, err)
	}
	c, err := b.q.Cursor(b.ctx, "discord")
	b.ok(err)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_, _ = b.q.Submit(b.ctx, Request("a", "1"))
	}()
	es, err := b.q.Events(b.ctx, c, 10, time.Minute)
	b.ok(err)
	if kinds(es) != "accepted" {
		b.t.Fatal(kinds(es))
	}
	b.submit(Request("a", "2"))
	// Nothing acknowledged: the same again after a restart of the consumer.
	c2, err := b.q.Cursor(b.ctx, "discord")
	b.ok(err)
	if c2 != c || len(b.events(c2)) != 2 {
		b.t.Fatalf("cursor %q then %q", c, c2)
	}
	b.ok(b.q.Ack(b.ctx, "discord", es[0].ID))
	c2, err = b.q.Cursor(b.ctx, "discord")
	b.ok(err)
	if es2 := b.events(c2); len(es2) != 1 || es2[0].ID == es[0].ID {
		b.t.Fatalf("after ack: %v", es2)
	}
	b.ok(b.q.Ack(b.ctx, "discord", es[0].ID)) // late and repeated
	b.ok(b.q.Ack(b.ctx, "discord", b.events("")[1].ID))
	b.ok(b.q.Ack(b.ctx, "discord", es[0].ID)) // never back
	c2, err = b.q.Cursor(b.ctx, "discord")
	b.ok(err)
	if len(b.events(c2)) != 0 {
		b.t.Fatal("the cursor went back")
	}
	st, err := b.q.Stats(b.ctx)
	b.ok(err)
	if st.Outbox["discord"] != 0 {
		b.t.Fatalf("outbox %v", st.Outbox)
	}
	es, err = b.q.Events(b.ctx, c2, 10, 50*time.Millisecond)
	if err != nil || len(es) != 0 {
		b.t.Fatal(es, err)
	}
	// A retired consumer counts no more; should it come back, it begins at the end.
	b.submit(Request("a", "3"))
	for range 2 {
		b.ok(b.q.Retire(b.ctx, "discord"))
	}
	st, err = b.q.Stats(b.ctx)
	b.ok(err)
	if n, there := st.Outbox["discord"]; there {
		b.t.Fatalf("retired, with %d events to read", n)
	}
	c, err = b.q.Cursor(b.ctx, "discord")
	b.ok(err)
	if len(b.events(c)) != 0 {
		b.t.Fatal("a retired consumer reads old events")
	}
}

func listResolve(b *bench) {
	var ids []string
	for i := range 5 {
		ids = append(ids, b.submit(Request("a", fmt.Sprint(i))))
	}
	other := b.submit(Request("b", "other"))
	l := b.lease("w")
	js, err := b.q.List(b.ctx, queue.Filter{User: "test:a", Limit: 3})
	b.ok(err)
	if len(js) != 3 || js[0].ID != ids[4] || js[2].ID != ids[2] {
		b.t.Fatalf("list: %v", js)
	}
	js, err = b.q.List(b.ctx, queue.Filter{User: "test:a", Limit: 3, Offset: 3})
	b.ok(err)
	if len(js) != 2 || js[1].ID != ids[0] {
		b.t.Fatalf("second page: %v", js)
	}
	js, err = b.q.List(b.ctx, queue.Filter{Status: []queue.Status{queue.Leased}})
	b.ok(err)
	if len(js) != 1 || js[0].ID != l.Job.ID {
		b.t.Fatalf("leased: %v", js)
	}
	js, err = b.q.List(b.ctx, queue.Filter{User: "test:a", Status: []queue.Status{queue.Queued}})
	b.ok(err)
	if len(js) != 4 {
		b.t.Fatalf("a's queued: %d", len(js))
	}
	js, err = b.q.List(b.ctx, queue.Filter{})
	b.ok(err)
	if len(js) != 6 {
		b.t.Fatalf("all: %d", len(js))
	}
	for _, e := range []string{other, other[len(other)-8:]} {
		id, err := b.q.Resolve(b.ctx, e)
		if err != nil || id != other {
			b.t.Fatalf("resolve %q: %q %v", e, id, err)
		}
	}
	_, err = b.q.Resolve(b.ctx, "zzzzzz")
	b.code(err, queue.CodeNotFound)
	_, err = b.q.Resolve(b.ctx, other[len(other)-3:])
	b.code(err, queue.CodeAmbiguous)
	for _, id := range []string{"AAAAAAAA-twin-1234567", "BBBBBBBB-twin-1234567"} {
		r := Request("a", id)
		r.ID = id
		b.submit(r)
	}
	_, err = b.q.Resolve(b.ctx, "-1234567")
	b.code(err, queue.CodeAmbiguous)
}

func stats(b *bench) {
	for i := range 4 {
		b.submit(Request("a", fmt.Sprint(i)))
	}
	b.submit(bulk("b", "1"))
	b.Advance(10 * time.Second)
	l := b.lease("w")
	b.complete(l, 2)
	l = b.lease("w")
	b.Advance(40 * time.Second)
	s, err := b.q.Stats(b.ctx)
	b.ok(err)
	if s.Queued[queue.Interactive] != 2 || s.Queued[queue.Bulk] != 1 || s.Leased != 1 || s.Overdue != 1 || s.Ended[queue.Done] != 1 ||
		s.Oldest[queue.Interactive] < 49 || s.Counters["submitted"] != 5 || s.Counters["done"] != 1 || s.Durations["mini/mesh draft"].Samples != 1 {
		b.t.Fatalf("%+v", s)
	}
	if len(s.Workers) != 1 || s.Workers[0].Name != "w" || s.Workers[0].Worker != "w/1" {
		b.t.Fatalf("workers %+v", s.Workers)
	}
	b.code(b.q.Complete(b.ctx, queue.Ref{Job: l.Job.ID, Lease: "wrong"}, queue.Result{}), queue.CodeLost)
	b.tick()
	s, err = b.q.Stats(b.ctx)
	b.ok(err)
	if s.Counters["refused_lost"] != 1 || s.Counters["lost"] != 1 || s.Counters["crashes"] != 1 {
		b.t.Fatalf("counters %v", s.Counters)
	}
}

// oldestWaiting: the age told is that of the job that has waited longest, whether
// or not it stands first; who comes back waits from then on.
func oldestWaiting(b *bench) {
	want := func(sec float64) {
		b.t.Helper()
		s, err := b.q.Stats(b.ctx)
		b.ok(err)
		if got, ok := s.Oldest[queue.Interactive]; sec < 0 && ok || sec >= 0 && (!ok || float64(got) < sec || float64(got) > sec+14) {
			b.t.Fatalf("the oldest waits for %v s (%v), want %v", got, ok, sec)
		}
	}
	want(-1)
	b.submit(Request("a", "first"))
	b.Advance(100 * time.Second)
	b.submit(Request("a", "second"))
	b.Advance(20 * time.Second)
	want(120)
	first := b.lease("w")
	want(20)
	b.submit(Request("b", "third"))
	b.Advance(5 * time.Second)
	b.ok(b.q.GiveBack(b.ctx, first.Ref(), queue.GiveBackOptions{Reason: queue.Returned, Used: 1}))
	b.Advance(10 * time.Second)
	want(35) // the second, though the first stands before it again
	for range 3 {
		b.complete(b.lease("w"), 1)
	}
	want(-1)
}

func keepLimits(b *bench) {
	var ids []string
	for i := range 5 {
		ids = append(ids, b.submit(Request("a", fmt.Sprint(i))))
		b.complete(b.lease("w"), 1)
		b.Advance(time.Second)
	}
	for range 3 {
		b.tick()
	}
	for i, id := range ids {
		_, err := b.q.Job(b.ctx, id)
		if gone := errors.Is(err, queue.ErrNotFound); gone != (i < 2) {
			b.t.Fatalf("job %d: %v", i, err)
		}
	}
	s, err := b.q.Stats(b.ctx)
	b.ok(err)
	if s.Counters["dropped_done"] != 2 || s.Ended[queue.Done] != 3 {
		b.t.Fatalf("%v %v", s.Counters, s.Ended)
	}
	b.Advance(31 * 24 * time.Hour)
	b.tick()
	js, err := b.q.List(b.ctx, queue.Filter{User: "test:a"})
	b.ok(err)
	if len(js) != 0 {
		b.t.Fatalf("%d jobs older than the keep age", len(js))
	}
}

func forget(b *bench) {
	done := b.submit(Request("a", "1"))
	b.complete(b.lease("w"), 1)
	live := b.submit(Request("a", "2"))
	other := b.submit(Request("b", "3"))
	ids, err := b.q.Forget(b.ctx, "test:a")
	b.ok(err)
	if !slices.Equal(ids, []string{done}) {
		b.t.Fatalf("forgot %v", ids)
	}
	_, err = b.q.Job(b.ctx, done)
	b.code(err, queue.CodeNotFound)
	b.status(live, queue.Queued)
	b.status(other, queue.Queued)
}

func check(b *bench) {
	fs := b.q.Check(b.ctx)
	if len(fs) == 0 {
		b.t.Fatal("no findings")
	}
	for _, f := range fs {
		if f.Code == "" || f.Text == "" || f.Severity == queue.Critical {
			b.t.Fatalf("%+v", f)
		}
	}
	if !errors.Is(queue.NotFound("job", "x"), queue.ErrNotFound) {
		b.t.Fatal("errors.Is by code")
	}
}
