package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dreamcad/queue"
)

func retries(b *bench) {
	id := b.submit(Request("a", "1"))
	l := b.lease("w")
	st, err := b.q.Fail(b.ctx, l.Ref(), queue.Failure{Kind: queue.FailError, Detail: "boom", Used: 5})
	b.ok(err)
	again, err := b.q.Fail(b.ctx, l.Ref(), queue.Failure{Kind: queue.FailError, Detail: "boom", Used: 5})
	b.ok(err)
	if st != queue.Scheduled || again != st {
		b.t.Fatalf("status %s, repeated %s", st, again)
	}
	j := b.status(id, queue.Scheduled)
	if j.Failures != 1 || j.Failure == nil || j.Failure.Detail != "boom" || j.NotBefore.IsZero() || j.Used != 5 {
		b.t.Fatalf("job %+v", j)
	}
	b.audit()
	b.empty(Caps("w"))
	b.Advance(6 * time.Second) // base 5 s
	if n := b.tick(); n.Promoted != 1 {
		b.t.Fatalf("tick %+v", n)
	}
	l = b.lease("w")
	st, err = b.q.Fail(b.ctx, l.Ref(), queue.Failure{Kind: queue.FailError, Sentence: "The model ran out of ideas."})
	b.ok(err)
	if st != queue.Failed {
		b.t.Fatalf("status %s after the last attempt", st)
	}
	es := b.events("")
	if k := kinds(es); k != "accepted started started failed" || es[3].Message != "The model ran out of ideas." {
		b.t.Fatalf("events %s %q", k, es[3].Message)
	}
}

func badInput(b *bench) {
	id := b.submit(Request("a", "1"))
	st, err := b.q.Fail(b.ctx, b.lease("w").Ref(), queue.Failure{Kind: queue.FailInput, Sentence: "No such model."})
	b.ok(err)
	if j := b.status(id, queue.Failed); st != queue.Failed || j.Failures != 0 || j.Failure.Sentence != "No such model." {
		b.t.Fatalf("%s %+v", st, j)
	}
}

func quarantine(b *bench) {
	seed := int64(7)
	r := Request("a", "poison")
	r.Seed = &seed
	id := b.submit(r)
	for i := range 3 {
		l := b.lease(fmt.Sprint("w", i))
		if l.Job.ID != id {
			b.t.Fatal("another job")
		}
		st, err := b.q.Fail(b.ctx, l.Ref(), queue.Failure{Kind: queue.FailStuck, Detail: "no step"})
		b.ok(err)
		switch want := []queue.Status{queue.Queued, queue.Scheduled, queue.Quarantined}[i]; {
		case st != want:
			b.t.Fatalf("crash %d: %s, want %s", i+1, st, want)
		case st == queue.Scheduled:
			b.audit()
			b.Advance(6 * time.Second)
			b.tick()
		}
	}
	if j := b.status(id, queue.Quarantined); j.Crashes != 3 || j.Failures != 0 {
		b.t.Fatalf("%+v", j)
	}
	if k := kinds(b.events("")); k != "accepted started started started failed" {
		b.t.Fatal(k)
	}
	r.ID = ""
	_, err := b.q.Submit(b.ctx, r)
	b.code(err, queue.CodeQuarantined)
	b.ok(b.q.Release(b.ctx, id))
	id2 := b.submit(r)
	// Two deaths of the process in a row are enough.
	for range 2 {
		l := b.lease("w9")
		_, err := b.q.Fail(b.ctx, l.Ref(), queue.Failure{Kind: queue.FailDied, Detail: "signal: segmentation fault"})
		b.ok(err)
	}
	b.status(id2, queue.Quarantined)
	b.ok(b.q.Requeue(b.ctx, id2))
	if l := b.lease("w"); l.Job.ID != id2 || l.Job.Crashes != 0 {
		b.t.Fatalf("requeued: %+v", l.Job)
	}
}

