package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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
	base := t.TempDir()
	qc := queue.DefaultConfig()
	qc.Lease, qc.Heartbeat, qc.TickEvery = 3*time.Second, 50*time.Millisecond, 50*time.Millisecond
	qc.BackoffBase, qc.YieldAfter, qc.YieldHorizon = 10*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond
	qc.SubmitBudget = 20 * time.Second
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

func TestViews(t *testing.T) {
	r := newRig(t)
	r.run(nil)
	j := r.submit(queue.Views, queue.Interactive, "a mug")
	j = r.wait(j.ID, queue.Done)
	m := r.published(j)
	if m.Kind != "views" || m.Seed != 7 || m.Prompt != "a mug" || m.Class != "interactive" || m.Timings["views"] <= 0 || m.Device != "test chain" {
		t.Errorf("manifest %+v", m)
	}
	r.wantEvents(j.ID, queue.EventAccepted, queue.EventStarted, queue.EventDone)
	if n := r.dev.ledger.count(j.ID); n != r.dev.views {
		t.Errorf("%d steps done, want %d", n, r.dev.views)
	}
	r.emptied(j.ID)
}

func TestMeshTellsViewsFirst(t *testing.T) {
	r := newRig(t)
	r.dev.pace = 20 * time.Millisecond
	r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	r.until("views are told", func() bool { return len(r.job(j.ID).Views) == 4 })
	got := r.job(j.ID)
	key, err := storage.FindUnpublished(t.Context(), r.store, j.ID, "view-0.png")
	if err != nil || key != storage.FileKey(j.ID, got.LeaseID, "view-0.png") {
		t.Errorf("the view lies under %q, %v", key, err)
	}
	j = r.wait(j.ID, queue.Done)
	r.published(j)
	r.wantEvents(j.ID, queue.EventAccepted, queue.EventStarted, queue.EventViews, queue.EventDone)
	r.emptied(j.ID)
	r.until("checkpoints are gone", func() bool { return len(storagetest.Keys(t, r.store, storage.CheckpointPrefix(j.ID))) == 0 })
}

// Promise 4: a views job runs between two steps of a mesh.
func TestViewsRunBetweenStepsOfAMesh(t *testing.T) {
	r := newRig(t)
	r.dev.pace, r.dev.rounds = 5*time.Millisecond, 100
	r.run(nil)
	mesh := r.submit(queue.Mesh, queue.Interactive, "a castle")
	r.until("the mesh runs", func() bool { return r.dev.ledger.count(mesh.ID) > 10 })
	var jobs []queue.Job
	for i := range 3 {
		jobs = append(jobs, r.submit(queue.Views, queue.Interactive, fmt.Sprintf("mug %d", i)))
	}
	for _, j := range jobs {
		r.published(r.wait(j.ID, queue.Done))
	}
	if got := r.job(mesh.ID); got.Status != queue.Leased {
		t.Fatalf("the mesh is %s while views ran", got.Status)
	}
	// The views' steps stand together: no step of the mesh among them.
	run := 0
	for _, e := range r.dev.ledger.entries() {
		switch e.job {
		case jobs[0].ID:
			run++
		case mesh.ID:
			if run != 0 && run != r.dev.views {
				t.Errorf("a mesh step came after %d of %d views steps", run, r.dev.views)
			}
		}
	}
	mesh = r.wait(mesh.ID, queue.Done)
	r.published(mesh)
	if n := r.dev.ledger.count(mesh.ID); n != r.dev.total(mesh.Request) {
		t.Errorf("the mesh took %d steps, %d are needed: it was not simply interrupted", n, r.dev.total(mesh.Request))
	}
}

// Row 16: cancel at each phase ends in cancelled, told once, nothing stored.
func TestCancelAtEachPhase(t *testing.T) {
	for _, point := range []string{"leased", "step", "checkpoint", "kept", "artifacts", "manifest"} {
		t.Run(point, func(t *testing.T) {
			r := newRig(t)
			var once sync.Once
			var id atomic.Value
			r.run(func(p string) {
				if p != point {
					return
				}
				once.Do(func() {
					for id.Load() == nil {
						time.Sleep(time.Millisecond)
					}
					if _, err := r.q.Cancel(context.Background(), id.Load().(string)); err != nil {
						t.Errorf("Cancel: %v", err)
					}
				})
			})
			j := r.submit(queue.Mesh, queue.Interactive, "a mug")
			id.Store(j.ID)
			r.wait(j.ID, queue.Cancelled)
			r.until("the store is empty", func() bool { return len(storagetest.Keys(t, r.store, storage.JobPrefix(j.ID))) == 0 })
			r.emptied(j.ID)
			evs := r.kinds(j.ID)
			if evs[len(evs)-1] != queue.EventCancelled {
				t.Errorf("events %v", evs)
			}
			// The device is free: another job gets done, and this one stays cancelled.
			next := r.submit(queue.Views, queue.Interactive, "next")
			r.wait(next.ID, queue.Done)
			if got := r.job(j.ID); got.Status != queue.Cancelled {
				t.Errorf("the job is %s", got.Status)
			}
		})
	}
}

