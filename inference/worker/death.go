package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dreamcad/queue"
)

// Death is how a worker's process ended that could not tell it itself.
type Death struct {
	PID  int
	Mark string // its Config.Mark
	Exit string // "SIGKILL", "exit status 2"
	Log  string // the end of what it logged, free of secrets
}

// Registry is what the report of a death needs of the queue.
type Registry interface {
	List(ctx context.Context, f queue.Filter) ([]queue.Job, error)
	Fail(ctx context.Context, ref queue.Ref, f queue.Failure) (queue.Status, error)
}

// ReportDeath tells the queue of every lease that the process held, so that its jobs
// go on at once, with what is known of its end. A job that was alone took the process
// with it; of several the guilty one is not known: they count as crashed. What is no
// longer the dead worker's (its lease ran out) is left alone. While the queue does not
// answer it tries again until ctx ends. It returns what became of the jobs.
func ReportDeath(ctx context.Context, q Registry, d Death) (map[string]queue.Status, error) {
	var held []queue.Job
	err := insist(ctx, func() (err error) {
		held, err = leasesOf(ctx, q, fmt.Sprintf("/%d/%s", d.PID, d.Mark))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for the jobs of a worker that died: %w", err)
	}
	kind, detail := queue.FailDied, "the worker process ended with "+d.Exit
	if len(held) > 1 {
		kind, detail = queue.FailCrash, fmt.Sprintf("%s and held %d jobs", detail, len(held))
	}
	out := map[string]queue.Status{}
	var errs []error
	for _, j := range held {
		err := insist(ctx, func() error {
			st, err := q.Fail(ctx, queue.Ref{Job: j.ID, Lease: j.LeaseID}, queue.Failure{Kind: kind, Worker: j.Worker, Exit: d.Exit, Log: d.Log, Detail: detail})
			if err == nil {
				out[j.ID] = st
			}
			return err
		})
		if code := queue.CodeOf(err); err != nil && code != queue.CodeLost && code != queue.CodeCancelled {
			errs = append(errs, fmt.Errorf("report the death of the worker of job %s: %w", j.ID, err))
		}
	}
	return out, errors.Join(errs...)
}

// leasesOf lists the leased jobs whose worker has that in its name.
func leasesOf(ctx context.Context, q Registry, process string) ([]queue.Job, error) {
	var out []queue.Job
	const page = 1000
	for at := 0; ; at += page {
		js, err := q.List(ctx, queue.Filter{Status: []queue.Status{queue.Leased}, Limit: page, Offset: at})
		if err != nil {
			return nil, err
		}
		for _, j := range js {
			// Pages shift while others lease.
			if strings.Contains(j.Worker, process) && !slices.ContainsFunc(out, func(o queue.Job) bool { return o.ID == j.ID }) {
				out = append(out, j)
			}
		}
		if len(js) < page {
			return out, nil
		}
	}
}

// insist calls f until the queue answers or ctx ends.
func insist(ctx context.Context, f func() error) error {
	for {
		err := f()
		if queue.CodeOf(err) != queue.CodeUnavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
