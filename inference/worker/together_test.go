package worker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/storage"
)

// groups records which jobs stepped together.
type groups struct {
	mu  sync.Mutex
	all [][]string
}

func (g *groups) add(jobs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, slices.Clone(jobs))
}

// largest is the size of the largest group, or of the largest that holds a job.
func (g *groups) largest(job string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, jobs := range g.all {
		if job == "" || slices.Contains(jobs, job) {
			n = max(n, len(jobs))
		}
	}
	return n
}

// together makes the rig's device one that steps n jobs at once.
func (r *rig) together(n int) *groups {
	g := &groups{}
	r.dev.together = n
	r.dev.join = func(jobs []string) error { g.add(jobs); return nil }
	return g
}

// Jobs that step together have each their own lease, events and result; cancelling
// or failing one disturbs no other.
func TestViewsTogether(t *testing.T) {
	r := newRig(t)
	g := r.together(3)
	r.dev.pace, r.dev.views = 20*time.Millisecond, 30
	boom, told := errors.New("boom"), make(chan struct{})
	r.dev.hook = func(job string, step int) error {
		if step != 5 {
			return nil
		}
		switch r.job(job).Prompt {
		case "error":
			return boom
		case "cancel": // is not done before it was cancelled
			<-told
		}
		return nil
	}
	var jobs []queue.Job
	for i := range 5 {
		jobs = append(jobs, r.submit(queue.Views, queue.Interactive, fmt.Sprintf("mug %d", i)))
	}
	bad, gone := r.submit(queue.Views, queue.Interactive, "error"), r.submit(queue.Views, queue.Interactive, "cancel")
	r.run(nil)
	r.until("it runs", func() bool { return r.dev.ledger.count(gone.ID) > 3 })
	_, err := r.q.Cancel(t.Context(), gone.ID)
	close(told)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		j = r.wait(j.ID, queue.Done)
		m := r.published(j)
		if j.Failures != 0 || j.Crashes != 0 {
			t.Errorf("%q: %d failures, %d crashes", j.Prompt, j.Failures, j.Crashes)
		}
		if m.Timings["views"] <= 0 {
			t.Errorf("%q: timings %v", j.Prompt, m.Timings)
		}
		// A job that came when all places were taken was given back, which is another lease and no failure.
		r.wantEvents(j.ID, slices.Concat([]queue.EventKind{queue.EventAccepted},
			slices.Repeat([]queue.EventKind{queue.EventStarted, queue.EventWaiting}, j.Attempt-1), []queue.EventKind{queue.EventStarted, queue.EventDone})...)
		r.emptied(j.ID)
	}
	r.wait(gone.ID, queue.Cancelled)
	if f := r.wait(bad.ID, queue.Failed); f.Failures != 3 || f.Crashes != 0 {
		t.Errorf("the failing job has %d failures, %d crashes", f.Failures, f.Crashes)
	}
	if n := g.largest(""); n != 3 {
		t.Errorf("the largest group was %d, want 3", n)
	}
	for _, e := range jobs {
		if n := r.dev.ledger.count(e.ID); n != r.dev.views {
			t.Errorf("%q took %d steps, want %d", e.Prompt, n, r.dev.views)
		}
	}
}

