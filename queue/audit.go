package queue

import (
	"context"
	"slices"
	"time"
)

// Violations audits a queue that may be at work meanwhile: it looks again, up
// to eight times, and returns what all looks agree on. What the work itself
// moved between two reads of one look is gone at the next.
func Violations(ctx context.Context, q Auditor) ([]string, error) {
	broken, err := q.Audit(ctx)
	for look := 1; look < 8 && err == nil && len(broken) > 0; look++ {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		var now []string
		now, err = q.Audit(ctx)
		broken = slices.DeleteFunc(broken, func(v string) bool { return !slices.Contains(now, v) })
	}
	if err != nil {
		return nil, err
	}
	return broken, nil
}
