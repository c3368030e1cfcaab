package sqliteq

import (
	"context"
	"slices"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

// Pause implements [queue.Operator].
func (q *Queue) Pause(ctx context.Context, s queue.Scope, name, why string) error {
	if err := refuse.CheckSwitch(s, name); err != nil {
		return err
	}
	return q.write(ctx, "pause", func(t *tx) error {
		t.exec("INSERT OR IGNORE INTO switches(scope,name,why,since) VALUES(?,?,?,?)", s, name, why, t.now)
		switch s {
		case queue.OfUser:
			t.exec("INSERT INTO users(user,paused) VALUES(?,1) ON CONFLICT DO UPDATE SET paused=1", name)
			t.reseat(name)
		case queue.OfBatch:
			return t.holdBatch(name)
		}
		return nil
	})
}

// Resume implements [queue.Operator].
func (q *Queue) Resume(ctx context.Context, s queue.Scope, name string) error {
	if err := refuse.CheckSwitch(s, name); err != nil {
		return err
	}
	return q.write(ctx, "resume", func(t *tx) error {
		t.exec("DELETE FROM switches WHERE scope=? AND name=?", s, name)
		t.wake = true
		switch s {
		case queue.OfUser:
			t.exec("UPDATE users SET paused=0 WHERE user=?", name)
			t.reseat(name)
		case queue.OfBatch:
			return t.freeBatch(name)
		}
		return nil
	})
}

// Requeue implements [queue.Operator].
func (q *Queue) Requeue(ctx context.Context, id string) error {
	return q.write(ctx, "requeue", func(t *tx) error {
		r := t.job(id)
		if r == nil {
			t.fail(queue.NotFound("job", id))
			return t.err
		}
		st := queue.Status(r.status)
		if !slices.Contains([]queue.Status{queue.Failed, queue.Cancelled, queue.Quarantined}, st) {
			return refuse.NotOver(st)
		}
		t.exec("DELETE FROM poison WHERE fp=?", r.fp)
		t.batchRevive(r, st)
		r.failures, r.crashes, r.died, r.crashers, r.ended, r.failure, r.progress = 0, 0, 0, "", 0, "", ""
		t.toLine(r)
		t.count("requeued", 1)
		t.event(r, &queue.Event{Kind: queue.EventAccepted, Stage: queue.StageQueued})
		t.save(r)
		return nil
	})
}

// Release implements [queue.Operator].
func (q *Queue) Release(ctx context.Context, id string) error {
	return q.write(ctx, "release", func(t *tx) error {
		if t.job(id) == nil {
			t.fail(queue.NotFound("job", id))
			return t.err
		}
		t.exec("DELETE FROM poison WHERE fp=(SELECT fp FROM jobs WHERE id=?)", id)
		return nil
	})
}

// Forget implements [queue.Operator].
func (q *Queue) Forget(ctx context.Context, user string) ([]string, error) {
	var ids []string
	err := q.write(ctx, "forget user", func(t *tx) error {
		ids = each(t, one[string], "SELECT id FROM jobs WHERE user=? AND status IN ('done','failed','cancelled','quarantined') LIMIT 1000", user)
		for _, id := range ids {
			t.exec("DELETE FROM keys WHERE job=?", id)
			t.exec("DELETE FROM jobs WHERE id=?", id)
		}
		var live int
		t.get("SELECT COUNT(*) FROM jobs WHERE user=?", user)(&live)
		if live == 0 {
			t.exec("DELETE FROM shares WHERE user=?", user)
			t.exec("DELETE FROM users WHERE user=? AND paused=0", user)
		}
		return nil
	})
	return ids, err
}

// SetWeight implements [queue.Operator].
func (q *Queue) SetWeight(ctx context.Context, user string, w float64) error {
	if !(w > 0 && w <= 1000) {
		return queue.NewError(queue.CodeInvalid, "A weight must be above 0 and at most 1000.")
	}
	return q.write(ctx, "set weight", func(t *tx) error {
		t.exec("INSERT INTO users(user,weight) VALUES(?,?) ON CONFLICT DO UPDATE SET weight=excluded.weight", user, w)
		return nil
	})
}