// A lone job waits for nobody, and one that comes joins it at once.
func TestALoneJobStepsAlone(t *testing.T) {
	r := newRig(t)
	g := r.together(4)
	r.dev.views = 250
	there := make(chan struct{})
	r.dev.hook = func(_ string, step int) error {
		switch {
		case step == 50: // of the first: the second comes while it runs, however long that takes
			<-there
		case step > 50 && g.largest("") == 0: // nor is the first done before the second is ready
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	}
	r.run(nil)
	first := r.submit(queue.Views, queue.Interactive, "first")
	r.until("it runs", func() bool { return r.dev.ledger.count(first.ID) > 10 })
	if n := g.largest(""); n != 0 {
		t.Errorf("a lone job stepped in a group of %d", n)
	}
	second := r.submit(queue.Views, queue.Interactive, "second")
	r.until("the second is leased", func() bool { return r.job(second.ID).Status == queue.Leased })
	close(there)
	r.published(r.wait(second.ID, queue.Done))
	r.published(r.wait(first.ID, queue.Done))
	if n := g.largest(second.ID); n != 2 {
		t.Errorf("the second job stepped in groups of %d", n)
	}
}

// A common step that fails leaves its jobs to step alone.
func TestTogetherFallsBack(t *testing.T) {
	r := newRig(t)
	r.dev.together = 2
	r.dev.join = func([]string) error { return errors.New("no room for two") }
	a, b := r.submit(queue.Views, queue.Interactive, "a mug"), r.submit(queue.Views, queue.Interactive, "a chair")
	r.run(nil)
	for _, j := range []queue.Job{a, b} {
		j = r.wait(j.ID, queue.Done)
		r.published(j)
		if j.Failures != 0 || j.Crashes != 0 {
			t.Errorf("%d failures, %d crashes", j.Failures, j.Crashes)
		}
	}
}

// A stream of pictures does not keep a mesh waiting for ever.
func TestMeshGetsItsTurn(t *testing.T) {
	r := newRig(t)
	r.together(2)
	r.dev.pace, r.dev.views = 2*time.Millisecond, 10
	var jobs []queue.Job
	submit := func(n int) {
		for range n {
			jobs = append(jobs, r.submit(queue.Views, queue.Bulk, fmt.Sprintf("mug %d", len(jobs))))
		}
	}
	submit(60)
	asked, tenth := make(chan struct{}), jobs[10].ID
	r.dev.hook = func(job string, _ int) error {
		if job == tenth { // most pictures are still to come when the mesh is asked for
			<-asked
		}
		return nil
	}
	r.run(nil)
	r.until("pictures are made", func() bool { return r.job(jobs[0].ID).Status == queue.Done })
	mesh := r.submit(queue.Mesh, queue.Interactive, "a castle")
	close(asked)
	r.published(r.wait(mesh.ID, queue.Done))
	for _, j := range jobs {
		r.wait(j.ID, queue.Done)
	}
	steps := r.dev.ledger.entries()
	if steps[len(steps)-1].job == mesh.ID {
		t.Error("the mesh came after all pictures")
	}
}

// A worker that is killed with several jobs in its hands loses none, and each is
// published once.
func TestKilledTogether(t *testing.T) {
	for _, nth := range []int{3, 7} {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var jobs []queue.Job
			for i := range 3 {
				jobs = append(jobs, b.submit(queue.Views, queue.Interactive, fmt.Sprintf("mug %d", i)))
			}
			b.gone(b.spawn("gpu0", "WORKER_BATCH=3", "WORKER_DIE=step", fmt.Sprintf("WORKER_NTH=%d", nth)))
			if !exists(filepath.Join(b.base, "reached")) {
				t.Fatal("the worker ended elsewhere")
			}
			b.spawn("gpu0", "WORKER_BATCH=3")
			for _, j := range jobs {
				j = b.wait(j.ID, queue.Done)
				b.published(j)
				if j.Crashes > 1 || j.Failures > 0 {
					t.Errorf("%q: %d crashes, %d failures", j.Prompt, j.Crashes, j.Failures)
				}
			}
		})
	}
}

// A job that kills the process takes those beside it down once: afterwards every
// suspect steps alone.
func TestPoisonTogether(t *testing.T) {
	b := newBench(t)
	poison := b.submit(queue.Views, queue.Interactive, "poison")
	var good []queue.Job
	for i := range 3 {
		good = append(good, b.submit(queue.Views, queue.Interactive, fmt.Sprintf("mug %d", i)))
	}
	b.untilQuarantined(poison.ID, "WORKER_BATCH=4")
	b.spawn("gpu2", "WORKER_POISON=1", "WORKER_BATCH=4")
	for _, j := range good {
		if j = b.wait(j.ID, queue.Done); j.Crashes > 1 {
			t.Errorf("%q was blamed for %d crashes", j.Prompt, j.Crashes)
		}
	}
}

