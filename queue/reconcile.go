package queue

import (
	"context"
	"errors"
)

// Known is what Reconcile needs of a queue.
type Known interface {
	Submitter
	Job(ctx context.Context, id string) (Job, error)
}

// Reconcile submits again those acknowledged requests whose job the queue no
// longer knows, as after a crash of a Redis that does not sync each write. The
// requests carry the ID and Key of their receipt, so the job keeps its id and
// a request that is known after all is not doubled. It returns the ids that it
// restored; on an error the rest is tried at the next call.
//
// Whoever acknowledges requests keeps them until their outcome was told, and
// calls Reconcile after each reconnect.
func Reconcile(ctx context.Context, q Known, accepted []Request) ([]string, error) {
	var restored []string
	var errs []error
	for _, r := range accepted {
		if _, err := q.Job(ctx, r.ID); err == nil || !errors.Is(err, ErrNotFound) {
			if err != nil {
				errs = append(errs, err)
			}
			continue
		}
		rc, err := q.Submit(ctx, r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if rc.New {
			restored = append(restored, rc.ID)
		}
	}
	return restored, errors.Join(errs...)
}