// Row 16: after completion a cancel comes too late and changes nothing.
func TestCancelAfterCompletion(t *testing.T) {
	r := newRig(t)
	r.run(nil)
	j := r.wait(r.submit(queue.Views, queue.Interactive, "a mug").ID, queue.Done)
	if _, err := r.q.Cancel(t.Context(), j.ID); !errors.Is(err, queue.ErrConflict) {
		t.Errorf("Cancel of a done job: %v", err)
	}
	r.published(r.job(j.ID))
}

// Row 20: draining mid-mesh loses no work and counts no attempt.
func TestDrainAndGoOnElsewhere(t *testing.T) {
	r := newRig(t)
	r.dev.pace, r.dev.rounds, r.dev.steps = 5*time.Millisecond, 20, 10
	first := r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a castle")
	r.until("the mesh runs", func() bool { return r.dev.ledger.count(j.ID) > 30 })
	first.drain(t)
	got := r.job(j.ID)
	if got.Status != queue.Queued || got.Failures != 0 || got.Crashes != 0 {
		t.Fatalf("after the drain: %s, %d failures, %d crashes", got.Status, got.Failures, got.Crashes)
	}
	if got.Check == nil || got.Check.Host != "" || !strings.HasPrefix(got.Check.Key, storage.CheckpointPrefix(j.ID)) {
		t.Fatalf("checkpoint pointer %+v, want one in storage", got.Check)
	}
	// Another host: nothing of the first one's disk is there.
	r.cfg.Dir = filepath.Join(t.TempDir(), "work")
	r.cfg.Name = "other/gpu0"
	r.run(nil)
	j = r.wait(j.ID, queue.Done)
	r.published(j)
	if n, want := r.dev.ledger.count(j.ID), r.dev.total(j.Request); n != want {
		t.Errorf("%d steps were done in all, %d are needed", n, want)
	}
}

// A drained worker ends a short job within the grace period.
func TestDrainFinishesViews(t *testing.T) {
	r := newRig(t)
	r.dev.pace = 50 * time.Millisecond
	run := r.run(nil)
	j := r.submit(queue.Views, queue.Interactive, "a mug")
	r.until("it runs", func() bool { return r.dev.ledger.count(j.ID) > 0 })
	run.drain(t)
	if got := r.job(j.ID); got.Status != queue.Done {
		t.Errorf("after the drain the job is %s", got.Status)
	}
}

// Row 22: bulk gives way at a checkpoint when a person waits.
func TestBulkYields(t *testing.T) {
	r := newRig(t)
	r.dev.pace, r.dev.bulk = 5*time.Millisecond, 100
	r.run(nil)
	bulk := r.submit(queue.Mesh, queue.Bulk, "a line of a file")
	r.until("bulk runs", func() bool { return r.dev.ledger.count(bulk.ID) > 20 })
	chat := r.submit(queue.Mesh, queue.Interactive, "a mug")
	r.wait(chat.ID, queue.Done)
	b := r.job(bulk.ID)
	if b.Failures != 0 || b.Crashes != 0 {
		t.Errorf("bulk has %d failures, %d crashes", b.Failures, b.Crashes)
	}
	r.published(r.wait(bulk.ID, queue.Done))
	entries, seen := r.dev.ledger.entries(), map[entry]int{}
	for _, e := range entries {
		seen[e]++
	}
	for e, n := range seen {
		if n > 1 {
			t.Errorf("step %d of job %s was done %d times", e.step, e.job, n)
		}
	}
}

