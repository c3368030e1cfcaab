package redisq

import (
	"context"
	"fmt"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

func (q *Queue) toggle(ctx context.Context, on string, s queue.Scope, name, why string) error {
	if err := refuse.CheckSwitch(s, name); err != nil {
		return err
	}
	v, err := q.list(ctx, "switch", q.s.sw, on, string(s), name, why)
	switch {
	case err != nil:
		return err
	case v[0] == "none":
		return queue.NotFound("batch", name)
	case v[0] == "state":
		return &queue.Error{Code: queue.CodeConflict, Doing: "pause batch", Sentence: fmt.Sprintf("The batch is already %s.", v[1])}
	}
	return nil
}

// Pause implements [queue.Operator].
func (q *Queue) Pause(ctx context.Context, s queue.Scope, name, why string) error {
	return q.toggle(ctx, "on", s, name, why)
}

// Resume implements [queue.Operator].
func (q *Queue) Resume(ctx context.Context, s queue.Scope, name string) error {
	return q.toggle(ctx, "off", s, name, "")
}

// Requeue implements [queue.Operator].
func (q *Queue) Requeue(ctx context.Context, id string) error {
	v, err := q.list(ctx, "requeue", q.s.requeue, id)
	switch {
	case err != nil:
		return err
	case v[0] == "none":
		return queue.NotFound("job", id)
	case v[0] == "state":
		return refuse.NotOver(queue.Status(v[1]))
	}
	return nil
}

// Release implements [queue.Operator].
func (q *Queue) Release(ctx context.Context, id string) error {
	n, err := q.run(ctx, q.s.release, id).Int()
	if err != nil {
		return wrap("release", err)
	}
	if n == 0 {
		return queue.NotFound("job", id)
	}
	return nil
}

// Forget implements [queue.Operator].
func (q *Queue) Forget(ctx context.Context, user string) ([]string, error) {
	ids, err := q.c.LRange(ctx, q.key("x", user), 0, 999).Result()
	if err != nil {
		return nil, wrap("forget user", err)
	}
	args := []any{user}
	for _, id := range ids {
		args = append(args, id)
	}
	return q.list(ctx, "forget user", q.s.forget, args...)
}

// SetWeight implements [queue.Operator].
func (q *Queue) SetWeight(ctx context.Context, user string, w float64) error {
	if !(w > 0 && w <= 1000) {
		return queue.NewError(queue.CodeInvalid, "A weight must be above 0 and at most 1000.")
	}
	return wrap("set weight", q.run(ctx, q.s.weight, user, w).Err())
}
