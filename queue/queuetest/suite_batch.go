package queuetest

import (
	"fmt"
	"slices"

	"dreamcad/queue"
)

// feed enqueues lines from … to-1 of the batch.
func (b *bench) feed(id string, from, to int64, redo []int64) {
	b.t.Helper()
	f := queue.Feeding{Batch: id, From: from, To: to, Redo: redo != nil}
	lines := redo
	if redo == nil {
		for i := from; i < to; i++ {
			lines = append(lines, i)
		}
	}
	for _, i := range lines {
		r := bulk("owner", fmt.Sprint("line ", i))
		r.ID, r.Batch, r.Line = queue.LineID(id, i), id, i
		f.Requests = append(f.Requests, r)
	}
	b.ok(b.q.Feed(b.ctx, f))
	b.ok(b.q.Feed(b.ctx, f)) // repeated: the same answer
}

func (b *bench) batch(id string) queue.Batch {
	b.t.Helper()
	x, err := b.q.Batch(b.ctx, id)
	b.ok(err)
	return x
}

func newBatch(id string, total int64) queue.Batch {
	return queue.Batch{ID: id, Name: "chairs.txt", Owner: queue.Requester{Platform: "test", ID: "owner"}, Total: total, Rejected: 1,
		Origin: queue.Origin{Platform: "test", Channel: "c9"}}
}

func batches(b *bench) {
	x, isNew, err := b.q.CreateBatch(b.ctx, newBatch("b1", 6))
	b.ok(err)
	if !isNew || x.State != queue.BatchRunning || x.Total != 6 || x.Rejected != 1 || x.Created.IsZero() {
		b.t.Fatalf("%+v", x)
	}
	_, isNew, err = b.q.CreateBatch(b.ctx, newBatch("b1", 6))
	if err != nil || isNew {
		b.t.Fatal("same batch twice", err)
	}
	b.feed("b1", 0, 4, nil)
	if x = b.batch("b1"); x.Cursor != 4 || x.Out != 4 {
		b.t.Fatalf("%+v", x)
	}
	b.code(b.q.Feed(b.ctx, queue.Feeding{Batch: "b1", From: 1, To: 2}), queue.CodeConflict)
	b.audit()
	for i := range 4 { // line 1 fails
		l := b.lease("w")
		if l.Job.Line != int64(i) || l.Job.Batch != "b1" {
			b.t.Fatalf("leased line %d", l.Job.Line)
		}
		if i == 1 {
			_, err := b.q.Fail(b.ctx, l.Ref(), queue.Failure{Kind: queue.FailError, Sentence: "Too hard."})
			b.ok(err)
			continue
		}
		b.complete(l, 1)
	}
	b.feed("b1", 4, 6, nil)
	b.complete(b.lease("w"), 1)
	if x = b.batch("b1"); x.State != queue.BatchRunning || x.Done != 4 || x.Failed != 1 || x.Out != 1 {
		b.t.Fatalf("%+v", x)
	}
	b.complete(b.lease("w"), 1)
	if x = b.batch("b1"); x.State != queue.BatchEnded || x.Done != 5 || x.Left() != 0 || x.Ended.IsZero() {
		b.t.Fatalf("%+v", x)
	}
	es := b.events("")
	if kinds(es) != "batch" || es[0].Batch != "b1" || es[0].Origin.Channel != "c9" || es[0].Message == "" || es[0].User != "test:owner" {
		b.t.Fatalf("%+v", es)
	}
	want := func(statuses ...queue.Status) {
		b.t.Helper()
		os, err := b.q.Outcomes(b.ctx, "b1", 0, 100)
		b.ok(err)
		for i, o := range os {
			if o.Status != statuses[i] || o.Line != int64(i) || (o.Status == queue.Failed) != (o.Reason == "Too hard.") {
				b.t.Fatalf("outcomes %+v", os)
			}
		}
	}
	want(queue.Done, queue.Failed, queue.Done, queue.Done, queue.Done, queue.Done)
	if js, err := b.q.List(b.ctx, queue.Filter{Batch: "b1"}); err != nil || len(js) > 4 {
		b.t.Fatalf("%d jobs kept of the batch: %v", len(js), err) // KeepBatch 2 of each status, and slack
	}
	// Run the failed line again.
	n, err := b.q.RetryBatch(b.ctx, "b1")
	b.ok(err)
	if x = b.batch("b1"); n != 1 || x.State != queue.BatchRunning || x.RedoLeft != 1 || x.Failed != 0 {
		b.t.Fatalf("%d %+v", n, x)
	}
	lines, err := b.q.NextRedo(b.ctx, "b1", x.Redo, 10)
	b.ok(err)
	if !slices.Equal(lines, []int64{1}) {
		b.t.Fatalf("redo %v", lines)
	}
	b.feed("b1", 0, 2, lines)
	b.audit()
	l := b.lease("w")
	if l.Job.Line != 1 {
		b.t.Fatalf("%+v", l.Job)
	}
	b.complete(l, 1)
	want(queue.Done, queue.Done, queue.Done, queue.Done, queue.Done, queue.Done)
	if x = b.batch("b1"); x.State != queue.BatchEnded || x.Done != 6 || x.Failed != 0 {
		b.t.Fatalf("%+v", x)
	}
	if k := kinds(b.events("")); k != "batch batch" {
		b.t.Fatal(k)
	}
	// A batch without lines ends at once.
	x, _, err = b.q.CreateBatch(b.ctx, newBatch("b0", 0))
	if err != nil || x.State != queue.BatchEnded {
		b.t.Fatalf("%+v %v", x, err)
	}
	all, err := b.q.Batches(b.ctx, "test:owner")
	if err != nil || len(all) != 2 {
		b.t.Fatal(all, err)
	}
	if all, err = b.q.Batches(b.ctx, "test:nobody"); err != nil || len(all) != 0 {
		b.t.Fatal(all, err)
	}
	_, err = b.q.Batch(b.ctx, "nope")
	b.code(err, queue.CodeNotFound)
}

