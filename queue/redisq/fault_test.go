package redisq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// seeds is how often each row runs: once, or as DREAM_FAULT_SEEDS says (make test-faults).
func seeds() int {
	n, _ := strconv.Atoi(os.Getenv("DREAM_FAULT_SEEDS"))
	return max(n, 1)
}

// faultConfig has short leases, so that rows take seconds.
func faultConfig() queue.Config {
	c := queuetest.Config()
	c.Lease, c.Heartbeat, c.TickEvery = 1500*time.Millisecond, 400*time.Millisecond, 100*time.Millisecond
	c.BackoffBase, c.BackoffMax, c.YieldAfter, c.YieldHorizon = 50*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 0
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
	t   *testing.T
	ctx context.Context
	q   queue.Queue
	url string
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
	return &queuetest.Ledger{T: f.t, Q: f.q, Want: ids}
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

// Row 1: kill -9 at each named point; another worker finishes the job.
func TestRow1KilledWorker(t *testing.T) {
	r := queuetest.StartRedis(t)
	for range seeds() {
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
			if wait := j.Started.Sub(died); wait > faultConfig().Lease+5*time.Second {
				t.Errorf("%s: restarted %v after the kill", point, wait)
			}
			if point == "checkpoint" && len(rescuer.Log("step")) >= 10 {
				t.Errorf("the rescuer did not go on from the checkpoint: %v", rescuer.Log("step"))
			}
			rescuer.Signal(syscall.SIGTERM)
			<-rescuer.Done()
		}
	}
}

// Row 2: a worker that is stopped for three leases publishes nothing.
func TestRow2StoppedWorker(t *testing.T) {
	r := queuetest.StartRedis(t)
	for range seeds() {
		f := setupFault(t, r.Addr)
		id := f.submit("a", "thing")
		stale := queuetest.StartWorker(t, f.url, "stale", 40, 50*time.Millisecond, "")
		until(t, "the first lease", func() bool { return len(stale.Log("step")) > 2 })
		stale.Signal(syscall.SIGSTOP)
		fresh := queuetest.StartWorker(t, f.url, "fresh", 10, 10*time.Millisecond, "")
		until(t, "the second worker's end", func() bool { return len(fresh.Log("completed")) == 1 })
		stale.Signal(syscall.SIGCONT)
		until(t, "the stale worker's notice", func() bool { return len(stale.Log("stopped"))+len(stale.Log("completed")) > 0 })
		if l := stale.Log("completed"); len(l) > 0 && !strings.HasSuffix(l[0], string(queue.CodeLost)) {
			t.Errorf("the stale worker completed: %v", l)
		}
		f.ledger(id).Check(f.ctx, 10*time.Second)
	}
}

// Row 4: kill -9 of Redis under load, AOF always: nothing acknowledged is lost.
func TestRow4KilledRedis(t *testing.T) {
	for range seeds() {
		killRedis(t, queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always"), false)
	}
}

// Row 5: the same with everysec: what is lost is submitted again by the reconciler.
func TestRow5EverySecond(t *testing.T) {
	for range seeds() {
		killRedis(t, queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "everysec"), true)
	}
}

