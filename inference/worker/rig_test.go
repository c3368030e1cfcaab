package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
	"dreamcad/storage/storagetest"
)

// limit is how long a test waits for what should happen soon.
const limit = 3 * time.Minute

// rig is a queue, a storage and a device on one temporary folder.
type rig struct {
	t     *testing.T
	q     queue.Queue
	store *flaky
	dev   *chain
	cfg   worker.Config
	gov   worker.Governor
	start string // cursor of the outbox before the test
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOf(t, func(*queue.Config) {})
}

// newRigOf is newRig with changes to the queue's settings. Its leases outlast any
// standstill of the machine: here no process dies, so none may be lost.
func newRigOf(t *testing.T, change func(*queue.Config)) *rig {
	t.Helper()
	base := t.TempDir()
	qc := queue.DefaultConfig()
	qc.Lease, qc.Heartbeat, qc.TickEvery = 2*time.Minute, 50*time.Millisecond, 50*time.Millisecond
	qc.BackoffBase, qc.YieldAfter, qc.YieldHorizon = 10*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond
	qc.SubmitBudget = 20 * time.Second
	change(&qc)
	r := openRig(t, base, qc)
	go func() { _ = queue.RunMaintenance(t.Context(), r.q, qc.TickEvery, slog.New(slog.DiscardHandler)) }()
	return r
}

func openRig(t *testing.T, base string, qc queue.Config) *rig {
	q, err := sqliteq.Open(t.Context(), filepath.Join(base, "queue.db"), qc, sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	s, err := dir.Open(dir.Config{Path: filepath.Join(base, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	start, err := q.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, q: q, store: &flaky{Store: s}, dev: newChain(), start: start,
		cfg: worker.Config{Name: "test/gpu0", Dir: filepath.Join(base, "work"), Version: "test", Grace: 5 * time.Second,
			LeaseWait: 200 * time.Millisecond, ProgressEvery: 20 * time.Millisecond, SaveGap: 1, MinFree: 1}}
}

// holdAt lets no job get beyond a step before the channel is closed: what the test
// does meanwhile meets a job that runs, however slow the machine is.
func (r *rig) holdAt(step int) chan struct{} {
	hold := make(chan struct{})
	r.dev.hook = func(_ string, at int) error {
		if at == step {
			<-hold
		}
		return nil
	}
	return hold
}

// running is a worker in the background.
type running struct {
	w    *worker.Worker
	stop context.CancelFunc
	err  chan error
}

func (r *rig) run(at func(string)) *running {
	r.t.Helper()
	return r.runWith(r.dev, at)
}

func (r *rig) runWith(m worker.Maker, at func(string)) *running {
	r.t.Helper()
	w, err := worker.New(r.cfg, worker.Deps{Queue: r.q, Store: r.store, Maker: m, Governor: r.gov,
		Log: slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))})
	if err != nil {
		r.t.Fatal(err)
	}
	if at != nil {
		worker.SetAt(w, at)
	}
	ctx, stop := context.WithCancel(context.Background())
	run := &running{w: w, stop: stop, err: make(chan error, 1)}
	go func() { run.err <- w.Run(ctx) }()
	r.t.Cleanup(func() { run.drain(r.t) })
	return run
}

// drain stops the worker and waits for its end.
func (run *running) drain(t *testing.T) {
	t.Helper()
	run.stop()
	select {
	case err, ok := <-run.err:
		if ok && err != nil && !errors.Is(err, worker.ErrStuck) {
			t.Errorf("worker ended with %v", err)
		}
		if ok {
			close(run.err)
		}
	case <-time.After(limit):
		t.Fatal("the worker does not drain")
	}
}

func (r *rig) submit(kind queue.Kind, class queue.Class, prompt string) queue.Job {
	r.t.Helper()
	seed := int64(7)
	rc, err := r.q.Submit(r.t.Context(), queue.Request{Prompt: prompt, Kind: kind, Class: class, Seed: &seed, Model: "mini",
		Requester: queue.Requester{Platform: "test", ID: "u-" + prompt}, Origin: queue.Origin{Platform: "test"}})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.job(rc.ID)
}

func (r *rig) job(id string) queue.Job {
	r.t.Helper()
	j, err := r.q.Job(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return j
}

// wait waits until the job has the status.
func (r *rig) wait(id string, want queue.Status) queue.Job {
	r.t.Helper()
	r.until(fmt.Sprintf("job %s", want), func() bool { return r.job(id).Status == want })
	return r.job(id)
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited %v for: %s", limit, what)
		}
	}
}

// kinds lists a job's events, progress left out.
func (r *rig) kinds(id string) []queue.EventKind {
	r.t.Helper()
	var out []queue.EventKind
	for cursor := r.start; ; {
		evs, err := r.q.Events(r.t.Context(), cursor, 100, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(evs) == 0 {
			return out
		}
		for _, e := range evs {
			cursor = e.ID
			if e.Job == id && e.Kind != queue.EventProgress {
				out = append(out, e.Kind)
			}
		}
	}
}

func (r *rig) wantEvents(id string, want ...queue.EventKind) {
	r.t.Helper()
	if got := r.kinds(id); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("events of the job: %v, want %v", got, want)
	}
}

// published checks the result of a done job: the bytes of an uninterrupted run,
// and nothing else left in storage.
func (r *rig) published(j queue.Job) *storage.Manifest {
	r.t.Helper()
	m, err := storage.ReadManifest(r.t.Context(), r.store, j.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	name, want := "model.glb", r.dev.expected(j.Request)
	if j.Kind == queue.Views {
		name, want = "view-3.png", "view 3 "+want
	}
	if got := storagetest.Read(r.t, r.store, m.FileKey(name)); got != want {
		r.t.Errorf("%s holds %q, an uninterrupted run makes %q", name, got, want)
	}
	if j.Result == nil || j.Result.Winner != m.Attempt || len(j.Result.Files) != len(m.Files) {
		r.t.Errorf("the queue's result %+v is not the manifest's %+v", j.Result, m)
	}
	if n := len(storagetest.Keys(r.t, r.store, storage.AttemptPrefix(j.ID, m.Attempt))); n != len(m.Files) {
		r.t.Errorf("%d files stored, the manifest names %d", n, len(m.Files))
	}
	return m
}

// emptied checks that the worker left nothing of the job on its disk.
func (r *rig) emptied(id string) {
	r.t.Helper()
	r.until("the job's local folder is gone", func() bool {
		found, _ := filepath.Glob(filepath.Join(r.cfg.Dir, "*", id))
		return len(found) == 0
	})
}
