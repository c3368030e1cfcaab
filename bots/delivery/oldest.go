package delivery

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"dreamcad/queue"
)

// oldestLook bounds how many waiting outcomes of a platform are looked at: they
// are listed by job, the earliest first.
const oldestLook = 20

// OldestDue tells, by platform, when the oldest outcome happened that the platform
// has not yet taken. Platforms that wait for nothing are not there.
func OldestDue(ctx context.Context, s queue.State) (map[string]time.Time, error) {
	keys, err := s.Keys(ctx, duePrefix, "")
	if err != nil {
		return nil, err
	}
	out, looked := map[string]time.Time{}, map[string]int{}
	for _, k := range keys {
		platform, _, _ := strings.Cut(strings.TrimPrefix(k, duePrefix), "/")
		if looked[platform]++; looked[platform] > oldestLook {
			continue
		}
		r, err := s.Get(ctx, k)
		if queue.CodeOf(err) == queue.CodeNotFound {
			continue // sent meanwhile
		}
		if err != nil {
			return nil, err
		}
		var due dueRecord
		if json.Unmarshal(r.Value, &due) != nil || due.Event.At.IsZero() {
			continue
		}
		if at, ok := out[platform]; !ok || due.Event.At.Before(at) {
			out[platform] = due.Event.At
		}
	}
	return out, nil
}

// Abandon drops the outcomes that wait for a platform which is served no more, and
// tells how many there were.
func Abandon(ctx context.Context, s queue.State, platform string) (int, error) {
	n, prefix := 0, duePrefix+platform+"/"
	for {
		keys, err := s.Keys(ctx, prefix, "")
		if err != nil || len(keys) == 0 {
			return n, err
		}
		for _, k := range keys {
			if err := s.Delete(ctx, k, queue.AnyVersion); err != nil {
				return n, err
			}
			n++
		}
	}
}