func killRedis(t *testing.T, r *queuetest.Redis, reconcile bool) {
	f := setupFault(t, r.Addr)
	w := queuetest.StartWorker(t, f.url, "w", 2, 20*time.Millisecond, "")
	var mu sync.Mutex
	var accepted []queue.Request
	var ids []string
	ctx, stop := context.WithCancel(f.ctx)
	var wg sync.WaitGroup
	for u := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				req := queuetest.Request(fmt.Sprint("u", u), fmt.Sprint("thing ", i))
				req.Key = fmt.Sprintf("k%d-%d", u, i)
				if req.Normalise() != nil {
					continue
				}
				if rc, err := f.q.Submit(f.ctx, req); err == nil {
					mu.Lock()
					req.ID = rc.ID
					accepted, ids = append(accepted, req), append(ids, rc.ID)
					mu.Unlock()
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	for range 2 {
		time.Sleep(700 * time.Millisecond)
		r.Kill()
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	wg.Wait()
	if reconcile {
		until(t, "the reconciler", func() bool {
			again, err := queue.Reconcile(f.ctx, f.q, accepted)
			if len(again) > 0 {
				t.Logf("submitted again: %d of %d", len(again), len(accepted))
			}
			return err == nil
		})
	}
	if len(ids) < 20 {
		t.Fatalf("only %d requests were acknowledged", len(ids))
	}
	f.ledger(ids...).Check(f.ctx, 120*time.Second)
	w.Signal(syscall.SIGTERM)
	<-w.Done()
}

// Row 6: the script cache vanishes all the time; no caller sees it.
func TestRow6ScriptFlush(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	c := r.Client()
	ctx, stop := context.WithCancel(f.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = c.ScriptFlush(f.ctx).Err() // once more or less is the same
			time.Sleep(2 * time.Millisecond)
		}
	})
	var ids []string
	for round := range 10 * seeds() {
		rs := make([]queue.Request, 100)
		for i := range rs {
			rs[i] = queuetest.Request("a", fmt.Sprint(round, " ", i))
		}
		out, errs := f.q.SubmitMany(f.ctx, rs)
		for i := range rs {
			if errs[i] != nil || !out[i].New {
				t.Fatalf("%+v %v", out[i], errs[i])
			}
			ids = append(ids, out[i].ID)
		}
		for range 20 {
			l, err := f.q.Lease(f.ctx, queuetest.Caps("w"))
			if err == nil {
				_, err = f.q.Heartbeat(f.ctx, l.Ref(), queue.Beat{})
			}
			if err == nil {
				err = f.q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	wg.Wait()
	for range len(ids) - 200*seeds() {
		l, err := f.q.Lease(f.ctx, queuetest.Caps("w"))
		if err == nil {
			err = f.q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.ledger(ids...).Check(f.ctx, 10*time.Second)
}

// Row 8: a "done" that the network held back arrives two leases later.
func TestRow8HeldBytes(t *testing.T) {
	r := queuetest.StartRedis(t)
	for range seeds() {
		f := setupFault(t, r.Addr)
		p := queuetest.StartProxy(t, r.Addr)
		far, err := openFault(f.ctx, strings.Replace(f.url, r.Addr, p.Addr, 1))
		if err != nil {
			t.Fatal(err)
		}
		id := f.submit("a", "thing")
		l, err := far.Lease(f.ctx, queuetest.Caps("far"))
		if err != nil {
			t.Fatal(err)
		}
		p.Hold()
		late := make(chan error)
		go func() {
			ctx, stop := context.WithTimeout(f.ctx, 200*time.Millisecond)
			defer stop()
			late <- far.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID})
		}()
		if err := <-late; !errors.Is(err, queue.ErrUnavailable) {
			t.Fatalf("a call into the hole: %v", err)
		}
		var l2 *queue.Lease
		until(t, "the rescue", func() bool { l2, err = f.q.Lease(f.ctx, queuetest.Caps("near")); return err == nil })
		p.Release() // the held completion reaches Redis while the other attempt runs
		time.Sleep(100 * time.Millisecond)
		j, err := f.q.Job(f.ctx, id)
		if err != nil || j.Status != queue.Leased || j.LeaseID != l2.ID {
			t.Fatalf("the late completion was taken: %+v %v", j, err)
		}
		if err := far.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}); !errors.Is(err, queue.ErrLost) {
			t.Fatalf("again: %v", err)
		}
		if err := f.q.Complete(f.ctx, l2.Ref(), queue.Result{Winner: l2.ID}); err != nil {
			t.Fatal(err)
		}
		f.ledger(id).Check(f.ctx, 5*time.Second)
		_ = far.Close()
	}
}

// Row 9: a slow Redis and resets in mid-answer.
func TestRow9SlowRedis(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	p := queuetest.StartProxy(t, r.Addr)
	cfg := faultConfig()
	cfg.SubmitBudget = 1500 * time.Millisecond
	o, _ := redisq.ParseURL(strings.Replace(f.url, r.Addr, p.Addr, 1))
	o.TestClock = true
	far, err := redisq.Open(f.ctx, cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	p.Delay(2500 * time.Millisecond)
	req := queuetest.Request("a", "slow")
	req.Key = "slow"
	start := time.Now()
	_, err = far.Submit(f.ctx, req)
	if !errors.Is(err, queue.ErrUnavailable) || time.Since(start) > 10*time.Second {
		t.Fatalf("submit took %v: %v", time.Since(start), err)
	}
	if queue.SentenceOf(err) == "" {
		t.Fatal("no sentence for the requester")
	}
	p.Delay(0)
	rc, err := far.Submit(f.ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	js, err := f.q.List(f.ctx, queue.Filter{User: "test:a"})
	if err != nil || len(js) != 1 || js[0].ID != rc.ID {
		t.Fatalf("%d jobs of one request: %v", len(js), err)
	}
	// Heartbeats survive half a second of delay and a reset.
	l, err := far.Lease(f.ctx, queuetest.Caps("w"))
	if err != nil {
		t.Fatal(err)
	}
	p.Delay(500 * time.Millisecond)
	for range 3 {
		if a, err := far.Heartbeat(f.ctx, l.Ref(), queue.Beat{}); err != nil || a.Directive != queue.GoOn {
			t.Fatalf("%+v %v", a, err)
		}
	}
	p.Break(false)
	p.Delay(0)
	if a, err := far.Heartbeat(f.ctx, l.Ref(), queue.Beat{}); err != nil || a.Directive != queue.GoOn {
		t.Fatalf("after a reset: %+v %v", a, err)
	}
	if err := far.Complete(f.ctx, l.Ref(), queue.Result{}); err != nil {
		t.Fatal(err)
	}
	f.ledger(rc.ID).Check(f.ctx, 5*time.Second)
}

// Row 10: the answer is lost after the write took effect, for each script; the
// client's own repetition gets the same answer.
func TestRow10LostAnswers(t *testing.T) {
	r := queuetest.StartRedis(t)
	p := queuetest.StartProxy(t, r.Addr)
	for range seeds() {
		f := setupFault(t, r.Addr)
		far, err := openFault(f.ctx, strings.Replace(f.url, r.Addr, p.Addr, 1))
		if err != nil {
			t.Fatal(err)
		}
		cut := func() {
			t.Helper()
			if _, err := far.End(f.ctx); err != nil { // a fresh, working connection first
				t.Fatal(err)
			}
			p.CutNextAnswer()
		}
		ok := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		submit := func() queue.Receipt {
			t.Helper()
			cut()
			rc, err := far.Submit(f.ctx, queuetest.Request("a", "x"))
			ok("submit", err)
			if !rc.New {
				t.Fatal("the repeated submit does not answer like the first")
			}
			return rc
		}
		lease := func(id string) *queue.Lease {
			t.Helper()
			cut()
			l, err := far.Lease(f.ctx, queuetest.Caps("w"))
			ok("lease", err)
			if l.Job.ID != id || l.Job.Attempt < 1 {
				t.Fatalf("leased %s attempt %d, want %s", l.Job.ID, l.Job.Attempt, id)
			}
			return l
		}
		one := submit().ID
		l := lease(one)
		cut()
		a, err := far.Heartbeat(f.ctx, l.Ref(), queue.Beat{Progress: &queue.Progress{Stage: queue.StageViews, Step: 1}})
		ok("heartbeat", err)
		if a.Directive != queue.GoOn {
			t.Fatal(a.Directive)
		}
		cut()
		ok("give back", far.GiveBack(f.ctx, l.Ref(), queue.GiveBackOptions{Reason: queue.Drained}))
		l = lease(one)
		cut()
		st, err := far.Fail(f.ctx, l.Ref(), queue.Failure{Kind: queue.FailInput})
		ok("fail", err)
		if st != queue.Failed {
			t.Fatal(st)
		}
		two := submit().ID
		l = lease(two)
		cut()
		ok("complete", far.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}))
		three := submit().ID
		cut()
		_, err = far.Cancel(f.ctx, three)
		ok("cancel", err)
		cut()
		n, err := far.Add(f.ctx, "n", 5, 0, time.Hour)
		ok("add", err)
		if n != 5 {
			t.Fatalf("the counter is %d after adding 5 once", n)
		}
		cut()
		rec, err := far.Put(f.ctx, "r", []byte("v"), "", 0)
		ok("put", err)
		cut()
		_, err = far.Put(f.ctx, "r", []byte("w"), rec.Version, 0)
		ok("put again", err)
		cut()
		k, err := far.Lock(f.ctx, "l", time.Minute)
		ok("lock", err)
		cut()
		ok("renew", far.Renew(f.ctx, k, time.Minute))
		cut()
		ok("raise", far.Raise(f.ctx, queue.Alert{Code: "c", Key: "k", State: queue.Firing}))
		if as, err := far.Alerts(f.ctx, "", 10, 0); err != nil || len(as) != 1 {
			t.Fatalf("%d alerts in the stream: %v", len(as), err)
		}
		if p.Cuts() < 15 {
			t.Fatalf("only %d answers were cut", p.Cuts())
		}
		f.ledger(one, two, three).Check(f.ctx, 5*time.Second)
		_ = far.Close()
	}
}

// Rows 11 and 12: workers' clocks decide nothing (no call carries a time), and
// the server's may jump.
func TestRow12ClockJumps(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	q := f.q.(*redisq.Queue)
	var ids []string
	for _, jump := range []time.Duration{60 * time.Second, -60 * time.Second, -60 * time.Second, 60 * time.Second} {
		id := f.submit("a", "thing")
		ids = append(ids, id)
		l, err := q.Lease(f.ctx, queuetest.Caps("w"))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.ShiftClock(f.ctx, jump); err != nil {
			t.Fatal(err)
		}
		a, err := q.Heartbeat(f.ctx, l.Ref(), queue.Beat{})
		if err != nil {
			t.Fatal(err)
		}
		if a.Directive == queue.StopLost { // a lease may expire early once
			until(t, "the next lease", func() bool { l, err = q.Lease(f.ctx, queuetest.Caps("w")); return err == nil })
		}
		if err := q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}); err != nil {
			t.Fatal(err)
		}
	}
	f.ledger(ids...).Check(f.ctx, 10*time.Second)
}

