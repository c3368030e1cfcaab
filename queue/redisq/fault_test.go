package redisq_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// dice are the random moments of a row. Rounds of make test-faults differ by
// DREAM_FAULT_SEED.
func dice(row uint64) *rand.Rand {
	seed, _ := strconv.ParseUint(os.Getenv("DREAM_FAULT_SEED"), 10, 64)
	return rand.New(rand.NewPCG(seed, row))
}

// lossless, set, gives leases that outlast any standstill of the machine: for
// rows that kill nobody, where a lost lease is an error. Child processes see it too.
const lossless = "DREAM_FAULT_LOSSLESS"

// faultConfig has short leases, so that rows take seconds.
func faultConfig() queue.Config {
	c := queuetest.Config()
	c.Lease, c.Heartbeat, c.TickEvery = 1500*time.Millisecond, 400*time.Millisecond, 100*time.Millisecond
	c.BackoffBase, c.BackoffMax, c.YieldAfter, c.YieldHorizon = 50*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 0
	if os.Getenv(lossless) != "" {
		c.Lease = 2 * time.Minute
	}
	if os.Getenv(soakEnv) != "" { // for days
		c.KeyLife, c.KeepCount, c.KeepEvents = 10*time.Minute, 2000, 5000
	}
	return c
}

func openFault(ctx context.Context, url string) (queue.Queue, error) {
	o, err := redisq.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.TestClock = true
	return redisq.Open(ctx, faultConfig(), o)
}

type faultBench struct {
	t    *testing.T
	ctx  context.Context
	q    queue.Queue
	url  string
	book queuetest.Ledger
}

// setupFault opens a queue through addr, with maintenance running beside the test.
func setupFault(t *testing.T, addr string) *faultBench {
	t.Helper()
	f := &faultBench{t: t, ctx: t.Context(), url: fmt.Sprintf("redis://%s?prefix=f%d", addr, subjects.Add(1))}
	q, err := openFault(f.ctx, f.url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = queue.RunMaintenance(ctx, q, 100*time.Millisecond, faultConfigLog()) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		_ = q.Close()
	})
	f.q = q
	return f
}

func faultConfigLog() *slog.Logger { c := faultConfig(); return c.Log() }

func (f *faultBench) submit(user, prompt string) string {
	f.t.Helper()
	rc, err := f.q.Submit(f.ctx, queuetest.Request(user, prompt))
	if err != nil {
		f.t.Fatal(err)
	}
	return rc.ID
}

func (f *faultBench) ledger(ids ...string) *queuetest.Ledger {
	f.book.T, f.book.Q, f.book.Want = f.t, f.q, ids
	return &f.book
}

// until waits for a condition.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// orphan submits a job and kills the worker that takes it: whatever a clock says,
// the job comes back after the lease, not an hour later or at once.
func (f *faultBench) orphan(w *queuetest.Child, user string) (id string) {
	f.t.Helper()
	before := time.Now()
	id = f.submit(user, "orphan")
	until(f.t, "the lease", func() bool { return len(w.Log("leased "+id)) > 0 })
	w.Signal(syscall.SIGKILL)
	<-w.Done()
	died := time.Now()
	var l *queue.Lease
	until(f.t, "the rescue", func() bool {
		var err error
		l, err = f.q.Lease(f.ctx, queuetest.Caps("next"))
		return err == nil
	})
	d := time.Since(died)
	queuetest.Restarted(f.t, d)
	if l.Job.ID != id || l.Job.Attempt != 2 || time.Since(before) < faultConfig().Lease || d > faultConfig().Lease+20*time.Second {
		f.t.Errorf("%s attempt %d came back after %v, the lease is %v", l.Job.ID, l.Job.Attempt, d, faultConfig().Lease)
	}
	if err := f.q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}); err != nil {
		f.t.Fatal(err)
	}
	return id
}

// Row 1: kill -9 at each named point; another worker finishes the job.
func TestRow1KilledWorker(t *testing.T) {
	r := queuetest.StartRedis(t)
	for _, point := range []string{"leased", "step", "checkpoint", "computed", "completed"} {
		f := setupFault(t, r.Addr)
		id := f.submit("a", "thing")
		victim := queuetest.StartWorker(t, f.url, "victim", 10, 100*time.Millisecond, point)
		<-victim.Done()
		died := time.Now()
		rescuer := queuetest.StartWorker(t, f.url, "rescuer", 10, 20*time.Millisecond, "")
		f.ledger(id).Check(f.ctx, 60*time.Second)
		j, err := f.q.Job(f.ctx, id)
		if err != nil || j.Status != queue.Done || j.Failures != 0 {
			t.Errorf("%s: %+v %v", point, j, err)
		}
		if point == "completed" {
			if n := len(rescuer.Log("leased")); n != 0 {
				t.Errorf("%d leases after the completion", n)
			}
			continue
		}
		wait := j.Started.Sub(died)
		queuetest.Restarted(t, wait)
		if wait > faultConfig().Lease+20*time.Second { // 2 s on an idle machine
			t.Errorf("%s: restarted %v after the kill", point, wait)
		}
		if point == "checkpoint" && len(rescuer.Log("step "+id+" 0")) > 0 {
			t.Errorf("the rescuer did not go on from the checkpoint: %v", rescuer.Log("step"))
		}
		rescuer.Signal(syscall.SIGTERM)
		<-rescuer.Done()
	}
}

