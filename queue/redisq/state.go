package redisq

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

func sortAlerts(as []queue.Alert) {
	slices.SortFunc(as, func(a, b queue.Alert) int { return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Key, b.Key)) })
}

func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(d.Milliseconds(), 1)
}

// Get implements [queue.State].
func (q *Queue) Get(ctx context.Context, key string) (queue.Record, error) {
	v, err := q.c.HMGet(ctx, q.key("s", key), "v", "ver").Result()
	if err != nil {
		return queue.Record{}, wrap("get "+key, err)
	}
	if v[1] == nil {
		return queue.Record{}, queue.NotFound("record", key)
	}
	return queue.Record{Value: []byte(text(v[0])), Version: text(v[1])}, nil
}

func conflict(key string) error {
	return &queue.Error{Code: queue.CodeConflict, Doing: fmt.Sprintf("change record %q: another version is there", key)}
}

// Put implements [queue.State].
func (q *Queue) Put(ctx context.Context, key string, value []byte, version string, life time.Duration) (queue.Record, error) {
	if err := refuse.CheckRecord(key, value); err != nil {
		return queue.Record{}, err
	}
	if value == nil {
		value = []byte{}
	}
	r := queue.Record{Value: value, Version: rand.Text()}
	n, err := q.run(ctx, q.s.put, key, value, version, r.Version, millis(life)).Int()
	if err != nil {
		return queue.Record{}, wrap("put "+key, err)
	}
	if n == 0 {
		return queue.Record{}, conflict(key)
	}
	return r, nil
}

// Delete implements [queue.State].
func (q *Queue) Delete(ctx context.Context, key, version string) error {
	n, err := q.run(ctx, q.s.del, key, version).Int()
	if err != nil {
		return wrap("delete "+key, err)
	}
	if n == 0 {
		return conflict(key)
	}
	return nil
}

// Keys implements [queue.State].
func (q *Queue) Keys(ctx context.Context, prefix, after string) ([]string, error) {
	lo := "[" + prefix
	if after >= prefix && after != "" {
		lo = "(" + after
	}
	return q.list(ctx, "list records", q.s.keys, lo, "("+prefix+"\xff")
}

// Add implements [queue.State].
func (q *Queue) Add(ctx context.Context, key string, delta, limit int64, life time.Duration) (int64, error) {
	v, err := q.run(ctx, q.s.add, key, delta, limit, millis(life), rand.Text()).Slice()
	if err != nil {
		return 0, wrap("add to "+key, err)
	}
	n, _ := v[0].(int64)
	if len(v) > 1 {
		return n, &queue.Error{Code: queue.CodeQuota, Doing: fmt.Sprintf("add %d to %q", delta, key)}
	}
	return n, nil
}

// Used implements [queue.Quotas].
func (q *Queue) Used(ctx context.Context, key string) (int64, error) {
	n, err := q.c.Get(ctx, q.key("n", "quota/"+key)).Int64()
	if errors.Is(err, redis.Nil) {
		return 0, nil
	}
	return n, wrap("read quota", err)
}

// Refund implements [queue.Quotas].
func (q *Queue) Refund(ctx context.Context, job string) error {
	n, err := q.run(ctx, q.s.refund, job).Int()
	if err != nil {
		return wrap("refund", err)
	}
	if n == 0 {
		return queue.NotFound("job", job)
	}
	return nil
}

// Lock implements [queue.Locks].
func (q *Queue) Lock(ctx context.Context, name string, life time.Duration) (queue.Lock, error) {
	l := queue.Lock{Name: name, Token: queue.NewFence()}
	n, err := q.run(ctx, q.s.lock, "lock", name, l.Token, millis(life)).Int64()
	if err != nil {
		return queue.Lock{}, wrap("lock "+name, err)
	}
	if n < 0 {
		return queue.Lock{}, &queue.Error{Code: queue.CodeConflict, Doing: fmt.Sprintf("lock %q: another holds it", name)}
	}
	l.Number = n
	return l, nil
}

// Renew implements [queue.Locks].
func (q *Queue) Renew(ctx context.Context, l queue.Lock, life time.Duration) error {
	n, err := q.run(ctx, q.s.lock, "renew", l.Name, l.Token, millis(life)).Int64()
	if err == nil && n < 0 {
		return &queue.Error{Code: queue.CodeLost, Doing: fmt.Sprintf("renew lock %q", l.Name)}
	}
	return wrap("renew lock "+l.Name, err)
}

// Unlock implements [queue.Locks].
func (q *Queue) Unlock(ctx context.Context, l queue.Lock) error {
	return wrap("unlock "+l.Name, q.run(ctx, q.s.lock, "unlock", l.Name, l.Token, 0).Err())
}