// Row 16: cancel at each phase of a worker process.
func TestRow16Cancel(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	w := queuetest.StartWorker(t, f.url, "w", 30, 30*time.Millisecond, "")
	var ids []string
	for i := range 4 * seeds() {
		id := f.submit("a", "thing")
		ids = append(ids, id)
		until(t, "the lease", func() bool { return len(w.Log("leased "+id)) > 0 })
		time.Sleep(time.Duration(i%4) * 100 * time.Millisecond)
		at := time.Now()
		if st, err := f.q.Cancel(f.ctx, id); err != nil || st != queue.Cancelled {
			t.Fatal(st, err)
		}
		until(t, "the worker's stop", func() bool { return len(w.Log("stopped "+id)) > 0 })
		if d := time.Since(at); d > 5*time.Second { // heartbeat + step, and a slow machine
			t.Errorf("the worker stopped after %v", d)
		}
	}
	f.ledger(ids...).Check(f.ctx, 10*time.Second)
}

// Row 17: an input that kills its worker is set aside; others go on.
func TestRow17Poison(t *testing.T) {
	r := queuetest.StartRedis(t)
	for range seeds() {
		f := setupFault(t, r.Addr)
		bad := f.submit("a", "poison")
		ids := []string{bad}
		for i := range 6 {
			ids = append(ids, f.submit("b", fmt.Sprint("thing ", i)))
		}
		ctx, stop := context.WithCancel(f.ctx)
		var wg sync.WaitGroup
		wg.Go(func() { // the supervisor: starts the worker again when it died
			for i := 0; ctx.Err() == nil; i++ {
				w := queuetest.StartWorker(t, f.url, "w", 2, 20*time.Millisecond, "")
				select {
				case <-w.Done():
				case <-ctx.Done():
					w.Signal(syscall.SIGTERM)
					<-w.Done()
				}
			}
		})
		f.ledger(ids...).Check(f.ctx, 60*time.Second)
		stop()
		wg.Wait()
		j, err := f.q.Job(f.ctx, bad)
		if err != nil || j.Status != queue.Quarantined || j.Crashes != 3 {
			t.Errorf("%+v %v", j, err)
		}
	}
}