// Row 3: a step that never ends is given up, and so is the worker.
func TestStuckStep(t *testing.T) {
	r := newRig(t)
	hang := make(chan struct{})
	defer func() { // what the loop still writes must not meet the removal of its folders
		close(hang)
		r.until("the abandoned loop ended", func() bool {
			stacks := make([]byte, 1<<20)
			return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("worker.(*Worker).loop("))
		})
	}()
	r.cfg.StuckFloor = 300 * time.Millisecond
	r.dev.hook = func(_ string, step int) error {
		if step == 3 {
			<-hang
		}
		return nil
	}
	run := r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	select {
	case err := <-run.err:
		if !errors.Is(err, worker.ErrStuck) {
			t.Errorf("Run ended with %v", err)
		}
		close(run.err)
	case <-time.After(limit):
		t.Fatal("the watchdog does not bark")
	}
	if got := r.job(j.ID); got.Crashes != 1 || got.Failure == nil || got.Failure.Kind != queue.FailStuck {
		t.Errorf("the job: %s, %d crashes, %+v", got.Status, got.Crashes, got.Failure)
	}
}

func TestFailures(t *testing.T) {
	r := newRig(t)
	boom := errors.New("boom")
	r.dev.hook = func(job string, _ int) error {
		switch r.job(job).Prompt {
		case "error":
			return boom
		case "panic":
			panic("boom")
		}
		return nil
	}
	r.run(nil)
	in := r.wait(r.submit(queue.Mesh, queue.Interactive, "refuse").ID, queue.Failed)
	if in.Attempt != 1 || in.Failure.Sentence != "This prompt cannot be drawn." {
		t.Errorf("bad input: %d attempts, %+v", in.Attempt, in.Failure)
	}
	e := r.wait(r.submit(queue.Mesh, queue.Interactive, "error").ID, queue.Failed)
	if e.Attempt != 3 || !strings.Contains(e.Failure.Detail, "boom") {
		t.Errorf("error: %d attempts, %+v", e.Attempt, e.Failure)
	}
	p := r.submit(queue.Mesh, queue.Interactive, "panic")
	r.until("it crashed", func() bool { return r.job(p.ID).Crashes > 0 })
	if got := r.job(p.ID); got.Failure == nil || got.Failure.Kind != queue.FailCrash || !strings.Contains(got.Failure.Detail, "goroutine") {
		t.Errorf("panic: %+v", got.Failure)
	}
	// The worker lives on.
	r.published(r.wait(r.submit(queue.Views, queue.Interactive, "a mug").ID, queue.Done))
}

// Row 13: an outage of the storage costs no computing.
func TestStorageAwayKeepsTheResult(t *testing.T) {
	r := newRig(t)
	r.run(func(p string) {
		if p == "kept" {
			r.store.fail(storage.ErrUnavailable)
		}
	})
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	r.until("uploads are tried", func() bool {
		drafts, _ := filepath.Glob(filepath.Join(r.cfg.Dir, "*", j.ID, "*.json"))
		return len(drafts) == 1
	})
	time.Sleep(500 * time.Millisecond) // several tries, several heartbeats
	if got := r.job(j.ID); got.Status != queue.Leased {
		t.Fatalf("during the outage the job is %s", got.Status)
	}
	r.store.fail(nil)
	r.published(r.wait(j.ID, queue.Done))
	if n := r.dev.ledger.count(j.ID); n != r.dev.total(j.Request) {
		t.Errorf("%d steps done, want %d", n, r.dev.total(j.Request))
	}
}

