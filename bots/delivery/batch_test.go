package delivery

import (
	"context"
	"sync"
	"testing"
	"time"

	"dreamcad/queue"
)

// The owner of a batch hears where they asked that it has ended, and again when
// its failed lines ran again.
func TestBatchOwner(t *testing.T) {
	q := open(t)
	p := &platform{posts: map[string]int{}}
	if _, err := q.Cursor(context.Background(), "bots/test"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = deliverer(q, p, NewMetrics(nil)).Run(ctx) })
	defer run.Wait()
	defer stop()
	owner := queue.Requester{Platform: "test", ID: "42"}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, _, err := q.CreateBatch(ctx, queue.Batch{ID: "batch-of-one", Name: "chairs", Owner: owner, Origin: queue.Origin{Platform: "test", Channel: "c1"}, Total: 1})
	must(err)
	line := queue.Request{ID: queue.LineID(b.ID, 0), Prompt: "a chair", Class: queue.Bulk, Requester: owner, Origin: queue.Origin{Platform: "test"}, Batch: b.ID}
	must(q.Feed(ctx, queue.Feeding{Batch: b.ID, From: 0, To: 1, Requests: []queue.Request{line}}))
	l, err := q.Lease(ctx, queue.Capabilities{Worker: "w", Name: "w", Models: []string{"mini"}})
	must(err)
	_, err = q.Fail(ctx, l.Ref(), queue.Failure{Kind: queue.FailInput, Sentence: "No."})
	must(err)
	if !until(func() bool { return p.total() == 1 }) {
		t.Fatalf("%d messages after the batch has ended, want 1", p.total())
	}
	n, err := q.RetryBatch(ctx, b.ID)
	if must(err); n != 1 {
		t.Fatalf("%d lines run again", n)
	}
	must(q.Feed(ctx, queue.Feeding{Batch: b.ID, From: 0, To: 1, Redo: true, Requests: []queue.Request{line}}))
	l, err = q.Lease(ctx, queue.Capabilities{Worker: "w", Name: "w", Models: []string{"mini"}})
	must(err)
	must(q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID}))
	if !until(func() bool { return p.total() == 2 }) {
		t.Fatalf("%d messages after the failed line ran again, want 2", p.total())
	}
	time.Sleep(100 * time.Millisecond)
	if p.total() != 2 {
		t.Errorf("%d messages", p.total())
	}
}