func batchPause(b *bench) {
	_, _, err := b.q.CreateBatch(b.ctx, newBatch("b1", 10))
	b.ok(err)
	b.feed("b1", 0, 5, nil)
	running := b.lease("w")
	b.ok(b.q.Pause(b.ctx, queue.OfBatch, "b1", "wait"))
	b.ok(b.q.Pause(b.ctx, queue.OfBatch, "b1", "wait"))
	b.audit()
	b.empty(Caps("w"))
	b.submit(bulk("owner", "mine too")) // the same user's other work goes on
	b.complete(b.lease("w"), 1)
	b.code(b.q.Feed(b.ctx, queue.Feeding{Batch: "b1", From: 5, To: 6}), queue.CodeConflict)
	b.ok(b.q.GiveBack(b.ctx, running.Ref(), queue.GiveBackOptions{Reason: queue.Drained, Used: 1}))
	b.audit()
	b.empty(Caps("w"))
	if x := b.batch("b1"); x.State != queue.BatchPaused {
		b.t.Fatalf("%+v", x)
	}
	b.ok(b.q.Resume(b.ctx, queue.OfBatch, "b1"))
	b.audit()
	l := b.lease("w")
	if l.Job.Line != 0 {
		b.t.Fatalf("order after resume: line %d first", l.Job.Line)
	}
	b.ok(b.q.CancelBatch(b.ctx, "b1"))
	b.ok(b.q.CancelBatch(b.ctx, "b1"))
	x := b.batch("b1")
	if x.State != queue.BatchCancelled || x.Cancelled != 10 || x.Left() != 0 || x.Out != 0 {
		b.t.Fatalf("%+v", x)
	}
	a, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	if err != nil || a.Directive != queue.StopCancel {
		b.t.Fatal(a, err)
	}
	b.empty(Caps("w"))
	n := 0
	for _, e := range b.events("") {
		if e.Kind == queue.EventBatch {
			n++
		}
	}
	if n != 1 {
		b.t.Fatalf("%d batch events", n)
	}
}
