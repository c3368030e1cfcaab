package worker_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

// away is a queue that does not answer for a while.
type away struct {
	queue.Queue
	calls int
}

func (a *away) Fail(ctx context.Context, ref queue.Ref, f queue.Failure) (queue.Status, error) {
	if a.calls++; a.calls%2 == 1 {
		return "", queue.Unavailable("fail", context.DeadlineExceeded)
	}
	return a.Queue.Fail(ctx, ref, f)
}

// A death is told of the dead process's leases alone: one that it held with others
// counts as a crash, one that was alone took the process with it.
func TestReportDeath(t *testing.T) {
	q, err := sqliteq.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"), queue.DefaultConfig(), sqliteq.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	lease := func(process string) *queue.Lease {
		t.Helper()
		l, err := q.Lease(t.Context(), queue.Capabilities{Worker: process, Name: "w", Models: []string{"mini"}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for range 3 {
		if _, err := q.Submit(t.Context(), queue.Request{Prompt: "a mug", Kind: queue.Views, Requester: queue.Requester{Platform: "test", ID: "u"}, Origin: queue.Origin{Platform: "test"}}); err != nil {
			t.Fatal(err)
		}
	}
	a, b, other := lease("host-gpu0/17/MARKABCDxyz"), lease("host-gpu0/17/MARKABCDxyz"), lease("host-gpu1/17/MARKZZZZxyz")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	died := worker.Death{PID: 17, Mark: "MARKABCD", Exit: "SIGKILL", Log: "last words"}
	got, err := worker.ReportDeath(ctx, &away{Queue: q}, died)
	if err != nil || len(got) != 2 || got[a.Job.ID] != queue.Queued || got[b.Job.ID] != queue.Queued {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := worker.ReportDeath(ctx, q, died); err != nil || len(got) != 0 {
		t.Fatalf("again: %v %v", got, err)
	}
	check := func(id string, crashes int, kind queue.FailKind) {
		t.Helper()
		j, err := q.Job(ctx, id)
		if err != nil || len(j.CrashedBy) != crashes || j.Crashes != crashes {
			t.Fatalf("%+v %v", j, err)
		}
		if crashes > 0 && (j.CrashedBy[crashes-1].Kind != kind || j.Failure.Exit != "SIGKILL" || j.Failure.Log != "last words") {
			t.Errorf("%+v %+v", j.CrashedBy, j.Failure)
		}
	}
	check(a.Job.ID, 1, queue.FailCrash)
	check(b.Job.ID, 1, queue.FailCrash)
	check(other.Job.ID, 0, "")
	alone := lease("host-gpu0/18/MARKABCDuvw")
	if _, err := worker.ReportDeath(ctx, q, worker.Death{PID: 18, Mark: "MARKABCD", Exit: "SIGKILL", Log: "last words"}); err != nil {
		t.Fatal(err)
	}
	check(alone.Job.ID, 2, queue.FailDied)
	// A queue that stays away is given up with an error.
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	lease("host-gpu0/19/MARKABCDuvw")
	if got, err := worker.ReportDeath(short, &away{Queue: q}, worker.Death{PID: 19, Mark: "MARKABCD"}); err == nil || len(got) != 0 {
		t.Fatalf("%v %v", got, err)
	}
}
