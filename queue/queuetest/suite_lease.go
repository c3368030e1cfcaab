package queuetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dreamcad/queue"
)

func fence(b *bench) {
	id := b.submit(Request("a", "1"))
	old := b.lease("w1")
	b.Advance(31 * time.Second)
	if n := b.tick(); n.Rescued != 1 {
		b.t.Fatalf("tick: %+v", n)
	}
	if k := kinds(b.events("")); k != "accepted started waiting" {
		b.t.Fatalf("events %s", k)
	}
	cur := b.lease("w2")
	if cur.Job.ID != id || cur.ID == old.ID || cur.Job.Attempt != 2 {
		b.t.Fatalf("second lease: %+v", cur)
	}
	a, err := b.q.Heartbeat(b.ctx, old.Ref(), queue.Beat{Progress: &queue.Progress{Step: 99}, Checkpoint: &queue.Checkpoint{Key: "stale"}})
	b.ok(err)
	if a.Directive != queue.StopLost {
		b.t.Fatalf("stale heartbeat: %+v", a)
	}
	b.code(b.q.Complete(b.ctx, old.Ref(), queue.Result{}), queue.CodeLost)
	_, err = b.q.Fail(b.ctx, old.Ref(), queue.Failure{Kind: queue.FailError})
	b.code(err, queue.CodeLost)
	b.code(b.q.GiveBack(b.ctx, old.Ref(), queue.GiveBackOptions{Reason: queue.Drained}), queue.CodeLost)
	if j := b.status(id, queue.Leased); j.Check != nil || j.Progress != nil || j.LeaseID != cur.ID {
		b.t.Fatalf("the stale worker wrote: %+v", j)
	}
	b.complete(cur, 1)
	b.code(b.q.Complete(b.ctx, old.Ref(), queue.Result{}), queue.CodeLost)
	a, err = b.q.Heartbeat(b.ctx, queue.Ref{Job: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Lease: "x"}, queue.Beat{})
	b.ok(err)
	if a.Directive != queue.StopLost {
		b.t.Fatalf("heartbeat of an unknown job: %+v", a)
	}
	b.code(b.q.Complete(b.ctx, queue.Ref{Job: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Lease: "x"}, queue.Result{}), queue.CodeLost)
	if _, err := b.q.Job(b.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV"); !errors.Is(err, queue.ErrNotFound) {
		b.t.Fatalf("a refused write brought a key to life: %v", err)
	}
}

func rescue(b *bench) {
	first := b.submit(Request("a", "1"))
	b.submit(Request("a", "2"))
	l := b.lease("w")
	b.Advance(20 * time.Second)
	_, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	b.ok(err)
	b.Advance(20 * time.Second)
	if n := b.tick(); n.Rescued != 0 {
		b.t.Fatal("rescued in spite of the heartbeat")
	}
	b.Advance(11 * time.Second)
	b.tick()
	j := b.status(first, queue.Queued)
	if j.Crashes != 1 || j.Failures != 0 || j.Attempt != 1 {
		b.t.Fatalf("counts: %+v", j)
	}
	b.audit()
	if l := b.lease("w"); l.Job.ID != first {
		b.t.Fatal("the rescued job is not at the head of the line")
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
	es := b.events("")
	if w := es[len(es)-1]; kinds(es) != "accepted accepted started waiting" || w.Job != first || w.Attempt != 1 || w.LeaseID != l.ID || w.Seq != 3 {
		b.t.Fatalf("events %s, %+v", kinds(es), w)
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
			deadline := time.Now().Add(time.Minute)
			for b.job(id).Status != queue.Queued && time.Now().Before(deadline) {
				time.Sleep(5 * time.Millisecond)
			}
		}
		b.status(id, queue.Queued)
		b.complete(b.lease("w2"), 1)
	}
}