// Row 2: a worker that is stopped for three leases publishes nothing.
func TestRow2StoppedWorker(t *testing.T) {
	r := queuetest.StartRedis(t)
	rng := dice(2)
	f := setupFault(t, r.Addr)
	id := f.submit("a", "thing")
	stale := queuetest.StartWorker(t, f.url, "stale", 40, 50*time.Millisecond, "")
	until(t, "the first lease", func() bool { return len(stale.Log("step")) > 2 })
	time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
	stale.Signal(syscall.SIGSTOP)
	at := time.Now()
	fresh := queuetest.StartWorker(t, f.url, "fresh", 10, 10*time.Millisecond, "")
	until(t, "the second worker's lease", func() bool { return len(fresh.Log("leased")) == 1 })
	queuetest.Restarted(t, time.Since(at))
	until(t, "the second worker's end", func() bool { return len(fresh.Log("completed")) == 1 })
	stale.Signal(syscall.SIGCONT)
	until(t, "the stale worker's notice", func() bool { return len(stale.Log("stopped"))+len(stale.Log("completed")) > 0 })
	if l := stale.Log("completed"); len(l) > 0 && !strings.HasSuffix(l[0], string(queue.CodeLost)) {
		t.Errorf("the stale worker completed: %v", l)
	}
	f.ledger(id).Check(f.ctx, 60*time.Second)
}

// Row 16: cancel at each phase of a worker process.
func TestRow16Cancel(t *testing.T) {
	t.Setenv(lossless, "1")
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	w := queuetest.StartWorker(t, f.url, "w", 300, 30*time.Millisecond, "") // not done before it is cancelled
	var ids []string
	rng := dice(16)
	for range 4 {
		id := f.submit("a", "thing")
		ids = append(ids, id)
		until(t, "the lease", func() bool { return len(w.Log("leased "+id)) > 0 })
		time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
		at := time.Now()
		if st, err := f.q.Cancel(f.ctx, id); err != nil || st != queue.Cancelled {
			t.Fatal(st, err)
		}
		until(t, "the worker's stop", func() bool { return len(w.Log("stopped "+id)) > 0 })
		if d := time.Since(at); d > 20*time.Second { // heartbeat + step, and a slow machine
			t.Errorf("the worker stopped after %v", d)
		}
	}
	f.ledger(ids...).Check(f.ctx, 60*time.Second)
}

// Row 20: rolling drain over all workers under load.
func TestRow20Drain(t *testing.T) {
	t.Setenv(lossless, "1")
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	var ids []string
	for i := range 24 {
		ids = append(ids, f.submit(fmt.Sprint("u", i%3), "thing"))
	}
	var ws []*queuetest.Child
	for i := range 2 {
		ws = append(ws, queuetest.StartWorker(t, f.url, fmt.Sprint("w", i), 5, 40*time.Millisecond, ""))
	}
	for i, w := range ws {
		until(t, "work", func() bool { return len(w.Log("step")) > 3 })
		at := time.Now()
		w.Signal(syscall.SIGTERM)
		<-w.Done()
		if d := time.Since(at); d > 10*time.Second || len(w.Log("drained")) != 1 {
			t.Errorf("drained after %v: %v", d, w.Log("drained"))
		}
		ws[i] = queuetest.StartWorker(t, f.url, fmt.Sprint("w", i), 5, 20*time.Millisecond, "")
	}
	f.ledger(ids...).Check(f.ctx, 60*time.Second)
	for _, id := range ids {
		if j, err := f.q.Job(f.ctx, id); err != nil || j.Failures+j.Crashes != 0 {
			t.Errorf("%+v %v: an attempt was counted", j, err)
		}
	}
	for _, w := range ws {
		w.Signal(syscall.SIGTERM)
		<-w.Done()
	}
}

// Row 22: bulk holds the only slot and yields to chat.
func TestRow22Yield(t *testing.T) {
	t.Setenv(lossless, "1")
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	req := queuetest.Request("a", "bulk")
	req.Class = queue.Bulk
	rc, err := f.q.Submit(f.ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	w := queuetest.StartWorker(t, f.url, "w", 60, 50*time.Millisecond, "")
	until(t, "the bulk job", func() bool { return len(w.Log("step "+rc.ID)) > 5 })
	chat := f.submit("b", "chat")
	f.ledger(rc.ID, chat).Check(f.ctx, 60*time.Second)
	if done := w.Log("completed"); len(done) != 2 || !strings.HasPrefix(done[0], "completed "+chat) {
		t.Errorf("chat waited for the bulk job: %v", done)
	}
	if n := len(w.Log("gave-back " + rc.ID)); n != 1 {
		t.Errorf("the bulk job yielded %d times", n)
	}
	seen := map[string]int{}
	for _, l := range w.Log("step " + rc.ID) {
		seen[l]++
	}
	if len(seen) != 60 {
		t.Errorf("%d different steps of 60", len(seen))
	}
	if j, err := f.q.Job(f.ctx, rc.ID); err != nil || j.Failures+j.Crashes != 0 {
		t.Errorf("%+v %v: an attempt was counted", j, err)
	}
	for l, n := range seen {
		if n > 1 {
			t.Errorf("%q ran %d times", l, n)
		}
	}
}

// longForm skips what is left to make test-faults.
func longForm(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("DREAM_FAULT_LONG") == "" {
		t.Skip(why + ": part of make test-faults")
	}
}
