package redisq_test

import (
	"fmt"
	"strings"
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
	f.ledger(ids...).Check(f.ctx, 10*time.Second)
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
