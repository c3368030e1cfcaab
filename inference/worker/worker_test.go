package worker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/storagetest"
)

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
	looked := make(chan struct{})
	r.dev.hook = func(_ string, step int) error {
		if step == r.dev.views+2 { // the mesh is not done before the test has looked
			<-looked
		}
		return nil
	}
	r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a mug")
	r.until("views are told", func() bool { return len(r.job(j.ID).Views) == 4 })
	got := r.job(j.ID)
	key, err := storage.FindUnpublished(t.Context(), r.store, j.ID, "view-0.png")
	if err != nil || key != storage.FileKey(j.ID, got.LeaseID, "view-0.png") {
		t.Errorf("the view lies under %q, %v", key, err)
	}
	close(looked)
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
	asked := r.holdAt(20) // of the mesh
	r.run(nil)
	mesh := r.submit(queue.Mesh, queue.Interactive, "a castle")
	r.until("the mesh runs", func() bool { return r.dev.ledger.count(mesh.ID) > 10 })
	var jobs []queue.Job
	for i := range 3 {
		jobs = append(jobs, r.submit(queue.Views, queue.Interactive, fmt.Sprintf("mug %d", i)))
	}
	close(asked)
	for _, j := range jobs {
		r.published(r.wait(j.ID, queue.Done))
	}
	mesh = r.wait(mesh.ID, queue.Done)
	r.published(mesh)
	// The views' steps stand together: no step of the mesh among them; all come before its end.
	run := 0
	entries := r.dev.ledger.entries()
	for _, e := range entries {
		switch e.job {
		case jobs[0].ID:
			run++
		case mesh.ID:
			if run != 0 && run != r.dev.views {
				t.Errorf("a mesh step came after %d of %d views steps", run, r.dev.views)
			}
		}
	}
	if last := entries[len(entries)-1]; last.job != mesh.ID {
		t.Errorf("views ran after the mesh was done")
	}
	if n := r.dev.ledger.count(mesh.ID); n != r.dev.total(mesh.Request) {
		t.Errorf("the mesh took %d steps, %d are needed: it was not simply interrupted", n, r.dev.total(mesh.Request))
	}
}

// Row 20: draining mid-mesh loses no work and counts no attempt.
func TestDrainAndGoOnElsewhere(t *testing.T) {
	r := newRig(t)
	r.dev.rounds, r.dev.steps = 20, 10
	asked := r.holdAt(60)
	first := r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a castle")
	r.until("the mesh runs", func() bool { return r.dev.ledger.count(j.ID) > 30 })
	first.stop()
	close(asked)
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

type governor struct {
	mu    sync.Mutex
	pause time.Duration
	admit error
}

func (g *governor) Pause() time.Duration { g.mu.Lock(); defer g.mu.Unlock(); return g.pause }

func (g *governor) Admit() error { g.mu.Lock(); defer g.mu.Unlock(); return g.admit }

func (g *governor) set(p time.Duration, e error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause, g.admit = p, e
}

func TestGovernor(t *testing.T) {
	r := newRig(t)
	g := &governor{admit: errors.New("the card is full")}
	r.gov = g
	r.dev.pace, r.dev.rounds, r.dev.steps = 6*time.Millisecond, 1, 200
	r.cfg.SaveEvery = time.Hour
	told := r.holdAt(60)
	r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a castle")
	time.Sleep(200 * time.Millisecond)
	if got := r.job(j.ID); got.Status != queue.Queued {
		t.Fatalf("a job was taken although the governor refuses: %s", got.Status)
	}
	g.set(0, nil)
	r.until("it runs", func() bool { return r.dev.ledger.count(j.ID) > 20 })
	g.set(time.Hour, nil)
	close(told)
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
