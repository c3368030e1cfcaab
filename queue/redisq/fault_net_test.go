package redisq_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// Row 8: a "done" that the network held back arrives two leases later.
func TestRow8HeldBytes(t *testing.T) {
	r := queuetest.StartRedis(t)
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
	held := time.Now()
	late := make(chan error)
	go func() {
		ctx, stop := context.WithTimeout(f.ctx, 200*time.Millisecond)
		defer stop()
		late <- far.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID})
	}()
	if err := <-late; !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("a call into the hole: %v", err)
	}
	t.Setenv(lossless, "1")
	near, err := openFault(f.ctx, f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	var l2 *queue.Lease
	until(t, "the rescue", func() bool { l2, err = near.Lease(f.ctx, queuetest.Caps("near")); return err == nil })
	queuetest.Restarted(t, time.Since(held))
	p.Release() // the held completion reaches Redis while the other attempt runs
	until(t, "the late completion", func() bool {
		s, err := f.q.Stats(f.ctx)
		return err == nil && s.Counters["refused_lost"]+s.Counters["done"] > 0
	})
	j, err := f.q.Job(f.ctx, id)
	if err != nil || j.Status != queue.Leased || j.LeaseID != l2.ID {
		t.Fatalf("the late completion was taken: %+v %v", j, err)
	}
	if err := far.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("again: %v", err)
	}
	if err := near.Complete(f.ctx, l2.Ref(), queue.Result{Winner: l2.ID}); err != nil {
		t.Fatal(err)
	}
	f.ledger(id).Check(f.ctx, 60*time.Second)
	_ = far.Close()
}

// Row 9: a slow Redis and resets in mid-answer.
func TestRow9SlowRedis(t *testing.T) {
	t.Setenv(lossless, "1")
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
	var rc queue.Receipt
	until(t, "a submit within its budget", func() bool {
		rc, err = far.Submit(f.ctx, req)
		return !errors.Is(err, queue.ErrUnavailable)
	})
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
	f.ledger(rc.ID).Check(f.ctx, 60*time.Second)
}

// Row 10: the answer is lost after the write took effect, for each script; the
// client's own repetition gets the same answer.
func TestRow10LostAnswers(t *testing.T) {
	t.Setenv(lossless, "1")
	r := queuetest.StartRedis(t)
	p := queuetest.StartProxy(t, r.Addr)
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
	f.ledger(one, two, three).Check(f.ctx, 60*time.Second)
	_ = far.Close()
}

// Row 8 on a cable of its own: packets vanish, both ways or one way, for two
// leases, and connections do not learn of it. What was on its way arrives when
// the cable is whole again.
func TestRow8NetworkNamespace(t *testing.T) {
	longForm(t, "needs root")
	n := queuetest.NewNetns(t)
	r := queuetest.StartRedis(t, "--bind", "127.0.0.1 "+n.Near, "--protected-mode", "no")
	rng := dice(8)
	for name, lose := range map[string][]func(){
		"both ways": {n.LoseFromFar, n.LoseFromNear}, "requests": {n.LoseFromFar}, "answers": {n.LoseFromNear},
	} {
		f := setupFault(t, r.Addr)
		_, port, _ := strings.Cut(r.Addr, ":")
		far := queuetest.StartWorkerOf(t, n.Command(os.Args[0]), nil, strings.Replace(f.url, r.Addr, n.Near+":"+port, 1), "far", 40, 50*time.Millisecond, "")
		ids := []string{f.submit("a", "thing")}
		until(t, "the lease", func() bool { return len(far.Log("step "+ids[0])) > 0 })
		time.Sleep(time.Duration(rng.IntN(1900)) * time.Millisecond) // of 2 s that the job takes
		for _, f := range lose {
			f()
		}
		at := time.Now()
		near := queuetest.StartWorker(t, f.url, "near", 10, 20*time.Millisecond, "")
		ids = append(ids, f.submit("b", "meanwhile"))
		f.ledger(ids...).Check(f.ctx, 60*time.Second)
		if l := near.Log("leased " + ids[0]); len(l) > 0 { // else the far worker was done just before
			queuetest.Restarted(t, time.Since(at))
		}
		time.Sleep(max(0, 2*faultConfig().Lease-time.Since(at)))
		near.Signal(syscall.SIGTERM)
		<-near.Done()
		n.Heal()
		healed := time.Now()
		ids = append(ids, f.submit("a", "afterwards"))
		until(t, "the far worker's return", func() bool { return len(far.Log("completed "+ids[2])) > 0 })
		t.Logf("%s: at work again %v after the cable", name, time.Since(healed).Round(time.Millisecond))
		for _, l := range far.Log("completed " + ids[0]) {
			if len(near.Log("completed "+ids[0])) > 0 && !strings.HasSuffix(l, string(queue.CodeLost)) {
				t.Errorf("%s: the late completion was taken: %q", name, l)
			}
		}
		f.ledger(ids...).Check(f.ctx, 60*time.Second)
		far.Signal(syscall.SIGTERM)
		<-far.Done()
	}
}
