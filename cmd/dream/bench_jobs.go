package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage/dir"
)

type benchJobsCmd struct {
	Jobs   int   `help:"Views jobs that wait at once." default:"16"`
	Lone   int   `help:"Jobs that come one after the other." default:"5"`
	At     []int `help:"Jobs made at once." default:"1,2,4,8"`
	Rounds int   `help:"How often all of it is measured, in turn; the medians count." default:"1"`
	JSON   bool  `name:"json" help:"Print JSON."`
	engineFlags
}

// Help says what is measured.
func (c *benchJobsCmd) Help() string {
	return `The whole service on this machine: a queue and a storage in a temporary folder and one worker. Measured are
jobs a minute while some wait, and the time from request to result of a job that comes alone.`
}

// jobsFigures are those of one number of jobs made at once.
type jobsFigures struct {
	At      int     `json:"at"`
	Minute  float64 `json:"jobs_a_minute"`
	Lone    float64 `json:"lone_seconds"`    // from request to result
	Loaded  float64 `json:"loaded_seconds"`  // mean of all that waited at once, waiting included
	Service float64 `json:"service_seconds"` // mean from start to result, while others are made
}

// Run prints a row for each number of jobs made at once.
func (c *benchJobsCmd) Run(a *app) error {
	if c.Jobs < 1 || c.Lone < 1 || c.Rounds < 1 || slices.ContainsFunc(c.At, func(n int) bool { return n < 1 || n > 16 }) {
		return usagef("jobs, lone and rounds must be at least 1, at from 1 to 16")
	}
	m, closeModel, err := a.openModel(c.engineFlags)
	if err != nil {
		return err
	}
	defer closeModel()
	pipeline, err := worker.NewPipeline(m)
	if err != nil {
		return err
	}
	seen := map[int][]jobsFigures{}
	for range c.Rounds {
		for _, n := range c.At {
			pipeline.Together = n
			f, err := c.measure(a, pipeline, n)
			if err != nil {
				return fmt.Errorf("measure %d jobs at once: %w", n, err)
			}
			if pipeline.Together != n {
				return fmt.Errorf("the device has no room for %d jobs at once", n)
			}
			seen[n] = append(seen[n], f)
		}
	}
	var rows []jobsFigures
	for _, n := range c.At {
		pick := func(f func(jobsFigures) float64) float64 {
			var xs []float64
			for _, x := range seen[n] {
				xs = append(xs, f(x))
			}
			slices.Sort(xs)
			return xs[len(xs)/2]
		}
		rows = append(rows, jobsFigures{n, pick(func(f jobsFigures) float64 { return f.Minute }), pick(func(f jobsFigures) float64 { return f.Lone }),
			pick(func(f jobsFigures) float64 { return f.Loaded }), pick(func(f jobsFigures) float64 { return f.Service })})
	}
	if c.JSON {
		return printJSON(a.stdout, rows)
	}
	fmt.Fprintf(a.stdout, "model %s on %s, %d jobs\n", m.Bundle.Name, pipeline.Device(), c.Jobs)
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "AT ONCE\tJOBS A MINUTE\tRATIO\tLONE JOB\tMEAN UNDER LOAD\tITS MAKING")
	for _, r := range rows {
		fmt.Fprintf(w, "%d\t%.1f\t%.2f\t%.3f s\t%.2f s\t%.2f s\n", r.At, r.Minute, r.Minute/rows[0].Minute, r.Lone, r.Loaded, r.Service)
	}
	return w.Flush()
}

// measure runs a worker on an empty queue.
func (c *benchJobsCmd) measure(a *app, p *worker.Pipeline, n int) (f jobsFigures, err error) {
	base, err := os.MkdirTemp("", "dream-bench-*")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(base)
	q, err := sqliteq.Open(a.ctx, filepath.Join(base, "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		return f, err
	}
	defer q.Close()
	store, err := dir.Open(dir.Config{Path: filepath.Join(base, "store")})
	if err != nil {
		return f, err
	}
	defer store.Close()
	ctx, stop := context.WithCancel(a.ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Config{Name: "bench", Dir: filepath.Join(base, "work"), Version: version()},
			worker.Deps{Queue: q, Store: store, Maker: p})
	}()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	b := &jobsBench{ctx: a.ctx, q: q}
	if b.cursor, err = q.End(a.ctx); err != nil {
		return f, err
	}
	// What is compiled at first use is not part of the figures.
	if _, err := b.make(n); err != nil {
		return f, err
	}
	var lone []float64
	for range c.Lone {
		r, err := b.make(1)
		if err != nil {
			return f, err
		}
		lone = append(lone, r.loaded)
	}
	slices.Sort(lone)
	r, err := b.make(c.Jobs)
	return jobsFigures{At: n, Minute: 60 * float64(c.Jobs) / r.all, Lone: lone[len(lone)/2], Loaded: r.loaded, Service: r.service}, err
}

// jobsBench submits jobs and waits for their results.
type jobsBench struct {
	ctx    context.Context
	q      queue.Queue
	cursor string
	count  int64
}

// made is what some jobs took, in seconds: the last, the mean, the mean of the making.
type made struct{ all, loaded, service float64 }

func (b *jobsBench) make(n int) (made, error) {
	type times struct{ asked, started time.Time }
	jobs := map[string]*times{}
	begun := time.Now()
	for range n {
		b.count++
		seed := b.count
		rc, err := b.q.Submit(b.ctx, queue.Request{Prompt: "a ceramic coffee mug", Kind: queue.Views, Class: queue.Interactive, Seed: &seed,
			Requester: queue.Requester{Platform: "bench", ID: fmt.Sprint(seed)}, Origin: queue.Origin{Platform: "bench"}})
		if err != nil {
			return made{}, err
		}
		jobs[rc.ID] = &times{asked: time.Now()}
	}
	var sum made
	for len(jobs) > 0 {
		events, err := b.q.Events(b.ctx, b.cursor, 100, time.Second)
		if err != nil {
			return sum, err
		}
		for _, e := range events {
			b.cursor = e.ID
			t := jobs[e.Job]
			switch {
			case t == nil:
			case e.Kind == queue.EventStarted:
				t.started = time.Now()
			case e.Kind == queue.EventDone:
				sum.loaded += time.Since(t.asked).Seconds() / float64(n)
				sum.service += time.Since(t.started).Seconds() / float64(n)
				delete(jobs, e.Job)
			case e.Kind.Outcome():
				return sum, fmt.Errorf("a job ended as %s: %s", e.Kind, e.Message)
			}
		}
	}
	sum.all = time.Since(begun).Seconds()
	return sum, nil
}
