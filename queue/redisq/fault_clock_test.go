package redisq_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dreamcad/queue/queuetest"
)

// Row 11, the worker's side: the wall clock of the whole worker process is an
// hour off from its start, or jumps in mid-job. Leases, attempts and order are
// those of a right clock.
func TestRow11WorkerClock(t *testing.T) {
	longForm(t, "builds the standard library with another clock, a minute of work")
	program := queuetest.BuildWithClock(t)
	r := queuetest.StartRedis(t)
	for _, c := range []struct{ off, from time.Duration }{
		{0, 0}, {time.Hour, 0}, {-time.Hour, 0}, {time.Hour, 1500 * time.Millisecond}, {-time.Hour, 1500 * time.Millisecond},
	} {
		f := setupFault(t, r.Addr)
		names := map[string]string{}
		var ids []string
		for _, n := range []string{"a0", "a1", "a2", "b0"} {
			id := f.submit(n[:1], n)
			ids, names[id] = append(ids, id), n
		}
		w := queuetest.StartWorkerOf(t, []string{program}, []string{queuetest.ClockEnv(c.off, c.from)}, f.url, "w", 35, 50*time.Millisecond, "") // longer than a lease each
		f.ledger(ids...).Check(f.ctx, 120*time.Second)
		var got []string
		for _, l := range w.Log("leased") {
			var id, attempt string
			var ms int64
			if _, err := fmt.Sscan(strings.TrimPrefix(l, "leased "), &id, &attempt, &ms); err != nil {
				t.Fatal(l, err)
			}
			got = append(got, names[id]+"/"+attempt)
			j, err := f.q.Job(f.ctx, id)
			if err != nil || j.Crashes+j.Failures > 0 {
				t.Errorf("%+v: %+v %v", c, j, err)
			}
			if off := time.UnixMilli(ms).Sub(j.Started) - c.off; len(got) > 1 && off.Abs() > time.Minute {
				t.Fatalf("the worker's clock is %v from where it should be", off)
			}
		}
		if want := []string{"a0/1", "b0/1", "a1/1", "a2/1"}; !slices.Equal(got, want) {
			t.Errorf("%+v: leases %v, want %v", c, got, want)
		}
		id := f.orphan(w, "a")
		f.ledger(append(ids, id)...).Check(f.ctx, 60*time.Second)
	}
}
