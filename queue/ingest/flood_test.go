package ingest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/ingest"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/storage/dir"
)

// TestFlood is row 18 of the fault matrix in its short form.
func TestFlood(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	flood(t, n, true)
}

// BenchmarkMillion is the long form; it prints its figures.
//
//	go test ./queue/ingest -run '^$' -bench Million -benchtime 1x -timeout 30m
func BenchmarkMillion(b *testing.B) {
	for range b.N {
		flood(b, 1_000_000, true)
	}
}

// BenchmarkLeaseBehindMillion is its first part, without draining the million.
func BenchmarkLeaseBehindMillion(b *testing.B) {
	for range b.N {
		flood(b, 1_000_000, false)
	}
}

// flood ingests n lines, submits a chat job meanwhile, and drains everything
// with workers that do nothing.
func flood(t testing.TB, n int, all bool) {
	ctx := t.Context()
	r := queuetest.StartRedis(t)
	c := r.Client()
	cfg := queuetest.Config()
	q, err := redisq.Open(ctx, cfg, redisq.Options{UniversalOptions: redis.UniversalOptions{Addrs: []string{r.Addr}}})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	st, err := dir.Open(dir.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prompts.txt")
	writePrompts(t, file, n)
	used := func() int64 {
		s, err := c.Info(ctx, "memory").Result()
		if err != nil {
			t.Fatal(err)
		}
		var v int64
		for l := range strings.SplitSeq(s, "\r\n") {
			if x, ok := strings.CutPrefix(l, "used_memory_dataset:"); ok {
				_, _ = fmt.Sscan(x, &v)
			}
		}
		return v
	}
	before := used()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Now()
	in := &ingest.Ingester{Queue: q, Blobs: st, TempDir: t.TempDir()}
	rep, err := in.Ingest(ctx, f, options("prompts.txt"))
	if err != nil || rep.Accepted != int64(n) {
		t.Fatalf("%+v %v", rep, err)
	}
	rate := float64(n) / time.Since(start).Seconds()

	fctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = (&ingest.Feeder{Queue: q, Blobs: st}).Run(fctx) })
	defer wg.Wait()
	defer stop()
	caps := queuetest.Caps("w")
	caps.Wait = time.Minute
	l, err := q.Lease(ctx, caps) // the flood has begun
	if err != nil {
		t.Fatal(err)
	}
	complete(t, q, l)
	growth := used() - before
	rc, err := q.Submit(ctx, queuetest.Request("chat", "a chat job"))
	if err != nil {
		t.Fatal(err)
	}
	if l, err = q.Lease(ctx, caps); err != nil || l.Job.ID != rc.ID {
		t.Fatalf("the chat job does not start next: %+v %v", l, err)
	}
	complete(t, q, l)
	var waits []time.Duration
	for range min(2000, n/2) {
		at := time.Now()
		if l, err = q.Lease(ctx, caps); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(at))
		complete(t, q, l)
	}

	if !all {
		fmt.Printf("%d lines: ingest %.0f lines/s, Redis + %.2f MB, process %d MB; lease p50 %v p99 %v\n", n, rate, float64(growth)/1e6, rss(t), percentile(waits, .5), percentile(waits, .99))
		return
	}
	start = time.Now()
	peak := drain(t, q, rep.Batch)
	b, err := q.Batch(ctx, rep.Batch)
	if err != nil || b.Done+b.Failed != rep.Accepted || b.State != queue.BatchEnded {
		t.Fatalf("%+v %v", b, err)
	}
	if vs, err := q.Audit(ctx); err != nil || len(vs) > 0 {
		t.Fatal(vs, err)
	}
	if growth > 5<<20 {
		t.Errorf("the flood costs Redis %d bytes", growth)
	}
	report := fmt.Sprintf("%d lines: ingest %.0f lines/s, Redis + %.2f MB, heap peak %.0f MB, process peak %d MB; lease p50 %v p99 %v; drained at %.0f jobs/s: done %d, failed %d",
		n, rate, float64(growth)/1e6, float64(peak)/1e6, rss(t), percentile(waits, .5), percentile(waits, .99), float64(n)/time.Since(start).Seconds(), b.Done, b.Failed)
	if _, ok := t.(*testing.B); ok {
		fmt.Println(report)
	}
	t.Log(report)
}

func writePrompts(t testing.TB, file string, n int) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintf(w, "a ceramic coffee mug with pattern number %d and a handle\n", i)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func complete(t testing.TB, q queue.Leaser, l *queue.Lease) {
	t.Helper()
	if err := q.Complete(context.Background(), l.Ref(), queue.Result{Winner: l.ID, Used: 0.01}); err != nil {
		t.Fatal(err)
	}
}

// drain works the batch off and returns the largest heap seen.
func drain(t testing.TB, q queue.Queue, batch string) uint64 {
	var over atomic.Bool
	var peak uint64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			caps := queuetest.Caps(fmt.Sprint("w", i))
			caps.Wait = time.Second
			for !over.Load() {
				l, err := q.Lease(context.Background(), caps)
				if queue.CodeOf(err) == queue.CodeEmpty {
					continue
				}
				if err == nil {
					err = q.Complete(context.Background(), l.Ref(), queue.Result{Winner: l.ID, Used: 0.01})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for !over.Load() && !t.Failed() {
		b, err := q.Batch(context.Background(), batch)
		if err != nil {
			t.Error(err)
		}
		over.Store(err != nil || b.State == queue.BatchEnded)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
		time.Sleep(50 * time.Millisecond)
	}
	over.Store(true)
	wg.Wait()
	return peak
}

// rss is the most memory that this process has had, in MB.
func rss(t testing.TB) int64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Maxrss >> 10
}

func percentile(v []time.Duration, p float64) time.Duration {
	f := slices.Sorted(slices.Values(v))
	return f[min(int(p*float64(len(f))), len(f)-1)].Round(10 * time.Microsecond)
}
