package chattest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/bots/limits"
	"dreamcad/internal/testout"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
)

// Patience is for a slow machine; nothing that waits for it measures speed.
const Patience = 20 * time.Second

// World is a queue, a store and a service, and what they log. The adapter's
// tests add its platform.
type World struct {
	T       *testing.T
	Ctx     context.Context
	Q       *sqliteq.Queue
	Store   storage.Store
	Service *bots.Service
	Render  *bots.Renderer
	Log     *testout.Buffer
	Logger  *slog.Logger
	Channel string // where people type
	Ops     string // where alerts go

	platform string
}

// NewWorld makes a world in which admin is an administrator and sends files.
// budget is the time for the first answer; 0: the real one.
func NewWorld(t *testing.T, platform, admin string, budget time.Duration) *World {
	t.Helper()
	w := &World{T: t, Ctx: context.Background(), Log: &testout.Buffer{}, platform: platform}
	w.Logger = slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config := queue.DefaultConfig()
	if budget > 0 {
		config.SubmitBudget = budget
	}
	var err error
	if w.Q, err = sqliteq.Open(w.Ctx, filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Q.Close() })
	if w.Store, err = dir.Open(dir.Config{Path: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	who := []string{platform + ":" + admin}
	w.Service, err = bots.New(bots.Config{
		Patience: budget, Qualities: []queue.Quality{queue.Draft, queue.Standard}, Limits: limits.Config{Admins: who, Ingest: who},
	}, w.Q, w.Store, lines{}, w.Logger)
	if err != nil {
		t.Fatal(err)
	}
	w.Render = &bots.Renderer{Next: w.Service.Next, Results: bots.Results{
		Link: func(_ context.Context, job string, f queue.File) (string, time.Time) {
			return "https://dream.example/r/" + job + "/" + f.Name + "?exp=1&sig=x", time.Now().Add(time.Hour)
		},
		Page: func(job string) string { return "https://dream.example/jobs/" + job },
		Read: func(_ context.Context, _, _, name string, _ int64) ([]byte, error) {
			return []byte("picture " + name), nil
		},
	}}
	w.Service.Present(w.Render)
	return w
}

// Quick are delivery's numbers for tests in real time.
func Quick() delivery.Config {
	c := delivery.Defaults()
	c.EditEvery, c.Poll, c.RetryBase, c.LockLife = 20*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond, 1500*time.Millisecond
	return c
}

// Run runs parts until the returned function, or the end of the test, stops them.
func (w *World) Run(parts ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(w.Ctx)
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() { _ = part(ctx) }) // what it says when it is stopped
	}
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.T.Cleanup(stop)
	return stop
}

// Delivery is the delivery of an adapter, with alerts to Ops.
func (w *World) Delivery(c delivery.Config, chat interface {
	bots.Chat
	delivery.Pacer
}) *delivery.Delivery {
	c.OpsChannel = w.Ops
	return delivery.New(c, w.Q, chat, chat, w.Render, delivery.NewMetrics(nil), w.Logger)
}

// Newest is the job that a person submitted last.
func (w *World) Newest(user string) queue.Job {
	w.T.Helper()
	jobs, err := w.Q.List(w.Ctx, queue.Filter{User: w.platform + ":" + user, Limit: 1})
	if err != nil || len(jobs) == 0 {
		w.T.Fatalf("no job of %s: %v; log:\n%s", user, err, w.Log)
	}
	return jobs[0]
}

// Results are the files of a job.
var Results = []queue.File{
	{Role: "sheet", Name: "views.png", MediaType: "image/png", Bytes: 10},
	{Role: "turntable", Name: "turntable.gif", MediaType: "image/gif", Bytes: 10},
	{Role: "mesh-glb", Name: "model.glb", MediaType: "model/gltf-binary", Bytes: 12345},
	{Role: "mesh-obj", Name: "model.obj", MediaType: "model/obj", Bytes: 2345},
}

// Lease takes the next job as a worker does.
func (w *World) Lease() *queue.Lease {
	w.T.Helper()
	l, err := w.Q.Lease(w.Ctx, queue.Capabilities{Worker: "w1", Name: "w1", Models: []string{"mini"}, Wait: 5 * time.Second})
	if err != nil {
		w.T.Fatal(err)
	}
	return l
}

// Beat reports what a worker does.
func (w *World) Beat(l *queue.Lease, b queue.Beat) {
	w.T.Helper()
	if _, err := w.Q.Heartbeat(w.Ctx, l.Ref(), b); err != nil {
		w.T.Fatal(err)
	}
}

// Work reports progress every ten seconds for as long.
func (w *World) Work(l *queue.Lease, long time.Duration) {
	w.T.Helper()
	total := int(long / (10 * time.Second))
	for step := 1; step <= total; step++ {
		time.Sleep(10 * time.Second)
		w.Beat(l, queue.Beat{Progress: &queue.Progress{Stage: queue.StageOptimise, Step: step, Total: total}})
	}
}

// Complete ends a job with Results.
func (w *World) Complete(l *queue.Lease) {
	w.T.Helper()
	if err := w.Q.Complete(w.Ctx, l.Ref(), queue.Result{Winner: l.ID, Model: "mini", Files: Results}); err != nil {
		w.T.Fatal(err)
	}
}

// Raise raises an alert, as often as times.
func (w *World) Raise(a queue.Alert, times int) {
	w.T.Helper()
	for range times {
		if err := w.Q.Raise(w.Ctx, a); err != nil {
			w.T.Fatal(err)
		}
	}
}

// lines is an ingest that counts the lines of the file.
type lines struct{}

// Ingest implements bots.Ingester.
func (lines) Ingest(_ context.Context, name string, file io.Reader, _ queue.Requester, _ queue.Origin, _ func(string) error) (string, error) {
	text, err := io.ReadAll(file)
	return fmt.Sprintf("%s: %d lines", name, bytes.Count(text, []byte("\n"))), err
}

// Stuck is a queue whose submit does not answer.
type Stuck struct{ bots.Jobs }

// Submit implements queue.Submitter.
func (s *Stuck) Submit(ctx context.Context, _ queue.Request, _ ...queue.Quota) (queue.Receipt, error) {
	<-ctx.Done()
	return queue.Receipt{}, queue.Unavailable("submit", ctx.Err())
}

// Spread logs how long commands took that came all at once.
func Spread(t *testing.T, times []time.Duration, taken int) {
	t.Helper()
	slices.Sort(times)
	n := len(times)
	t.Logf("%d parallel commands, %d taken: p50 %v, p99 %v, slowest %v", n, taken, times[n/2], times[(n*99+99)/100-1], times[n-1])
}
