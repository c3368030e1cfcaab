package redisq_test

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

func TestMain(m *testing.M) {
	queuetest.WorkerMain(openFault)
	asynqMain()
	goleak.VerifyTestMain(m)
}

var subjects atomic.Int64

// on returns an opener of fresh queues on the server.
func on(addrs []string, cluster bool) queuetest.Opener {
	return func(t testing.TB, cfg queue.Config) queuetest.Subject {
		t.Helper()
		q, err := redisq.Open(t.Context(), cfg, redisq.Options{
			UniversalOptions: redis.UniversalOptions{Addrs: addrs, IsClusterMode: cluster},
			Prefix:           fmt.Sprint("t", subjects.Add(1)), TestClock: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = q.Close() }) // the model test has closed it already
		return queuetest.Subject{Queue: q, Advance: func(d time.Duration) {
			if err := q.ShiftClock(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}}
	}
}

func TestConformance(t *testing.T) {
	r := queuetest.StartRedis(t)
	queuetest.Run(t, on([]string{r.Addr}, false))
}

func TestModel(t *testing.T) {
	r := queuetest.StartRedis(t)
	queuetest.RunModel(t, on([]string{r.Addr}, false))
}

// An entry of a line whose job is gone (somebody deleted its key) is taken out
// and holds nobody up.
func TestEntryWithoutJob(t *testing.T) {
	t.Setenv(lossless, "1")
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	gone, next := f.submit("a", "gone"), f.submit("b", "next")
	if n, err := r.Client().Del(f.ctx, fmt.Sprintf("{f%d}:j:%s", subjects.Load(), gone)).Result(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	c := queuetest.Caps("w")
	c.Wait = time.Minute
	l, err := f.q.Lease(f.ctx, c)
	if err != nil || l.Job.ID != next {
		t.Fatalf("%+v %v, want job %s", l, err, next)
	}
	if err := f.q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.q.Lease(f.ctx, queuetest.Caps("w")); queue.CodeOf(err) != queue.CodeEmpty {
		t.Fatal(err)
	}
}

// A submit's event is written by a script of its own, whose time is that of the
// event's id where no test moves the clock.
func TestAcceptedEvent(t *testing.T) {
	f := setupFault(t, queuetest.StartRedis(t).Addr)
	r := queuetest.Request("a", "thing")
	r.Private = true
	before := time.Now().Truncate(time.Millisecond)
	rc, err := f.q.Submit(f.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	j, err := f.q.Job(f.ctx, rc.ID)
	if err != nil || j.Submitted.Before(before) || j.Submitted.After(time.Now()) {
		t.Fatalf("submitted at %v, not between %v and now: %v", j.Submitted, before, err)
	}
	es, err := f.q.Events(f.ctx, "", 10, 0)
	if err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
	want := queue.Event{ID: es[0].ID, Kind: queue.EventAccepted, Job: rc.ID, Seq: 1, At: j.Submitted, User: "test:a", Private: true, Origin: r.Origin, Stage: queue.StageQueued}
	if !reflect.DeepEqual(es[0], want) {
		t.Errorf("event %+v, want %+v", es[0], want)
	}
}

// What is left of records whose life is over goes by itself, although nobody lists them.
func TestRecordsEnd(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	for i := range 100 {
		if _, err := f.q.Put(f.ctx, fmt.Sprint("short/", i), []byte("x"), queue.AnyVersion, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		if _, err := f.q.Put(f.ctx, fmt.Sprint("long/", i), []byte("x"), queue.AnyVersion, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "only those that live", func() bool {
		if _, err := f.q.Tick(f.ctx); err != nil {
			t.Fatal(err)
		}
		return r.Client().ZCard(f.ctx, fmt.Sprintf("{f%d}:sx", subjects.Load())).Val() == 10
	})
	if ks, err := f.q.Keys(f.ctx, "long/", ""); err != nil || len(ks) != 10 {
		t.Fatal(ks, err)
	}
}
