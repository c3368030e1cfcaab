// Package chattest is what the tests of both chat adapters share: a world
// without its platform, a driver of load, and a measure of memory.
package chattest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

// Interactions is how many a test of memory sends: DREAM_INTERACTIONS, or a
// short form of 4,000 (1,000 with -short).
func Interactions() int {
	if n, err := strconv.Atoi(os.Getenv("DREAM_INTERACTIONS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1000
	}
	return 4000
}

// flatHeap calls each for 0 … total-1 and fails when the heap grows meanwhile.
// It looks twenty times, after settle and a garbage collection, and reports the
// slope of a line through the looks after the first skip, in which caches fill,
// and the course of the heap and of the memory that the process holds.
func flatHeap(t *testing.T, total, skip int, each func(i int), settle func()) {
	t.Helper()
	type look struct{ n, heap float64 }
	var looks []look
	course := ""
	began := time.Now()
	for i := range total {
		each(i)
		if (i+1)%(total/20) != 0 {
			continue
		}
		settle()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		looks = append(looks, look{float64(i + 1), float64(m.HeapAlloc)})
		course += fmt.Sprintf("\n%8d after %4.0f s: heap %.2f MB, resident %.1f MB", i+1, time.Since(began).Seconds(), float64(m.HeapAlloc)/1e6, resident()/1e6)
	}
	looks = looks[skip:]
	var sx, sy, sxx, sxy float64
	for _, l := range looks {
		sx, sy, sxx, sxy = sx+l.n, sy+l.heap, sxx+l.n*l.n, sxy+l.n*l.heap
	}
	n := float64(len(looks))
	slope := (n*sxy - sx*sy) / (n*sxx - sx*sx)
	first, last := looks[0], looks[len(looks)-1]
	t.Logf("%d interactions in %v: %.2f bytes per interaction; heap %.2f MB after %.0f, %.2f MB after %.0f%s", total, time.Since(began).Round(time.Second),
		slope, first.heap/1e6, first.n, last.heap/1e6, last.n, course)
	if grown := last.heap - first.heap; grown > 6<<20 || total >= 100_000 && slope > 8 {
		t.Errorf("the heap grew by %.2f MB: %.2f bytes per interaction", grown/1e6, slope)
	}
}

// resident is the memory that the process holds, in bytes; 0 where Linux does not tell.
func resident() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages float64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}

// Adapter is what the measure of memory needs of one.
type Adapter struct {
	Chat bots.Chat
	Wire func(*delivery.Outbound, *delivery.Metrics)
	// Handle takes the i-th interaction. Of ten, the first submits a job of the
	// person User(i), the others may be about it (job), the last one cancels it.
	Handle func(ctx context.Context, i int, job string)
	User   func(i int) string
	Work   *sync.WaitGroup // what goes on after Handle
}

// Memory sends Interactions to an adapter on a real queue, which only leaves
// its syncs out: they would take most of the time. The heap must stay flat.
func Memory(t *testing.T, skip int, build func(*bots.Service, *sqliteq.Queue, *slog.Logger) Adapter) {
	t.Helper()
	config := queue.DefaultConfig()
	config.KeepCount, config.KeepEvents, config.SubmitBudget = 500, 1000, Patience
	ctx, stop := context.WithCancel(context.Background())
	q, err := sqliteq.Open(ctx, filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	silent := slog.New(slog.DiscardHandler)
	service, err := bots.New(bots.Config{Patience: Patience}, q, nil, nil, silent)
	if err != nil {
		t.Fatal(err)
	}
	a := build(service, q, silent)
	metrics := delivery.NewMetrics(nil)
	d := delivery.New(Quick(), q, a.Chat, noPace{}, &bots.Renderer{}, metrics, silent)
	a.Wire(d.Outbound(), metrics)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	defer func() { stop(); <-done }()

	job := ""
	flatHeap(t, Interactions(), skip, func(i int) {
		a.Handle(ctx, i, job)
		switch i % 10 {
		case 0: // the next ones are about this job
			a.Work.Wait()
			jobs, err := q.List(ctx, queue.Filter{User: a.User(i), Limit: 1})
			if err != nil || len(jobs) != 1 {
				t.Fatalf("interaction %d made %d jobs: %v", i, len(jobs), err)
			}
			job = jobs[0].ID
		case 9:
			a.Work.Wait()
		}
	}, func() { a.Work.Wait(); tidy(ctx, q) })
}

// AcceptAll answers every request with a body of JSON and keeps nothing.
type AcceptAll string

// RoundTrip implements http.RoundTripper.
func (body AcceptAll) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(string(body))), Request: r}, nil
}

// tidy lets the queue drop what is old.
func tidy(ctx context.Context, q queue.Maintainer) {
	for range 50 {
		if ticked, err := q.Tick(ctx); err != nil || ticked == (queue.Ticked{}) {
			return
		}
	}
}

// noPace has no limits: what is measured is memory.
type noPace struct{}

// Buckets implements delivery.Pacer.
func (noPace) Buckets(k delivery.Kind, channel string) []string {
	return []string{string(k) + "/" + channel, "all"}
}

// Rate implements delivery.Pacer.
func (noPace) Rate(string) (float64, int) { return 0, 0 }