// Row 20: rolling drain over all workers under load.
func TestRow20Drain(t *testing.T) {
	r := queuetest.StartRedis(t)
	for range seeds() {
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
}

// Row 21: switches last through a restart and keep the order.
func TestRow21PauseRestart(t *testing.T) {
	r := queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	f := setupFault(t, r.Addr)
	f.submit("a", "1")
	f.submit("b", "2")
	for _, s := range []queue.Switch{{Scope: queue.AllJobs}, {Scope: queue.OfClass, Name: "interactive"}, {Scope: queue.OfUser, Name: "test:a"}} {
		if err := f.q.Pause(f.ctx, s.Scope, s.Name, ""); err != nil {
			t.Fatal(err)
		}
		r.Kill()
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		var l *queue.Lease
		var err error
		until(t, "the server", func() bool {
			l, err = f.q.Lease(f.ctx, queuetest.Caps("w"))
			return !errors.Is(err, queue.ErrUnavailable)
		})
		if s.Scope == queue.OfUser {
			if err != nil || l.Job.Prompt != "2" {
				t.Fatalf("user paused: %+v %v", l, err)
			}
			err = f.q.GiveBack(f.ctx, l.Ref(), queue.GiveBackOptions{Reason: queue.Returned, Used: 0.001})
			if err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, queue.ErrEmpty) {
			t.Fatalf("leased while %s is paused: %+v %v", s.Scope, l, err)
		}
		if err := f.q.Resume(f.ctx, s.Scope, s.Name); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"1", "2"} {
		if l, err := f.q.Lease(f.ctx, queuetest.Caps("w")); err != nil || l.Job.Prompt != want {
			t.Fatalf("%+v %v, want %q", l, err, want)
		}
	}
}

// Row 22: bulk holds the only slot and yields to chat.
func TestRow22Yield(t *testing.T) {
	r := queuetest.StartRedis(t)
	for range seeds() {
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
		at := time.Now()
		until(t, "the chat job", func() bool { return len(w.Log("leased "+chat)) > 0 })
		if d := time.Since(at); d > 3*time.Second {
			t.Errorf("chat started after %v; the bulk job needs 3 s", d)
		}
		f.ledger(rc.ID, chat).Check(f.ctx, 60*time.Second)
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
		for l, n := range seen {
			if n > 1 {
				t.Errorf("%q ran %d times", l, n)
			}
		}
	}
}

// Row 23: data of another schema is refused at start.
func TestRow23OtherSchema(t *testing.T) {
	r := queuetest.StartRedis(t)
	c := r.Client()
	if err := c.Set(t.Context(), "{dream}:schema", 99, 0).Err(); err != nil {
		t.Fatal(err)
	}
	_, err := redisq.Open(t.Context(), queuetest.Config(), redisq.Options{UniversalOptions: redis.UniversalOptions{Addrs: []string{r.Addr}}})
	if !errors.Is(err, queue.ErrVersion) || !strings.Contains(queue.SentenceOf(err), "schema 99") {
		t.Fatalf("%v", err)
	}
}
