package redisq_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// rounds is how often each figure is taken; both sides take turns.
const rounds = 5

// rate runs f n times and returns calls a second.
func rate(n int, f func(i int)) float64 {
	start := time.Now()
	for i := range n {
		f(i)
	}
	return float64(n) / time.Since(start).Seconds()
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

type quiet struct{}

func (quiet) Debug(...any)   {}
func (quiet) Info(...any)    {}
func (quiet) Warn(...any)    {}
func (quiet) Error(...any)   {}
func (quiet) Fatal(v ...any) { log.Fatal(v...) }

// BenchmarkBesideAsynq prints the tables of docs/benchmarks.md: this queue and
// hibiken/asynq (and BullMQ, where there is Node) on the same redis-server in
// turns, medians of five rounds.
//
//	go test ./queue/redisq -run '^$' -bench BesideAsynq -benchtime 1x
func BenchmarkBesideAsynq(b *testing.B) {
	for range b.N {
		for _, mode := range []struct {
			name string
			n    int
			args []string
		}{{"persistence off", 3000, nil}, {"appendfsync always", 400, []string{"--appendonly", "yes", "--appendfsync", "always"}}} {
			r := queuetest.StartRedis(b, mode.args...)
			table(b, r, mode.name, mode.n)
			r.Kill()
		}
	}
}

func openBench(b testing.TB, r *queuetest.Redis, prefix string) *redisq.Queue {
	cfg := queuetest.Config()
	q, err := redisq.Open(b.Context(), cfg, redisq.Options{UniversalOptions: redis.UniversalOptions{Addrs: []string{r.Addr}, PoolSize: 64}, Prefix: prefix})
	if err != nil {
		b.Fatal(err)
	}
	return q
}

func table(b *testing.B, r *queuetest.Redis, name string, n int) {
	ctx := b.Context()
	q := openBench(b, r, "bench")
	defer q.Close()
	rc := redis.NewClient(&redis.Options{Addr: r.Addr, PoolSize: 64})
	defer rc.Close()
	ac := asynq.NewClient(asynq.RedisClientOpt{Addr: r.Addr, PoolSize: 64})
	defer ac.Close()
	bull := startBull(b, r)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	figures := map[string][]float64{}
	put := func(k string, v float64) { figures[k] = append(figures[k], v) }
	payload := []byte(strings.Repeat("x", 300))
	for round := range rounds + 1 {
		must(rc.FlushDB(ctx).Err())
		put("PING", rate(n, func(int) { must(rc.Ping(ctx).Err()) }))
		put("enqueue ours", rate(n, func(i int) {
			_, err := q.Submit(ctx, queuetest.Request(strconv.Itoa(i%10), "a ceramic coffee mug"))
			must(err)
		}))
		put("enqueue asynq", rate(n, func(int) {
			_, err := ac.Enqueue(asynq.NewTask("noop", payload))
			must(err)
		}))
		rs := make([]queue.Request, 5*n)
		for i := range rs {
			rs[i] = queuetest.Request(strconv.Itoa(i%10), "a ceramic coffee mug")
		}
		start := time.Now()
		_, errs := q.SubmitMany(ctx, rs)
		must(errs[0])
		put("pipelined ours", float64(len(rs))/time.Since(start).Seconds())
		if bull != nil {
			put("enqueue bull", bull.ask("enqueue", n)[0])
			put("pipelined bull", bull.ask("bulk", 5*n)[0])
		}
		for _, c := range []int{10, 50} {
			must(rc.FlushDB(ctx).Err())
			put(fmt.Sprintf("no-op ours %d", c), noopOurs(b, r, n, c))
			must(rc.FlushDB(ctx).Err())
			put(fmt.Sprintf("no-op asynq %d", c), noopAsynq(b, r.Addr, ac, n, c))
			if bull != nil {
				must(rc.FlushDB(ctx).Err())
				put(fmt.Sprintf("no-op bull %d", c), bull.ask("noop", n, c)[0])
			}
		}
		if round == 0 { // warms all sides up
			clear(figures)
		}
	}
	m := func(k string) float64 {
		if figures[k] == nil {
			return math.NaN() // asynq has no pipeline; no Node, no BullMQ
		}
		return median(figures[k])
	}
	w := os.Stdout
	fmt.Fprintf(w, "\n%s (medians of %d, calls or jobs a second)\n\n| | dreamcad | asynq | ratio | BullMQ | ratio |\n|---|---:|---:|---:|---:|---:|\n", name, rounds)
	cell := func(format string, v float64) string {
		if math.IsNaN(v) {
			return ""
		}
		return fmt.Sprintf(format, v)
	}
	row := func(what, key, suffix, note string) {
		o, a, j := m(key+" ours"+suffix), m(key+" asynq"+suffix), m(key+" bull"+suffix)
		fmt.Fprintf(w, "| %s | %.0f%s | %s | %s | %s | %s |\n", what, o, note, cell("%.0f", a), cell("%.2f", o/a), cell("%.0f", j), cell("%.2f", o/j))
	}
	fmt.Fprintf(w, "| PING, 1 client | %.0f | | | | |\n", m("PING"))
	row("enqueue, 1 client", "enqueue", "", fmt.Sprintf(" (%.2f × PING)", m("enqueue ours")/m("PING")))
	row("enqueue, pipelined", "pipelined", "", fmt.Sprintf(" (%.1f × single)", m("pipelined ours")/m("enqueue ours")))
	for _, c := range []string{" 10", " 50"} {
		row("no-op jobs, concurrency"+c, "no-op", c, "")
	}
}

// noopOurs has clients of its own, as asynq's server has. As in both products'
// workers, a slot asks for the next job while the last one is being completed.
func noopOurs(b *testing.B, r *queuetest.Redis, n, c int) float64 {
	q := openBench(b, r, "bench")
	defer q.Close()
	rs := make([]queue.Request, n)
	for i := range rs {
		rs[i] = queuetest.Request(strconv.Itoa(i%10), "a ceramic coffee mug")
	}
	if _, errs := q.SubmitMany(b.Context(), rs); errs[0] != nil {
		b.Fatal(errs[0])
	}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	start := time.Now()
	for i := range c {
		wg.Go(func() {
			caps := queuetest.Caps(fmt.Sprint("w", i))
			caps.Wait = time.Second
			completing := make(chan struct{}, 1)
			for left.Load() > 0 {
				l, err := q.Lease(b.Context(), caps)
				if queue.CodeOf(err) == queue.CodeEmpty {
					continue
				}
				if err != nil {
					b.Error(err)
					return
				}
				completing <- struct{}{}
				wg.Go(func() {
					if err := q.Complete(b.Context(), l.Ref(), queue.Result{Winner: l.ID, Used: 1}); err != nil {
						b.Error(err)
					}
					left.Add(-1)
					<-completing
				})
			}
		})
	}
	for left.Load() > 0 && !b.Failed() {
		time.Sleep(200 * time.Microsecond)
	}
	d := time.Since(start)
	wg.Wait()
	return float64(n) / d.Seconds()
}

func noopAsynq(b *testing.B, addr string, ac *asynq.Client, n, c int) float64 {
	for range n {
		if _, err := ac.Enqueue(asynq.NewTask("noop", []byte(strings.Repeat("x", 300)))); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(n))
	s := asynq.NewServer(asynq.RedisClientOpt{Addr: addr, PoolSize: 64}, asynq.Config{Concurrency: c, Logger: quiet{}, LogLevel: asynq.FatalLevel})
	start := time.Now()
	err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	}))
	if err != nil {
		b.Fatal(err)
	}
	<-done
	d := time.Since(start)
	s.Shutdown()
	return float64(n) / d.Seconds()
}

