package worker_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
)

// Row 11: the wall clock of the whole worker process is an hour off, from its start
// or from the middle of a job. It works, saves, drains and goes on like one with a
// right clock; only the date in the manifest is its own.
func TestWorkerClock(t *testing.T) {
	if os.Getenv("DREAM_FAULT_LONG") == "" {
		t.Skip("builds the standard library with another clock, a minute of work: part of make test-faults")
	}
	program := queuetest.BuildWithClock(t)
	total := newChain().total(queue.Request{Kind: queue.Mesh})
	for _, c := range []struct{ off, from time.Duration }{{time.Hour, 0}, {-time.Hour, 0}, {time.Hour, 200 * time.Millisecond}, {-time.Hour, 200 * time.Millisecond}} {
		b := newBench(t)
		redis := queuetest.StartRedis(t)
		b.env = []string{"WORKER_REDIS=redis://" + redis.Addr + "/0", queuetest.ClockEnv(c.off, c.from)}
		b.exe = program
		q, s, err := openParts(t.Context(), b.base, "redis://"+redis.Addr+"/0", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { q.Close() })
		b.q, b.store.Store = q, s
		if b.start, err = q.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		first, second := b.submit(queue.Mesh, queue.Interactive, "a mug"), b.submit(queue.Mesh, queue.Interactive, "a vase")
		w := b.spawn("gpu0")
		m := b.published(b.wait(first.ID, queue.Done))
		if off := time.Until(m.Published) - c.off; off.Abs() > time.Minute {
			t.Errorf("the worker's clock is %v from where it should be", off)
		}
		b.until("the second job is in work", func() bool { n, _ := b.steps(second.ID); return n > 1 })
		_ = w.cmd.Process.Signal(syscall.SIGTERM) // finishes or hands back within its grace, by the same clock
		b.gone(w)
		if w.err != nil {
			t.Errorf("%+v: the drained worker ended with %v", c, w.err)
		}
		b.spawn("gpu0")
		b.published(b.wait(second.ID, queue.Done))
		for _, id := range []string{first.ID, second.ID} {
			j := b.job(id)
			if n, repeated := b.steps(id); n != total || repeated != 1 || j.Crashes+j.Failures > 0 {
				t.Errorf("%+v: %d steps of %d, one was done %d times; %d crashes, %d failures", c, n, total, repeated, j.Crashes, j.Failures)
			}
		}
		queuetest.Counts(t, 2, 0, 0)
	}
}
