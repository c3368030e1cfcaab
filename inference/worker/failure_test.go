package worker_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
)

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

// A damaged checkpoint is passed over for the one before.
func TestDamagedCheckpoint(t *testing.T) {
	r := newRig(t)
	r.dev.rounds = 30
	asked := r.holdAt(60)
	first := r.run(nil)
	j := r.submit(queue.Mesh, queue.Interactive, "a castle")
	r.until("two checkpoints", func() bool { return r.dev.ledger.count(j.ID) > 25 })
	first.stop()
	close(asked)
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