// BenchmarkLatency prints start latencies: of an idle worker, with 10 and with
// 10,000 active users.
func BenchmarkLatency(b *testing.B) {
	for range b.N {
		r := queuetest.StartRedis(b)
		idle(b, r)
		for range 2 { // the second pass is warm
			few, many := leases(b, r, 10), leases(b, r, 10_000)
			fmt.Printf("| lease + complete, 10 / 10,000 active users | p50 %.2f / %.2f ms, p99 %.2f / %.2f ms |\n", quantile(few, .5), quantile(many, .5), quantile(few, .99), quantile(many, .99))
		}
		r.Kill()
	}
}

func idle(b *testing.B, r *queuetest.Redis) {
	q := openBench(b, r, "idle")
	defer q.Close()
	var v []float64
	for range 500 {
		got := make(chan time.Time)
		go func() {
			c := queuetest.Caps("w")
			c.Wait = 10 * time.Second
			l, err := q.Lease(b.Context(), c)
			at := time.Now()
			if err == nil {
				err = q.Complete(b.Context(), l.Ref(), queue.Result{Used: 1})
			}
			if err != nil {
				b.Error(err)
			}
			got <- at
		}()
		time.Sleep(3 * time.Millisecond)
		start := time.Now()
		if _, err := q.Submit(b.Context(), queuetest.Request("a", "x")); err != nil {
			b.Fatal(err)
		}
		v = append(v, (<-got).Sub(start).Seconds()*1000)
	}
	fmt.Printf("\n| idle start latency, submit to lease | p50 %.2f ms, p99 %.2f ms |\n", quantile(v, .5), quantile(v, .99))
	if bull := startBull(b, r); bull != nil {
		bull.ask("idle", 100) // warm
		v = bull.ask("idle", 500)
		fmt.Printf("| … of BullMQ, add to start | p50 %.2f ms, p99 %.2f ms |\n", quantile(v, .5), quantile(v, .99))
	}
}

func leases(b *testing.B, r *queuetest.Redis, users int) []float64 {
	q := openBench(b, r, fmt.Sprint("u", users, time.Now().UnixNano()))
	defer q.Close()
	rs := make([]queue.Request, 12_000)
	for i := range rs {
		rs[i] = queuetest.Request(strconv.Itoa(i%users), "x")
	}
	if _, errs := q.SubmitMany(b.Context(), rs); errs[0] != nil {
		b.Fatal(errs[0])
	}
	var v []float64
	for range 1500 {
		start := time.Now()
		l, err := q.Lease(b.Context(), queuetest.Caps("w"))
		if err == nil {
			err = q.Complete(b.Context(), l.Ref(), queue.Result{Used: 1})
		}
		if err != nil {
			b.Fatal(err)
		}
		v = append(v, time.Since(start).Seconds()*1000)
	}
	return v
}