// After the limit the attempt fails with a sentence; the result waits on the disk
// and is published later, by another worker of this host, without computing.
func TestResultOnDiskIsPublishedLater(t *testing.T) {
	r := newRig(t)
	r.cfg.PublishLimit = 100 * time.Millisecond
	run := r.run(func(p string) {
		if p == "kept" {
			r.store.fail(storage.ErrForbidden)
		}
	})
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	got := r.wait(j.ID, queue.Scheduled)
	if got.Failure == nil || !strings.Contains(got.Failure.Sentence, "could not be stored") {
		t.Errorf("failure %+v", got.Failure)
	}
	run.drain(t)
	r.store.fail(nil)
	r.cfg.Name = "test/gpu1"
	if _, err := r.q.Cancel(t.Context(), j.ID); err != nil { // requeue needs a terminal job
		t.Fatal(err)
	}
	if err := r.q.Requeue(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	r.run(nil)
	r.published(r.wait(j.ID, queue.Done))
	if n := r.dev.ledger.count(j.ID); n != r.dev.total(j.Request) {
		t.Errorf("%d steps done in all, want %d", n, r.dev.total(j.Request))
	}
}

// A manifest that an earlier attempt wrote is adopted without computing.
func TestAdoptsAnEarlierManifest(t *testing.T) {
	r := newRig(t)
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	if _, err := storage.Publish(t.Context(), r.store, storagetest.Manifest(j.ID, "earlier", "view-0.png")); err != nil {
		t.Fatal(err)
	}
	r.run(nil)
	got := r.wait(j.ID, queue.Done)
	if got.Result.Winner != "earlier" || r.dev.ledger.count(j.ID) != 0 {
		t.Errorf("winner %q after %d steps", got.Result.Winner, r.dev.ledger.count(j.ID))
	}
}

// The other attempt publishes first: ours adopts and removes its own files.
func TestLosesTheRaceToPublish(t *testing.T) {
	r := newRig(t)
	var id atomic.Value
	r.run(func(p string) {
		if p == "artifacts" {
			if _, err := storage.Publish(context.Background(), r.store, storagetest.Manifest(id.Load().(string), "other")); err != nil {
				t.Errorf("Publish: %v", err)
			}
		}
	})
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	id.Store(j.ID)
	got := r.wait(j.ID, queue.Done)
	if got.Result.Winner != "other" {
		t.Errorf("winner %q", got.Result.Winner)
	}
	r.until("own files are gone", func() bool { return len(storagetest.Keys(t, r.store, storage.JobPrefix(j.ID))) == 1 })
}

// Row 14: a full storage stops leasing and starts it again by itself.
func TestFullStorageStopsLeasing(t *testing.T) {
	r := newRig(t)
	run := r.run(func(p string) {
		if p == "kept" {
			r.store.fail(storage.ErrFull)
		}
	})
	first := r.submit(queue.Views, queue.Interactive, "one")
	r.until("the result waits", func() bool { return run.w.Snapshot().Unpublished == 1 })
	r.until("leasing stops", func() bool { return run.w.Refusing() != "" })
	second := r.submit(queue.Views, queue.Interactive, "two")
	time.Sleep(300 * time.Millisecond)
	if got := r.job(second.ID); got.Status != queue.Queued {
		t.Errorf("with a full storage the second job is %s", got.Status)
	}
	worker.SetAt(run.w, func(string) {})
	r.store.fail(nil)
	r.published(r.wait(first.ID, queue.Done))
	r.published(r.wait(second.ID, queue.Done))
}

// A damaged checkpoint is passed over for the one before.
func TestDamagedCheckpoint(t *testing.T) {
	r := newRig(t)
	r.dev.pace, r.dev.rounds = 5*time.Millisecond, 30
	first := r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a castle")
	r.until("two checkpoints", func() bool { return r.dev.ledger.count(j.ID) > 25 })
	first.drain(t)
	found, _ := filepath.Glob(filepath.Join(r.cfg.Dir, "*", j.ID, "ckpt-*"))
	if len(found) != 2 {
		t.Fatalf("%d checkpoints on the disk, want the last two", len(found))
	}
	newest := found[len(found)-1]
	data, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(newest, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(nil)
	r.published(r.wait(j.ID, queue.Done))
}

type governor struct {
	mu    sync.Mutex
	pause time.Duration
	admit error
}

func (g *governor) Pause() time.Duration { g.mu.Lock(); defer g.mu.Unlock(); return g.pause }
func (g *governor) Admit() error         { g.mu.Lock(); defer g.mu.Unlock(); return g.admit }
func (g *governor) set(p time.Duration, e error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause, g.admit = p, e
}

func TestGovernor(t *testing.T) {
	r := newRig(t)
	g := &governor{admit: errors.New("the card is full")}
	r.gov = g
	r.dev.pace, r.dev.rounds, r.dev.steps = 2*time.Millisecond, 1, 200
	r.cfg.SaveEvery = time.Hour
	r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a castle")
	time.Sleep(200 * time.Millisecond)
	if got := r.job(j.ID); got.Status != queue.Queued {
		t.Fatalf("a job was taken although the governor refuses: %s", got.Status)
	}
	g.set(0, nil)
	r.until("it runs", func() bool { return r.dev.ledger.count(j.ID) > 20 })
	g.set(time.Hour, nil)
	r.until("the work is saved", func() bool { c := r.job(j.ID).Check; return c != nil && c.Step > 10 })
	n := r.dev.ledger.count(j.ID)
	time.Sleep(200 * time.Millisecond)
	if got := r.dev.ledger.count(j.ID); got > n+1 {
		t.Errorf("%d steps were done during the pause", got-n)
	}
	g.set(0, nil)
	r.published(r.wait(j.ID, queue.Done))
}

func TestTwoWorkersOfOneName(t *testing.T) {
	r := newRig(t)
	r.run(nil)
	_, err := worker.New(r.cfg, worker.Deps{Queue: r.q, Store: r.store, Maker: r.dev})
	if err == nil || !strings.Contains(err.Error(), "another worker named") {
		t.Errorf("a second worker of the same name: %v", err)
	}
}