// A device that is gone ends the worker: the job in the step counts a crash, others
// are handed back, and a new worker makes them all.
func TestLostDevice(t *testing.T) {
	for name, fail := range map[string]func(r *rig, lost error){
		"in a step": func(r *rig, lost error) {
			r.dev.hook = func(_ string, step int) error {
				if step == 6 {
					return lost
				}
				return nil
			}
		},
		"in a common step": func(r *rig, lost error) {
			var mu sync.Mutex
			gone := false
			check := func() error {
				mu.Lock()
				defer mu.Unlock()
				if gone {
					return lost
				}
				return nil
			}
			r.dev.join = func(jobs []string) error {
				mu.Lock()
				gone = gone || len(jobs) == 3
				mu.Unlock()
				return check()
			}
			r.dev.hook = func(string, int) error { return check() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.dev.together, r.dev.pace, r.dev.views = 3, 50*time.Millisecond, 150 // long enough for three to meet
			fail(r, fmt.Errorf("%w: illegal address", worker.ErrDevice))
			var jobs []queue.Job
			for i := range 3 {
				jobs = append(jobs, r.submit(queue.Views, queue.Interactive, fmt.Sprintf("mug %d", i)))
			}
			first := r.run(nil)
			select {
			case err := <-first.err:
				if !errors.Is(err, worker.ErrDevice) {
					t.Fatalf("Run ended with %v", err)
				}
				close(first.err)
			case <-time.After(limit):
				t.Fatal("the worker goes on without a device")
			}
			crashes := 0
			for _, j := range jobs {
				got := r.job(j.ID)
				if got.Status != queue.Queued || got.Failures != 0 {
					t.Errorf("%q is %s with %d failures", got.Prompt, got.Status, got.Failures)
				}
				crashes += got.Crashes
			}
			if want := map[string]int{"in a step": 1, "in a common step": 3}[name]; crashes != want {
				t.Errorf("%d crashes were counted, want %d", crashes, want)
			}
			r.dev.hook, r.dev.join, r.dev.pace = nil, nil, time.Millisecond
			r.run(nil)
			for _, j := range jobs {
				r.published(r.wait(j.ID, queue.Done))
			}
		})
	}
}

// The real networks: jobs that step together give the bytes that each gives alone.
func TestPicturesTogetherEqualThoseAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("computes for minutes under the race detector; the run without -short does it")
	}
	sums := map[string]map[string]string{}
	for _, n := range []int{1, 3} {
		r := newRig(t)
		p := pipeline(t)
		p.Together = n
		var jobs []queue.Job
		for _, prompt := range []string{"a ceramic coffee mug", "a red chair", "a wooden table"} {
			jobs = append(jobs, r.submit(queue.Views, queue.Interactive, prompt))
		}
		counted := &counting{Pipeline: p}
		r.runWith(counted, nil)
		for _, j := range jobs {
			j = r.wait(j.ID, queue.Done)
			m, err := storage.ReadManifest(context.Background(), r.store, j.ID)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, f := range m.Files {
				got[f.Name] = f.SHA256
			}
			if want, ok := sums[j.Prompt]; !ok {
				sums[j.Prompt] = got
			} else if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%q: files %v, alone %v", j.Prompt, got, want)
			}
		}
		if counted.largest != map[int]int{1: 0, 3: 3}[n] {
			t.Errorf("with room for %d the largest group was %d", n, counted.largest)
		}
	}
}

// counting notes the size of the largest group.
type counting struct {
	*worker.Pipeline
	largest int
}

func (c *counting) Ahead(works []worker.Work) error {
	c.largest = max(c.largest, len(works))
	return c.Pipeline.Ahead(works)
}

// A mesh that is held while an input kills the process is blamed once: afterwards
// it is handed back before the suspect steps.
func TestPoisonBesideAMesh(t *testing.T) {
	b := newBench(t)
	mesh := b.submit(queue.Mesh, queue.Interactive, "a mug")
	poison := b.submit(queue.Views, queue.Interactive, "poison")
	b.untilQuarantined(poison.ID, "WORKER_ROUNDS=100") // 5 s
	b.spawn("gpu2", "WORKER_POISON=1", "WORKER_ROUNDS=100")
	if j := b.wait(mesh.ID, queue.Done); j.Crashes > 1 {
		t.Errorf("the mesh was blamed for %d crashes", j.Crashes)
	}
}