func cancel(b *bench) {
	mustCancel := func(id string) {
		b.t.Helper()
		for range 2 {
			st, err := b.q.Cancel(b.ctx, id)
			if err != nil || st != queue.Cancelled {
				b.t.Fatalf("cancel: %s %v", st, err)
			}
		}
		b.status(id, queue.Cancelled)
		b.audit()
	}
	mustCancel(b.submit(Request("a", "queued")))
	id := b.submit(Request("a", "scheduled"))
	_, err := b.q.Fail(b.ctx, b.lease("w").Ref(), queue.Failure{Kind: queue.FailError})
	b.ok(err)
	mustCancel(id)
	id = b.submit(Request("a", "leased"))
	l := b.lease("w")
	mustCancel(id)
	a, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	b.ok(err)
	if a.Directive != queue.StopCancel {
		b.t.Fatalf("directive %q", a.Directive)
	}
	b.code(b.q.Complete(b.ctx, l.Ref(), queue.Result{}), queue.CodeCancelled)
	id = b.submit(Request("a", "done"))
	b.complete(b.lease("w"), 1)
	st, err := b.q.Cancel(b.ctx, id)
	b.code(err, queue.CodeConflict)
	if st != queue.Done {
		b.t.Fatal(st)
	}
	_, err = b.q.Cancel(b.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
	b.code(err, queue.CodeNotFound)

	// Cancel races completion: one of the two, told once.
	end, err := b.q.End(b.ctx)
	b.ok(err)
	const n = 20
	for range n {
		id := b.submit(Request("a", "race"))
		l := b.lease("w")
		var wg sync.WaitGroup
		var cerr, derr error
		wg.Go(func() { _, cerr = b.q.Cancel(b.ctx, id) })
		wg.Go(func() { derr = b.q.Complete(b.ctx, l.Ref(), queue.Result{Used: 1}) })
		wg.Wait()
		if (cerr == nil) == (derr == nil) {
			b.t.Fatalf("cancel: %v, complete: %v", cerr, derr)
		}
	}
	outcomes := 0
	for _, e := range b.events(end) {
		if e.Kind.Outcome() {
			outcomes++
		}
	}
	if outcomes != n {
		b.t.Fatalf("%d outcomes of %d jobs", outcomes, n)
	}
}

func giveBack(b *bench) {
	first := b.submit(Request("a", "1"))
	b.submit(Request("a", "2"))
	l := b.lease("w")
	o := queue.GiveBackOptions{Reason: queue.Drained, Used: 3, Checkpoint: &queue.Checkpoint{Key: "c", Step: 5}}
	b.ok(b.q.GiveBack(b.ctx, l.Ref(), o))
	b.ok(b.q.GiveBack(b.ctx, l.Ref(), o))
	j := b.status(first, queue.Queued)
	if j.Failures != 0 || j.Crashes != 0 || j.Check.Step != 5 || j.Used != 3 {
		b.t.Fatalf("%+v", j)
	}
	a, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	b.ok(err)
	if a.Directive != queue.StopLost {
		b.t.Fatal(a.Directive)
	}
	if l := b.lease("w"); l.Job.ID != first || l.Job.Check == nil {
		b.t.Fatal("not at the head of the line, or without its checkpoint")
	}
}

func yield(b *bench) {
	b.submit(bulk("a", "long"))
	l := b.lease("w")
	ask := func(l *queue.Lease) queue.Directive {
		b.t.Helper()
		a, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
		b.ok(err)
		return a.Directive
	}
	if d := ask(l); d != queue.GoOn {
		b.t.Fatal(d)
	}
	b.submit(Request("b", "chat"))
	if d := ask(l); d != queue.GoOn {
		b.t.Fatalf("%s before the chat job has waited", d)
	}
	b.Advance(3 * time.Second)
	if d := ask(l); d != queue.YieldBulk {
		b.t.Fatalf("%s while chat waits", d)
	}
	if d := ask(l); d != queue.YieldBulk {
		b.t.Fatalf("%s when asked again", d)
	}
	b.ok(b.q.GiveBack(b.ctx, l.Ref(), queue.GiveBackOptions{Reason: queue.Yielded, Used: 9}))
	chat := b.lease("w")
	if chat.Job.Prompt != "chat" {
		b.t.Fatal("chat does not go first")
	}
	b.complete(chat, 1)
	l = b.lease("w")
	if l.Job.Prompt != "long" || l.Job.Failures != 0 {
		b.t.Fatalf("%+v", l.Job)
	}
	b.submit(Request("b", "chat again"))
	b.Advance(3 * time.Second)
	if d := ask(l); d != queue.GoOn {
		b.t.Fatalf("%s: a job yields at most once in YieldGap", d)
	}
	// A slot that comes free soon is enough.
	b.Advance(6 * time.Minute)
	_, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	b.ok(err)
}

func drain(b *bench) {
	b.submit(Request("a", "1"))
	b.submit(Request("a", "2"))
	l := b.lease("w1")
	b.ok(b.q.Pause(b.ctx, queue.OfWorker, "w1", "maintenance"))
	a, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	b.ok(err)
	if a.Directive != queue.DrainWorker {
		b.t.Fatal(a.Directive)
	}
	b.empty(Caps("w1"))
	b.lease("w2")
	b.ok(b.q.Resume(b.ctx, queue.OfWorker, "w1"))
	b.ok(b.q.GiveBack(b.ctx, l.Ref(), queue.GiveBackOptions{Reason: queue.Drained}))
	b.lease("w1")
}

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

func waitingLease(b *bench) {
	c := Caps("w")
	c.Wait = 300 * time.Millisecond
	start := time.Now()
	b.empty(c)
	if d := time.Since(start); d < 250*time.Millisecond {
		b.t.Fatalf("returned after %v", d)
	}
	c.Wait = time.Minute
	type answer struct {
		l   *queue.Lease
		err error
	}
	ch := make(chan answer)
	for range 2 {
		go func() {
			l, err := b.q.Lease(b.ctx, c)
			ch <- answer{l, err}
		}()
	}
	time.Sleep(50 * time.Millisecond)
	b.submit(Request("a", "1"))
	b.submit(Request("a", "2"))
	got := map[string]bool{}
	for range 2 {
		a := <-ch
		b.ok(a.err)
		got[a.l.Job.ID] = true
	}
	if len(got) != 2 {
		b.t.Fatal("both workers have the same job")
	}
}

func leaseCancelled(b *bench) {
	// Whatever the moment at which the caller gives up, no job stays behind in its name.
	for i := range 30 {
		id := b.submit(Request("a", fmt.Sprint(i)))
		ctx, stop := context.WithTimeout(b.ctx, time.Duration(i*150)*time.Microsecond)
		l, err := b.q.Lease(ctx, Caps("w"))
		stop()
		if err == nil {
			b.complete(l, 1)
			continue
		}
		if j := b.job(id); j.Status != queue.Queued {
			// the give-back may still be under way
			deadline := time.Now().Add(10 * time.Second)
			for b.job(id).Status != queue.Queued && time.Now().Before(deadline) {
				time.Sleep(5 * time.Millisecond)
			}
		}
		b.status(id, queue.Queued)
		b.complete(b.lease("w2"), 1)
	}
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
}

func place(b *bench) {
	for range 6 { // six samples of 100 s
		b.submit(Request("s", "x"))
		b.complete(b.lease("w"), 100)
	}
	ids := map[string]string{}
	for _, u := range []string{"a", "b", "c"} {
		for i := range 2 {
			ids[fmt.Sprint(u, i)] = b.submit(Request(u, fmt.Sprint(i)))
		}
	}
	order := map[string]int{}
	for n, id := range ids {
		p, err := b.q.Place(b.ctx, id)
		b.ok(err)
		order[n] = p.Position
		if !p.Known || p.Slots != 1 || p.StartHigh < p.StartLow || p.RunLow != 100*time.Second {
			b.t.Fatalf("%s: %+v", n, p)
		}
	}
	// First jobs of all before second ones of any.
	for _, u := range []string{"a", "b", "c"} {
		if order[u+"0"] > 3 || order[u+"1"] < 4 {
			b.t.Fatalf("positions %v", order)
		}
	}
	bid := b.submit(bulk("z", "bulk"))
	p, err := b.q.Place(b.ctx, bid)
	b.ok(err)
	if p.Position != 7 || p.Status != queue.Queued {
		b.t.Fatalf("bulk behind six: %+v", p)
	}
	l := b.lease("w")
	p, err = b.q.Place(b.ctx, l.Job.ID)
	b.ok(err)
	if p.Position != 0 || p.Status != queue.Leased {
		b.t.Fatalf("running: %+v", p)
	}
	b.ok(b.q.Pause(b.ctx, queue.AllJobs, "", ""))
	p, err = b.q.Place(b.ctx, bid)
	b.ok(err)
	if p.Paused == "" || p.StartLow < 50*time.Second {
		b.t.Fatalf("paused: %+v", p)
	}
	_, err = b.q.Place(b.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
	b.code(err, queue.CodeNotFound)
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
