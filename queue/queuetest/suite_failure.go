package queuetest

import (
	"fmt"
	"slices"
	"strings"
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
	if k := kinds(es); k != "accepted started waiting started failed" || es[4].Message != "The model ran out of ideas." {
		b.t.Fatalf("events %s %q", k, es[4].Message)
	}
}

func badInput(b *bench) {
	id := b.submit(Request("a", "1"))
	st, err := b.q.Fail(b.ctx, b.lease("w").Ref(), queue.Failure{Kind: queue.FailInput, Sentence: "No such model."})
	b.ok(err)
	if j := b.status(id, queue.Failed); st != queue.Failed || j.Failures != 0 || j.Failure.Sentence != "No such model." {
		b.t.Fatalf("%s %+v", st, j)
	}
	if s, err := b.q.Stats(b.ctx); err != nil || s.Counters["failed"] != 1 || s.Counters["failed_input"] != 1 {
		b.t.Fatalf("counted: %v %v", s.Counters, err)
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
	if k := kinds(b.events("")); k != "accepted started waiting started waiting started failed" {
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
	if l := b.lease("w"); l.Job.ID != id2 || l.Job.Crashes != 0 || b.job(id2).CrashedBy != nil {
		b.t.Fatalf("requeued: %+v", l.Job)
	}
}

// evidence: a job tells of each crash who had it and how that process ended, and of
// the last one what it logged, bounded, once however often it was told.
func evidence(b *bench) {
	id := b.submit(Request("a", "poison"))
	long := "begin" + strings.Repeat("x", queue.MaxErrorText) + "last words"
	var refs []queue.Ref
	var deaths []queue.Failure
	for i, exit := range []string{"", "SIGKILL", "SIGSEGV"} {
		l := b.lease(fmt.Sprint("w", i))
		f := queue.Failure{Kind: queue.FailDied, Worker: l.Job.Worker, Exit: exit, Log: long}
		if exit == "" { // nobody saw it: the lease runs out
			b.Advance(time.Hour)
			b.tick()
			if _, err := b.q.Fail(b.ctx, l.Ref(), f); queue.CodeOf(err) != queue.CodeLost {
				b.t.Fatalf("a death told after the rescue: %v", err)
			}
			b.status(id, queue.Queued)
			continue
		}
		for range 2 {
			st, err := b.q.Fail(b.ctx, l.Ref(), f)
			b.ok(err)
			if want := map[string]queue.Status{"SIGKILL": queue.Scheduled, "SIGSEGV": queue.Quarantined}[exit]; st != want {
				b.t.Fatalf("%s: %s, want %s", exit, st, want)
			}
		}
		refs, deaths = append(refs, l.Ref()), append(deaths, f)
		b.Advance(time.Minute)
		b.tick()
	}
	if _, err := b.q.Fail(b.ctx, refs[0], deaths[0]); queue.CodeOf(err) != queue.CodeLost {
		b.t.Fatalf("a death of an earlier attempt: %v", err)
	}
	j := b.status(id, queue.Quarantined)
	var got []string
	for _, c := range j.CrashedBy {
		got = append(got, fmt.Sprintf("%d %s %s %s", c.Attempt, c.Worker, c.Kind, c.Exit))
		if c.At.Before(j.Submitted) || c.At.After(j.Ended) {
			b.t.Errorf("crash at %v, job from %v to %v", c.At, j.Submitted, j.Ended)
		}
	}
	if want := []string{"1 w0/1 crash ", "2 w1/1 died SIGKILL", "3 w2/1 died SIGSEGV"}; !slices.Equal(got, want) || j.Crashes != 3 {
		b.t.Fatalf("%d crashes %q, want %q", j.Crashes, got, want)
	}
	f := j.Failure
	if f == nil || f.Exit != "SIGSEGV" || f.Worker != "w2/1" || len(f.Log) != queue.MaxErrorText || !strings.HasSuffix(f.Log, "last words") {
		b.t.Fatalf("%+v", f)
	}
	js, err := b.q.List(b.ctx, queue.Filter{Status: []queue.Status{queue.Quarantined}})
	b.ok(err)
	if len(js) != 1 || len(js[0].CrashedBy) != 3 || js[0].Failure.Exit != "SIGSEGV" {
		b.t.Fatalf("listed: %+v", js)
	}
	if es := b.events(""); strings.Contains(es[len(es)-1].Message, "SIG") || es[len(es)-1].Kind != queue.EventFailed {
		b.t.Fatalf("told: %+v", es[len(es)-1])
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
