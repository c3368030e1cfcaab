package alert

import (
	"context"
	"fmt"
	"time"

	"dreamcad/queue"
)

// stream is the queue's alert stream.
type stream struct {
	q    Queue
	edit time.Duration // the text of a firing alert changes no oftener, for all processes together
}

// deliver appends to the stream what no other process has said already.
func (s *stream) deliver(ctx context.Context, a *queue.Alert) error {
	return alone(ctx, s.q, "raise", a, func() error {
		firing, err := s.q.FiringAlerts(ctx)
		if err != nil {
			return err
		}
		var known *queue.Alert
		for i := range firing {
			if idOf(&firing[i]) == idOf(a) {
				known = &firing[i]
			}
		}
		switch {
		case a.State == queue.Resolved && known == nil:
			return nil
		case a.State == queue.Firing && known == nil:
			r, err := s.q.Get(ctx, lockName("ended", a))
			if err != nil && queue.CodeOf(err) != queue.CodeNotFound {
				return err
			}
			if ended, _ := time.Parse(time.RFC3339Nano, string(r.Value)); over(a, ended) {
				return nil
			}
		case a.State == queue.Firing:
			if known.Text == a.Text || known.Source != a.Source {
				return nil // who told it first keeps it up to date
			}
			a.Since = known.Since
		}
		if a.State == queue.Firing {
			_, err := s.q.Lock(ctx, lockName("edit", a), s.edit) // never given back: it ends by itself
			if queue.CodeOf(err) == queue.CodeConflict && known != nil {
				return nil
			}
			if err != nil && queue.CodeOf(err) != queue.CodeConflict {
				return err
			}
		}
		if a.State == queue.Resolved {
			if _, err := s.q.Put(ctx, lockName("ended", a), []byte(a.At.UTC().Format(time.RFC3339Nano)), queue.AnyVersion, endedLife); err != nil {
				return err
			}
		}
		return s.q.Raise(ctx, *a)
	})
}

// endedLife is how long an end is remembered for those who come late.
const endedLife = time.Hour

// late is the age from which the begin of an episode may be old news: it waited
// for the queue. Clocks of two machines differ by less.
const late = 30 * time.Second

// over tells whether the episode that the alert begins was told by another
// process, begin and end, while this one waited.
func over(a *queue.Alert, ended time.Time) bool {
	return a.State == queue.Firing && time.Since(a.Since) > late && a.Since.Before(ended)
}

func lockName(what string, a *queue.Alert) string {
	return fmt.Sprintf("alert/%s/%s/%s", what, a.Code, a.Key)
}

// alone runs f while no other process does the same about the same alert.
func alone(ctx context.Context, q queue.Locks, what string, a *queue.Alert, f func() error) error {
	for {
		lock, err := q.Lock(ctx, lockName(what, a), 2*deliverLimit)
		if err == nil {
			defer func() { _ = q.Unlock(context.WithoutCancel(ctx), lock) }()
			return f()
		}
		if queue.CodeOf(err) != queue.CodeConflict {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
