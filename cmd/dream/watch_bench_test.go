package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dreamcad/ops/rules"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage/dir"
)

// processorTime is the processor time of this process so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWatch measures the processor time of a look (each second) and of a
// round of the slow part (each ten seconds), and what both take of one processor.
func BenchmarkWatch(b *testing.B) {
	ctx := context.Background()
	data := b.TempDir()
	q, err := sqliteq.Open(ctx, filepath.Join(data, "q.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	store, err := dir.Open(dir.Config{Path: filepath.Join(data, "results")})
	if err != nil {
		b.Fatal(err)
	}
	c := &loadedConfig{settings: defaults()}
	c.Data = data
	w, err := newWatch(&app{ctx: ctx, config: c, log: slog.New(slog.DiscardHandler)}, ground{q, store}, watched{role: "worker", name: "bench", own: rules.NoCard})
	if err != nil {
		b.Fatal(err)
	}
	for name, x := range map[string]struct {
		once  func(context.Context)
		every time.Duration
	}{
		"look":    {func(ctx context.Context) { w.look(ctx) }, time.Second},
		"servers": {w.askServers, w.settings.ServersEvery},
	} {
		b.Run(name, func(b *testing.B) {
			begun := processorTime(b)
			for b.Loop() {
				x.once(ctx)
			}
			each := (processorTime(b) - begun) / time.Duration(b.N)
			b.ReportMetric(float64(each.Microseconds()), "cpu-µs/op")
			b.ReportMetric(100*float64(each)/float64(x.every), "%-of-a-processor")
		})
	}
}
