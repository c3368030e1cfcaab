package redisq_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// TestCluster runs the suite on three masters: every script stays in one slot.
func TestCluster(t *testing.T) {
	queuetest.Run(t, on(queuetest.StartCluster(t), true))
}

// Row 7: the primary dies, Sentinel promotes the replica; work goes on.
func TestRow7Failover(t *testing.T) {
	fo := queuetest.StartFailover(t, time.Second)
	q, err := openFault(t.Context(), fmt.Sprintf("redis+sentinel://%s/mymaster?wait_replicas=1", strings.Join(fo.Addrs, ",")))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	f := &faultBench{t: t, ctx: t.Context(), q: q}
	var ids []string
	for i := range 20 {
		ids = append(ids, f.submit("a", fmt.Sprint("thing ", i)))
	}
	run := func() error {
		l, err := q.Lease(f.ctx, queuetest.Caps("w"))
		if err == nil {
			until(t, "a completion", func() bool { return q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID}) == nil })
		}
		return err
	}
	held, err := q.Lease(f.ctx, queuetest.Caps("holder"))
	if err != nil {
		t.Fatal(err)
	}
	fo.Primary.Kill()
	at := time.Now()
	// A submit that is not confirmed by a replica is refused, so only those
	// that Redis knows count; writes work again after the failover.
	until(t, "the new primary", func() bool { _, err := q.Heartbeat(f.ctx, held.Ref(), queue.Beat{}); return err == nil })
	t.Logf("%.1f s without a primary; down-after is 1 s", time.Since(at).Seconds())
	if fs := q.Check(f.ctx); !hasFinding(fs, "replicas") {
		t.Errorf("the check does not say that no replica is left: %+v", fs)
	}
	// Without a replica, completion with wait_replicas answers "unavailable",
	// though it took effect: an operator has to bring a replica back.
	if err := fo.Primary.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the old primary as a replica", func() bool { return !hasFinding(q.Check(f.ctx), "replicas") })
	a, err := q.Heartbeat(f.ctx, held.Ref(), queue.Beat{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Directive == queue.GoOn {
		// The replica may need a moment more than the server's INFO says.
		until(t, "the completion on both", func() bool { return q.Complete(f.ctx, held.Ref(), queue.Result{Winner: held.ID}) == nil })
	}
	until(t, "the end of the work", func() bool {
		if _, err := q.Tick(f.ctx); err != nil {
			return false
		}
		return queue.CodeOf(run()) == queue.CodeEmpty && f.ledgerLeft(ids) == 0
	})
	f.ledger(ids...).Check(f.ctx, 60*time.Second)
}

// Row 7, without waiting for the replica, which is behind: what the new primary
// does not know is submitted again.
func TestRow7ReplicaBehind(t *testing.T) {
	fo := queuetest.StartFailover(t, time.Second)
	url := fmt.Sprintf("redis+sentinel://%s/mymaster", strings.Join(fo.Addrs, ","))
	q, err := openFault(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	f := &faultBench{t: t, ctx: t.Context(), q: q}
	w := queuetest.StartWorker(t, url, "w", 2, 20*time.Millisecond, "")
	var accepted []queue.Request
	var ids []string
	take := func(n int) {
		for range n {
			r := queuetest.Request("a", fmt.Sprint("thing ", len(ids)))
			r.Key = fmt.Sprint("k", len(ids))
			rc, err := q.Submit(f.ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			r.ID = rc.ID
			accepted, ids = append(accepted, r), append(ids, rc.ID)
		}
	}
	take(20)
	until(t, "the worker", func() bool { return len(w.Log("leased")) > 0 })
	lag := queuetest.StartProxy(t, fo.Primary.Addr)
	fo.FollowThrough(lag)
	lag.Delay(time.Second)
	take(50)
	fo.Primary.Kill()
	lag.Break(true) // what was on its way to the replica is lost
	at := time.Now()
	until(t, "the new primary", func() bool { _, err := q.Add(f.ctx, "probe", 1, 0, time.Hour); return err == nil })
	t.Logf("%.1f s without a primary; down-after is 1 s", time.Since(at).Seconds())
	until(t, "the reconciler", func() bool {
		again, err := queue.Reconcile(f.ctx, q, accepted)
		if len(again) > 0 {
			t.Logf("submitted again: %d of %d", len(again), len(accepted))
		}
		return err == nil
	})
	until(t, "the end of the work", func() bool {
		_, err := q.Tick(f.ctx)
		return err == nil && f.ledgerLeft(ids) == 0
	})
	f.ledger(ids...).Check(f.ctx, 60*time.Second)
	w.Signal(syscall.SIGTERM)
	<-w.Done()
}

func hasFinding(fs []queue.Finding, code string) bool {
	for _, f := range fs {
		if f.Code == code {
			return true
		}
	}
	return false
}

// ledgerLeft counts the jobs that are not over.
func (f *faultBench) ledgerLeft(ids []string) int {
	n := 0
	for _, id := range ids {
		if j, err := f.q.Job(f.ctx, id); err != nil || !j.Status.Terminal() {
			n++
		}
	}
	return n
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://h":                          "[h:6379] 0  false ",
		"redis://u:p%40@h:1/3?prefix=x":      "[h:1] 3  false x",
		"rediss://h:1":                       "[h:1] 0  false ",
		"redis+sentinel://a,b:2,[::1]:3/m/1": "[a:26379 b:2 [::1]:3] 1 m false ",
		"redis+cluster://:pw@a:1,b:2":        "[a:1 b:2] 0  true ",
		"redis://h?nope=1":                   "error", "http://h": "error", "redis+sentinel://h": "error", "redis://": "error", "redis://h/x": "error", "x": "error",
	} {
		o, err := redisq.ParseURL(raw)
		got := fmt.Sprintf("%v %d %s %v %s", o.Addrs, o.DB, o.MasterName, o.IsClusterMode, o.Prefix)
		if err != nil {
			got = "error"
			if strings.Contains(err.Error(), "p@") || strings.Contains(err.Error(), "pw") {
				t.Errorf("%q: the error shows the password: %v", raw, err)
			}
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", raw, got, err, want)
		}
	}
}
