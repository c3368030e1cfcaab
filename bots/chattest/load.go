package chattest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"dreamcad/queue"
)

// Load is many jobs at once, in simulated time: they are submitted within a
// minute; in the next one all report progress and views, and one after the
// other ends, while an alert is raised.
type Load struct {
	Queue        queue.Queue
	Jobs, Events int // Events in the second minute
	Submit       func(i int)
	Files        []queue.File // of each result; the first are the views
}

// Run returns when each job ended and when the alert was raised.
func (l *Load) Run(ctx context.Context, t *testing.T) (ended map[string]time.Time, raised time.Time) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range l.Jobs {
		l.Submit(i)
		time.Sleep(time.Minute / time.Duration(l.Jobs))
	}
	var leases []*queue.Lease
	for i := range l.Jobs {
		lease, err := l.Queue.Lease(ctx, queue.Capabilities{Worker: fmt.Sprint("w", i), Name: fmt.Sprint("w", i), Models: []string{"mini"}, Wait: time.Second})
		must(err)
		leases = append(leases, lease)
	}
	began := time.Now()
	ended = map[string]time.Time{}
	for i := range l.Events {
		lease := leases[i%len(leases)]
		b := queue.Beat{Progress: &queue.Progress{Stage: queue.StageOptimise, Step: i, Total: l.Events}}
		if i < l.Jobs {
			b.Views = l.Files[:1]
		}
		_, err := l.Queue.Heartbeat(ctx, lease.Ref(), b)
		must(err)
		if i == l.Events/2 {
			raised = time.Now()
			must(l.Queue.Raise(ctx, queue.Alert{Code: "gpu.hot", Key: "h/0", Severity: queue.Critical, State: queue.Firing, Text: "91 °C", Since: raised, Source: "h"}))
		}
		if i%(l.Events/l.Jobs) == 0 && len(leases) > 1 {
			must(l.Queue.Complete(ctx, leases[0].Ref(), queue.Result{Winner: leases[0].ID, Files: l.Files}))
			ended[leases[0].Job.ID] = time.Now()
			leases = leases[1:]
		}
		time.Sleep(time.Until(began.Add(time.Minute * time.Duration(i+1) / time.Duration(l.Events))))
	}
	time.Sleep(10 * time.Second)
	return ended, raised
}
