package redisq_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// Row 4: kill -9 of Redis under load, AOF always: nothing acknowledged is lost.
func TestRow4KilledRedis(t *testing.T) {
	killRedis(t, queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always"), false)
}

// Row 5: the same with everysec on a disk whose syncs take 700 ms longer: what
// is lost is submitted again by the reconciler.
func TestRow5SlowDisk(t *testing.T) {
	disk := queuetest.NewShim(t)
	disk.SlowSync(700 * time.Millisecond)
	killRedis(t, queuetest.StartRedisEnv(t, disk.Env(), "--appendonly", "yes", "--appendfsync", "everysec"), true)
}

func killRedis(t *testing.T, r *queuetest.Redis, reconcile bool) {
	rng := dice(4)
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
		time.Sleep(400*time.Millisecond + time.Duration(rng.Int64N(800))*time.Millisecond)
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
	t.Setenv(lossless, "1")
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
	for round := range 10 {
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
	for range len(ids) - 200 {
		l, err := f.q.Lease(f.ctx, queuetest.Caps("w"))
		if err == nil {
			err = f.q.Complete(f.ctx, l.Ref(), queue.Result{Winner: l.ID})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.ledger(ids...).Check(f.ctx, 60*time.Second)
}

// Row 11: worker and server disagree about the time by an hour. The server's
// clock is moved, which to the worker process is the same as its own being off.
func TestRow11WrongClock(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Setenv(lossless, "1")
		clock := queuetest.NewShim(t)
		clock.Clock(off)
		r := queuetest.StartRedisEnv(t, clock.Env())
		f := setupFault(t, r.Addr)
		if at, err := r.Client().Time(f.ctx).Result(); err != nil || (time.Until(at)-off).Abs() > time.Minute {
			t.Fatalf("the server's clock shows %v, want it off by %v: %v", at, off, err)
		}
		ids := []string{f.submit("a", "one"), f.submit("a", "two"), f.submit("a", "three")}
		w := queuetest.StartWorker(t, f.url, "w", 40, 50*time.Millisecond, "")
		// The clock goes on by a third of a lease every ten steps, among which is a
		// heartbeat: each job takes longer than a lease, however slow the machine is.
		for n := 10; n < 3*40; n += 10 {
			until(t, "ten steps", func() bool { return len(w.Log("step")) >= n })
			off += faultConfig().Lease / 3
			clock.Clock(off)
		}
		f.ledger(ids...).Check(f.ctx, 60*time.Second)
		for i, l := range w.Log("leased") {
			if want := fmt.Sprintf("leased %s 1 ", ids[min(i, 2)]); i > 2 || !strings.HasPrefix(l, want) {
				t.Errorf("lease %d is %q, want %q: order or leases depend on the worker's clock", i, l, want)
			}
		}
		w.Signal(syscall.SIGTERM)
		<-w.Done()
		t.Setenv(lossless, "")
		id := f.orphan(queuetest.StartWorker(t, f.url, "short", 40, 50*time.Millisecond, ""), "b")
		f.ledger(append(ids, id)...).Check(f.ctx, 60*time.Second)
	}
}

// Row 12: the server's clock jumps by a minute while jobs wait, run and back off.
func TestRow12ClockJumps(t *testing.T) {
	clock := queuetest.NewShim(t)
	r := queuetest.StartRedisEnv(t, clock.Env())
	f := setupFault(t, r.Addr)
	w := queuetest.StartWorker(t, f.url, "w", 6, 30*time.Millisecond, "")
	var ids []string
	now := time.Duration(0)
	for _, jump := range []time.Duration{60 * time.Second, -60 * time.Second, -60 * time.Second, 60 * time.Second} {
		ids = append(ids, f.submit("a", "before"), f.submit("b", "before"))
		until(t, "work", func() bool { return len(w.Log("leased "+ids[len(ids)-1]))+len(w.Log("leased "+ids[len(ids)-2])) > 0 })
		now += jump
		clock.Clock(now)
		ids = append(ids, f.submit("a", "after"))
		// Nothing may be stuck for longer than the jump; leases may expire early once.
		f.ledger(ids...).Check(f.ctx, 75*time.Second)
	}
	for _, id := range ids {
		if j, err := f.q.Job(f.ctx, id); err != nil || j.Status != queue.Done || j.Crashes > 1 {
			t.Errorf("%+v %v", j, err)
		}
	}
	w.Signal(syscall.SIGTERM)
	<-w.Done()
}

// Row 14: the disk of Redis is full. With everysec it refuses writes and goes
// on by itself; with always it stops, and nothing that it acknowledged is gone.
func TestRow14FullDisk(t *testing.T) {
	for _, fsync := range []string{"everysec", "always"} {
		fullDisk(t, fsync)
	}
}

func fullDisk(t *testing.T, fsync string) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no small disk to be had here: %v", err)
	}
	r := queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", fsync, "--dir", dir)
	t.Cleanup(func() {
		r.Kill()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	f := setupFault(t, r.Addr)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1500<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var ids []string
	var err error
	for i := 0; err == nil && i < 20_000; i++ {
		var rc queue.Receipt
		if rc, err = f.q.Submit(f.ctx, queuetest.Request("a", fmt.Sprint("thing ", i))); err == nil {
			ids = append(ids, rc.ID)
		}
	}
	want := queue.CodeFull
	if fsync == "always" {
		want = queue.CodeUnavailable
	}
	if queue.CodeOf(err) != want || queue.SentenceOf(err) == "" || len(ids) < 10 {
		t.Fatalf("after %d requests on a full disk: %v, want %q with a sentence", len(ids), err, want)
	}
	if _, err := f.q.Lease(f.ctx, queuetest.Caps("w")); err == nil {
		t.Error("a job was leased although the lease could not be written")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if fsync == "always" { // it has ended itself; the host's supervisor starts it again
		until(t, "the server", func() bool { return r.Start() == nil })
	}
	until(t, "room", func() bool {
		rc, err := f.q.Submit(f.ctx, queuetest.Request("a", "again"))
		if err == nil {
			ids = append(ids, rc.ID)
		}
		return err == nil
	})
	ws := []*queuetest.Child{queuetest.StartWorker(t, f.url, "w1", 0, 0, ""), queuetest.StartWorker(t, f.url, "w2", 0, 0, "")}
	f.ledger(ids...).Check(f.ctx, 120*time.Second)
	for _, w := range ws {
		w.Signal(syscall.SIGTERM)
		<-w.Done()
	}
}

// Row 21: switches last through a restart and keep the order.
func TestRow21PauseRestart(t *testing.T) {
	t.Setenv(lossless, "1")
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

// A managed server forbids CONFIG: the queue works, and its check says which
// setting it could not look at; INFO tells it the others.
func TestWithoutConfig(t *testing.T) {
	r := queuetest.StartRedis(t, "--appendonly", "yes", "--rename-command", "CONFIG", "")
	queuetest.Run(t, on([]string{r.Addr}, false))
	f := setupFault(t, r.Addr)
	var unknown []string
	for _, x := range f.q.Check(f.ctx) {
		if x.Severity != queue.Info {
			t.Errorf("%+v", x)
		}
		if x.Unknown && strings.Contains(x.Text, "Could not check") {
			unknown = append(unknown, x.Code)
		}
	}
	if !slices.Equal(unknown, []string{"appendfsync"}) {
		t.Errorf("the settings %q could not be checked, want appendfsync alone", unknown)
	}
}
