package redisq_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
)

// supervise starts a worker again whenever it died, until stop.
func supervise(ctx context.Context, t testing.TB, url, name string, steps int, step time.Duration) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w := queuetest.StartWorker(t, url, name, steps, step, "")
			select {
			case <-w.Done():
			case <-ctx.Done():
				w.Signal(syscall.SIGTERM)
				<-w.Done()
			}
		}
	})
	return wg.Wait
}

// Row 17: an input that kills its worker is set aside; others go on.
func TestRow17Poison(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	bad := f.submit("a", "poison")
	ids := []string{bad}
	for i := range 6 {
		ids = append(ids, f.submit("b", fmt.Sprint("thing ", i)))
	}
	ctx, stop := context.WithCancel(f.ctx)
	wait := supervise(ctx, t, f.url, "w", 2, 20*time.Millisecond)
	f.ledger(ids...).Check(f.ctx, 60*time.Second)
	stop()
	wait()
	j, err := f.q.Job(f.ctx, bad)
	if err != nil || j.Status != queue.Quarantined || j.Crashes != 3 {
		t.Errorf("%+v %v", j, err)
	}
}

// Row 17: chat waits no longer beside poison, in simulated hours.
func TestRow17PoisonWaits(t *testing.T) {
	r := queuetest.StartRedis(t)
	queuetest.RunPoison(t, on([]string{r.Addr}, false))
}

// BenchmarkPoisonWaits measures what chat waits without poison and beside it:
// two supervised worker processes, jobs of 200 ms at random times, half of what
// the workers can do, and an input every 15 s that kills its worker, leases of
// 1.5 s.
//
//	go test ./queue/redisq -run '^$' -bench PoisonWaits -benchtime 1x
func BenchmarkPoisonWaits(b *testing.B) {
	r := queuetest.StartRedis(b)
	for range b.N {
		clean, beside := poisonWaits(b, r, 0), poisonWaits(b, r, 15*time.Second)
		b.ReportMetric(clean, "p95-ms")
		b.ReportMetric(beside, "p95-ms-beside-poison")
		b.ReportMetric(beside/clean, "ratio")
	}
}

func poisonWaits(b *testing.B, r *queuetest.Redis, every time.Duration) float64 {
	const jobs, mean = 300, 200 * time.Millisecond
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	url := fmt.Sprintf("redis://%s?prefix=p%d", r.Addr, subjects.Add(1))
	q, err := openFault(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	var tick sync.WaitGroup
	tick.Go(func() { _ = queue.RunMaintenance(ctx, q, 100*time.Millisecond, faultConfigLog()) })
	waits := []func(){supervise(ctx, b, url, "w1", 4, mean/4), supervise(ctx, b, url, "w2", 4, mean/4), tick.Wait}
	rng := rand.New(rand.NewPCG(1, 17))
	submit := func(user, prompt string) string {
		rc, err := q.Submit(ctx, queuetest.Request(user, prompt))
		if err != nil {
			b.Fatal(err)
		}
		return rc.ID
	}
	time.Sleep(time.Second) // for the workers to be there
	var ids, bad []string
	begun := time.Now()
	for next, poison := begun, begun.Add(every/2); len(ids) < jobs; next = next.Add(time.Duration(rng.ExpFloat64() * float64(mean))) {
		time.Sleep(time.Until(next))
		if every > 0 && time.Now().After(poison) {
			bad = append(bad, submit("mallory", fmt.Sprint("poison ", len(bad))))
			poison = poison.Add(every)
		}
		ids = append(ids, submit(fmt.Sprint("u", rng.IntN(6)), fmt.Sprint("thing ", len(ids))))
	}
	l := queuetest.Ledger{T: b, Q: q, Want: append(ids, bad...)}
	l.Check(ctx, time.Minute)
	var v []float64
	for _, id := range ids {
		j, err := q.Job(ctx, id)
		if err != nil {
			b.Fatal(err)
		}
		v = append(v, float64(j.Started.Sub(j.Submitted).Milliseconds()))
	}
	for _, id := range bad {
		if j, err := q.Job(ctx, id); err != nil || j.Status != queue.Quarantined {
			b.Fatalf("%+v %v", j, err)
		}
	}
	stop()
	for _, w := range waits {
		w()
	}
	return queuetest.P95(v)
}
