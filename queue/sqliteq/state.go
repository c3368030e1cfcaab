package sqliteq

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

// Get implements [queue.State].
func (q *Queue) Get(ctx context.Context, key string) (queue.Record, error) {
	var r queue.Record
	err := q.read(ctx, "get "+key, func(t *tx) error {
		if !t.get("SELECT value,version FROM records WHERE key=? AND (until=0 OR until>?)", key, t.now)(&r.Value, &r.Version) && t.err == nil {
			return queue.NotFound("record", key)
		}
		return nil
	})
	return r, err
}

// matches says whether the live record's version is the expected one.
func (t *tx) matches(key, version string) error {
	var have string
	found := t.get("SELECT version FROM records WHERE key=? AND (until=0 OR until>?)", key, t.now)(&have)
	if t.err != nil || version == queue.AnyVersion || !found && version == "" || found && have == version {
		return t.err
	}
	return &queue.Error{Code: queue.CodeConflict, Doing: fmt.Sprintf("change record %q: another version is there", key)}
}

// Put implements [queue.State].
func (q *Queue) Put(ctx context.Context, key string, value []byte, version string, life time.Duration) (queue.Record, error) {
	r := queue.Record{Value: value, Version: rand.Text()}
	if err := refuse.CheckRecord(key, value); err != nil {
		return queue.Record{}, err
	}
	if value == nil {
		value = []byte{}
	}
	err := q.write(ctx, "put "+key, func(t *tx) error {
		if err := t.matches(key, version); err != nil {
			return err
		}
		t.exec("INSERT OR REPLACE INTO records(key,value,version,until) VALUES(?,?,?,?)", key, value, r.Version, t.until(life))
		return nil
	})
	if err != nil {
		return queue.Record{}, err
	}
	return r, nil
}

// Delete implements [queue.State].
func (q *Queue) Delete(ctx context.Context, key, version string) error {
	return q.write(ctx, "delete "+key, func(t *tx) error {
		if !t.get("SELECT 1 FROM records WHERE key=? AND (until=0 OR until>?)", key, t.now)(new(int)) {
			return t.err
		}
		if err := t.matches(key, version); err != nil {
			return err
		}
		t.exec("DELETE FROM records WHERE key=?", key)
		return nil
	})
}

// Keys implements [queue.State].
func (q *Queue) Keys(ctx context.Context, prefix, after string) ([]string, error) {
	var out []string
	err := q.read(ctx, "list records", func(t *tx) error {
		out = each(t, one[string], "SELECT key FROM records WHERE key>=? AND key<? AND key>? AND (until=0 OR until>?) ORDER BY key LIMIT 1000",
			prefix, prefix+"\U0010FFFF", after, t.now)
		return nil
	})
	return out, err
}

// Add implements [queue.State].
func (q *Queue) Add(ctx context.Context, key string, delta, limit int64, life time.Duration) (int64, error) {
	var n int64
	err := q.write(ctx, "add to "+key, func(t *tx) (err error) {
		n, err = t.sum("state/"+key, delta, limit, life)
		return err
	})
	return n, err
}

// Used implements [queue.Quotas].
func (q *Queue) Used(ctx context.Context, key string) (int64, error) {
	var n int64
	err := q.read(ctx, "read quota", func(t *tx) error {
		t.get("SELECT n FROM sums WHERE key=? AND (until=0 OR until>?)", "quota/"+key, t.now)(&n)
		return nil
	})
	return n, err
}

// Refund implements [queue.Quotas].
func (q *Queue) Refund(ctx context.Context, job string) error {
	return q.write(ctx, "refund", func(t *tx) error {
		r := t.job(job)
		if r == nil {
			t.fail(queue.NotFound("job", job))
			return t.err
		}
		t.refund(r, true)
		t.save(r)
		return nil
	})
}

// Lock implements [queue.Locks].
func (q *Queue) Lock(ctx context.Context, name string, life time.Duration) (queue.Lock, error) {
	l := queue.Lock{Name: name, Token: queue.NewFence()}
	err := q.write(ctx, "lock "+name, func(t *tx) error {
		var until int64
		t.get("SELECT number,until FROM locks WHERE name=?", name)(&l.Number, &until)
		if until > t.now {
			return &queue.Error{Code: queue.CodeConflict, Doing: fmt.Sprintf("lock %q: another holds it", name)}
		}
		l.Number++
		t.exec("INSERT OR REPLACE INTO locks(name,token,number,until) VALUES(?,?,?,?)", name, l.Token, l.Number, t.until(life))
		return nil
	})
	if err != nil {
		return queue.Lock{}, err
	}
	return l, nil
}

// Renew implements [queue.Locks].
func (q *Queue) Renew(ctx context.Context, l queue.Lock, life time.Duration) error {
	return q.write(ctx, "renew lock "+l.Name, func(t *tx) error {
		if t.exec("UPDATE locks SET until=? WHERE name=? AND token=? AND until>?", t.until(life), l.Name, l.Token, t.now) == 0 && t.err == nil {
			return &queue.Error{Code: queue.CodeLost, Doing: fmt.Sprintf("renew lock %q", l.Name)}
		}
		return nil
	})
}

// Unlock implements [queue.Locks].
func (q *Queue) Unlock(ctx context.Context, l queue.Lock) error {
	return q.write(ctx, "unlock "+l.Name, func(t *tx) error {
		t.exec("UPDATE locks SET until=0 WHERE name=? AND token=?", l.Name, l.Token)
		return nil
	})
}
