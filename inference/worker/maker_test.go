package worker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/storage"
)

// chain is a device whose work is a chain of hashes: the result depends on every
// step, so that a resumed job gives the same bytes only if it resumed rightly.
// It appends a line to a ledger for each step.
type chain struct {
	pace   time.Duration // of a step
	views  int           // steps of the views
	rounds int           // rounds of a mesh
	bulk   int           // rounds of a mesh of class bulk; 0: as rounds
	steps  int           // steps of a round
	ledger *ledger
	hook   func(job string, step int) error // may be nil

	together int                       // see Batch
	join     func(jobs []string) error // of a common step; may be nil
}

func newChain() *chain {
	return &chain{pace: time.Millisecond, views: 4, rounds: 3, steps: 5, ledger: &ledger{}}
}

func (c *chain) Models() []storage.ModelRef {
	return []storage.ModelRef{{Name: "mini", Digest: "digest-of-mini"}}
}
func (c *chain) Device() string { return "test chain" }

// Batch implements worker.Batcher.
func (c *chain) Batch() int { return max(c.together, 1) }

// Ahead waits once for all; their steps wait no more.
func (c *chain) Ahead(works []worker.Work) error {
	var jobs []string
	for _, w := range works {
		jobs = append(jobs, w.(*chainWork).task.Job.ID)
	}
	if c.join != nil {
		if err := c.join(jobs); err != nil {
			return err
		}
	}
	time.Sleep(c.pace)
	for _, w := range works {
		w.(*chainWork).early = true
	}
	return nil
}

// total is the number of steps of a job.
func (c *chain) total(r queue.Request) int {
	rounds := c.rounds
	if r.Class == queue.Bulk && c.bulk > 0 {
		rounds = c.bulk
	}
	if r.Kind == queue.Views {
		rounds = 0
	}
	return c.views + rounds*c.steps
}

type chainState struct {
	Step int
	Hash string
	View string // hash when the views were done
}

type chainWork struct {
	c    *chain
	task worker.Task
	st   chainState
	// early: the waiting of the next step is done.
	early bool
}

func (c *chain) Start(_ context.Context, t worker.Task) (worker.Work, error) {
	w := &chainWork{c: c, task: t}
	if t.Job.Prompt == "refuse" {
		return nil, &worker.InputError{Sentence: "This prompt cannot be drawn."}
	}
	if t.Checkpoint == nil {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", t.Job.Prompt, *t.Job.Seed))
		w.st.Hash = hex.EncodeToString(sum[:])
		return w, nil
	}
	if err := json.NewDecoder(t.Checkpoint).Decode(&w.st); err != nil {
		return nil, fmt.Errorf("%w: %w", worker.ErrCheckpoint, err)
	}
	if w.st.View != "" {
		return w, w.writeViews()
	}
	return w, nil
}

func (w *chainWork) writeViews() error {
	for i := range 4 {
		err := os.WriteFile(filepath.Join(w.task.Dir, fmt.Sprintf("view-%d.png", i)), fmt.Appendf(nil, "view %d %s", i, w.st.View), 0o600)
		if err != nil {
			return err
		}
	}
	return nil
}

var viewProducts = []worker.Product{
	{Role: storage.RoleView, Name: "view-0.png"}, {Role: storage.RoleView, Name: "view-1.png"},
	{Role: storage.RoleView, Name: "view-2.png"}, {Role: storage.RoleView, Name: "view-3.png"},
}

func (w *chainWork) Step(ctx context.Context) (worker.Update, error) {
	var u worker.Update
	wait := w.c.pace
	if w.early {
		wait, w.early = 0, false
	}
	select {
	case <-ctx.Done():
		return u, context.Cause(ctx)
	case <-time.After(wait):
	}
	if w.c.hook != nil {
		if err := w.c.hook(w.task.Job.ID, w.st.Step); err != nil {
			return u, err
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", w.st.Hash, w.st.Step))
	w.st.Hash = hex.EncodeToString(sum[:])
	w.c.ledger.add(w.task.Job.ID, w.st.Step)
	w.st.Step++
	u.Stage, u.Step, u.Total = queue.StageViews, w.st.Step, w.c.views
	if w.st.Step > w.c.views {
		u.Stage, u.Step, u.Total = queue.StageOptimise, w.st.Step-w.c.views, w.c.total(w.task.Job.Request)-w.c.views
		u.Boundary = (w.st.Step-w.c.views)%w.c.steps == 0
	}
	if w.st.Step == w.c.views {
		w.st.View = w.st.Hash
		if err := w.writeViews(); err != nil {
			return u, err
		}
		u.Views, u.Boundary = viewProducts, true
	}
	if w.st.Step == w.c.total(w.task.Job.Request) {
		u.Outcome = &worker.Outcome{Products: viewProducts, Quality: "draft", Model: w.c.Models()[0]}
		if w.task.Job.Kind == queue.Mesh {
			if err := os.WriteFile(filepath.Join(w.task.Dir, "model.glb"), []byte(w.st.Hash), 0o600); err != nil {
				return u, err
			}
			u.Outcome.Products = append(append([]worker.Product{}, viewProducts...), worker.Product{Role: storage.RoleMeshGLB, Name: "model.glb"})
		}
	}
	return u, nil
}

func (w *chainWork) Save(dst io.Writer) error { return json.NewEncoder(dst).Encode(w.st) }
func (w *chainWork) Close() error             { return nil }

// expected is the model.glb (or the views' hash) of an uninterrupted run.
func (c *chain) expected(r queue.Request) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", r.Prompt, *r.Seed))
	h := hex.EncodeToString(sum[:])
	for i := range c.total(r) {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", h, i))
		h = hex.EncodeToString(sum[:])
	}
	return h
}

// ledger records every step done, in memory and, for child processes, in a file.
type ledger struct {
	mu   sync.Mutex
	all  []entry
	file *os.File
}

type entry struct {
	job  string
	step int
}

func (l *ledger) add(job string, step int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, entry{job, step})
	if l.file != nil {
		fmt.Fprintf(l.file, "%s %d\n", job, step)
	}
}

// count is the number of steps done for a job.
func (l *ledger) count(job string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.all {
		if e.job == job {
			n++
		}
	}
	return n
}

func (l *ledger) entries() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]entry{}, l.all...)
}

// flaky is a store whose writes, or all operations, fail while it is told to.
type flaky struct {
	storage.Store
	mu   sync.Mutex
	err  error // of every operation; nil: none
	puts int
}

func (f *flaky) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flaky) broken(op, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return nil
	}
	return &storage.Error{Op: op, Key: key, Kind: f.err, Err: errors.New("told to fail")}
}

func (f *flaky) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	f.mu.Lock()
	f.puts++
	f.mu.Unlock()
	if err := f.broken("put", key); err != nil {
		return err
	}
	return f.Store.Put(ctx, key, body, size)
}

func (f *flaky) Create(ctx context.Context, key string, data []byte) error {
	if err := f.broken("create", key); err != nil {
		return err
	}
	return f.Store.Create(ctx, key, data)
}

func (f *flaky) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := f.broken("get", key); err != nil {
		return nil, err
	}
	return f.Store.Get(ctx, key, off, n)
}
