package delivery

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dreamcad/bots"
	"dreamcad/queue"
)

// Progress of a 2-hour job: edits are sparse after ten minutes and none come
// after 55, so that the platform's limit on old messages is never met.
func TestEditsOverTwoHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{posts: map[string]int{}}
		d := New(Defaults(), nil, p, free{}, &bots.Renderer{}, NewMetrics(nil), slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { d.out.Run(ctx) })
		start := time.Now()
		job := queue.Job{Request: queue.Request{ID: "01JABCDEFGHJKMNPQRSTVWXYZ0", Prompt: "a mug"}, Status: queue.Leased, Submitted: start}
		d.tracks[job.ID] = &track{job: job, known: true, posted: bots.Posted{Spot: bots.Spot{Channel: "c"}, ID: "m"}}
		count := map[string]int{}
		for step := 1; time.Since(start) < 2*time.Hour; step++ {
			before := p.edited()
			time.Sleep(2 * time.Second)
			e := queue.Event{Kind: queue.EventProgress, Job: job.ID, At: time.Now(), Stage: queue.StageOptimise, Step: step, Total: 3600}
			if err := d.status(ctx, &e); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			switch age := time.Since(start); {
			case age < 10*time.Minute:
				count["dense"] += p.edited() - before
			case age < 56*time.Minute+time.Second:
				count["sparse"] += p.edited() - before
			default:
				count["late"] += p.edited() - before
			}
		}
		stop()
		run.Wait()
		// 120 and 46 by the numbers; an event at the very moment of an edit may add one.
		if count["dense"] < 60 || count["dense"] > 140 || count["sparse"] < 30 || count["sparse"] > 60 || count["late"] != 0 {
			t.Errorf("edits %v", count)
		}
	})
}

// An attempt that ends without an outcome: people see that the job waits again,
// and for what.
func TestStatusOfAJobThatWaitsAgain(t *testing.T) {
	q := open(t)
	p := &platform{posts: map[string]int{}}
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	defer run.Wait()
	defer stop()
	if _, err := q.Cursor(ctx, "bots/test"); err != nil {
		t.Fatal(err)
	}
	r, err := q.Submit(ctx, queue.Request{Prompt: "a mug", Requester: queue.Requester{Platform: "test", ID: "42"}, Origin: queue.Origin{Platform: "test", Channel: "c1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveStatus(ctx, q, r.ID, bots.Posted{Spot: bots.Spot{Channel: "c1"}, ID: "m"}); err != nil {
		t.Fatal(err)
	}
	d := deliverer(q, p, NewMetrics(nil))
	run.Go(func() { _ = d.Run(ctx) })
	lease := func() queue.Ref {
		t.Helper()
		l, err := q.Lease(ctx, queue.Capabilities{Worker: "w", Name: "w", Models: []string{"mini"}})
		if err != nil {
			t.Fatal(err)
		}
		p.shows(t, "running")
		return l.Ref()
	}
	if err := q.GiveBack(ctx, lease(), queue.GiveBackOptions{Reason: queue.Returned}); err != nil {
		t.Fatal(err)
	}
	p.shows(t, "queued")
	if _, err := q.Fail(ctx, lease(), queue.Failure{Kind: queue.FailError, RetryAfter: time.Hour}); err != nil {
		t.Fatal(err)
	}
	p.shows(t, "waits for another try")
}

// oneJob is a queue that knows one job.
type oneJob struct {
	Queue
	job queue.Job
}

func (q *oneJob) Job(context.Context, string) (queue.Job, error) { return q.job, nil }

// A job that was given back and runs again within the time between two edits
// goes on being shown as running.
func TestShortWaitIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{posts: map[string]int{}}
		q := &oneJob{job: queue.Job{Request: queue.Request{ID: "01JABCDEFGHJKMNPQRSTVWXYZ0", Prompt: "a mug"}, Status: queue.Leased, Submitted: time.Now()}}
		d := New(Defaults(), q, p, free{}, &bots.Renderer{}, NewMetrics(nil), slog.New(slog.DiscardHandler))
		d.tracks[q.job.ID] = &track{job: q.job, known: true, posted: bots.Posted{Spot: bots.Spot{Channel: "c"}, ID: "m"}}
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { d.out.Run(ctx) })
		for _, k := range []queue.EventKind{queue.EventStarted, queue.EventWaiting, queue.EventStarted} {
			q.job.Status = queue.Queued
			if err := d.status(ctx, &queue.Event{Kind: k, Job: q.job.ID, At: time.Now()}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		if p.edited() != 1 || !strings.HasSuffix(p.shown, "running") {
			t.Errorf("%d edits, the message is %q", p.edits, p.shown)
		}
		stop()
		run.Wait()
	})
}
