package delivery

import (
	"context"
	"log/slog"
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
