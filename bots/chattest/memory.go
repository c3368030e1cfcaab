package chattest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"dreamcad/bots/delivery"
	"dreamcad/queue"
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

// FlatHeap calls each for 0 … total-1 and fails when the heap grows meanwhile.
// It looks twenty times, after settle and a garbage collection, and reports the
// slope of a line through the looks after the first skip, in which caches fill,
// and the course of the heap and of the memory that the process holds.
func FlatHeap(t *testing.T, total, skip int, each func(i int), settle func()) {
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

// Tidy lets the queue drop what is old.
func Tidy(ctx context.Context, q queue.Maintainer) {
	for range 50 {
		if ticked, err := q.Tick(ctx); err != nil || ticked == (queue.Ticked{}) {
			return
		}
	}
}

// NoPace has no limits: what is measured is memory.
type NoPace struct{}

// Buckets implements delivery.Pacer.
func (NoPace) Buckets(k delivery.Kind, channel string) []string {
	return []string{string(k) + "/" + channel, "all"}
}

// Rate implements delivery.Pacer.
func (NoPace) Rate(string) (float64, int) { return 0, 0 }
