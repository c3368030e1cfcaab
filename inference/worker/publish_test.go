package worker_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/storagetest"
)

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
	r := newRigOf(t, func(c *queue.Config) { c.BackoffBase, c.BackoffMax = time.Hour, time.Hour })
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
	r.run(func(p string) {
		if p == "leased" { // waiting for a server is no work of the device
			time.Sleep(500 * time.Millisecond)
		}
	})
	got := r.wait(j.ID, queue.Done)
	if got.Used > 0.01 {
		t.Errorf("%v GPU-seconds were charged", got.Used)
	}
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
			for id.Load() == nil { // the test learns it a moment after the worker
				time.Sleep(time.Millisecond)
			}
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
