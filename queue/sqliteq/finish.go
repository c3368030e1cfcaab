package sqliteq

import (
	"context"
	"encoding/json"
	"strings"

	"dreamcad/queue"
	"dreamcad/queue/internal/crash"
	"dreamcad/queue/internal/order"
	"dreamcad/queue/internal/refuse"
)

// again answers the repetition of a call that already took effect: fin holds
// "lease:verb:status".
func (r *row) again(ref queue.Ref, verb string) (queue.Status, bool) {
	if r == nil {
		return "", false
	}
	st, ok := strings.CutPrefix(r.fin, ref.Lease+":"+verb+":")
	return queue.Status(st), ok
}

// Complete implements [queue.Leaser].
func (q *Queue) Complete(ctx context.Context, ref queue.Ref, res queue.Result) error {
	b, err := json.Marshal(res)
	if err != nil || len(b) > queue.MaxResult {
		return &queue.Error{Code: queue.CodeTooLarge, Doing: "complete " + ref.Job, Err: err}
	}
	return q.write(ctx, "complete", func(t *tx) error {
		r, err := t.holder(ref)
		if err != nil {
			if _, ok := r.again(ref, "done"); ok {
				return nil
			}
			t.refuse(err)
			return err
		}
		t.unlease(r, res.Used)
		r.result, r.fin, r.failure = string(b), ref.Lease+":done:done", ""
		t.exec("INSERT INTO durations(sort,sec) VALUES(?,?)", r.sort, r.used)
		t.exec("DELETE FROM durations WHERE sort=? AND i<=(SELECT i FROM durations WHERE sort=? ORDER BY i DESC LIMIT 1 OFFSET ?)", r.sort, r.sort, order.MaxSamples)
		t.end(r, queue.Done, &queue.Event{Kind: queue.EventDone, Files: res.Files, Notices: res.Notices})
		t.save(r)
		return nil
	})
}

// refuse counts a refused write. The transaction that refuses is rolled back,
// so the count is written beside it.
func (t *tx) refuse(err error) {
	code := queue.CodeOf(err)
	if code == "" || code == queue.CodeUnavailable {
		return
	}
	t.rollback() // nothing was written
	if err := t.q.transact(t.conn, t.ctx, t.ctx, "count", func(t *tx) error {
		t.count("refused_"+string(code), 1)
		return nil
	}); err != nil {
		return // a metric only
	}
}

// Fail implements [queue.Leaser].
func (q *Queue) Fail(ctx context.Context, ref queue.Ref, f queue.Failure) (queue.Status, error) {
	var st queue.Status
	crash.Bound(&f)
	err := q.write(ctx, "fail", func(t *tx) error {
		r, err := t.holder(ref)
		if err != nil {
			if s, ok := r.again(ref, "fail"); ok {
				st = s
				return nil
			}
			t.refuse(err)
			return err
		}
		if f.Worker == "" {
			f.Worker = r.worker
		}
		t.failed(r, &f)
		st = queue.Status(r.status)
		r.fin = ref.Lease + ":fail:" + r.status
		t.save(r)
		return nil
	})
	return st, err
}

// failed moves a leased job on after its attempt failed.
func (t *tx) failed(r *row, f *queue.Failure) {
	r.failure = encode(f)
	t.unlease(r, f.Used)
	switch f.Kind {
	case queue.FailCrash, queue.FailStuck, queue.FailDied:
		t.crashed(r, f)
		return
	case queue.FailInput:
	default:
		r.failures++
		if r.failures < t.q.cfg.MaxFailures {
			d := f.RetryAfter
			if d <= 0 {
				d = t.q.cfg.Backoff(r.failures)
			}
			t.later(r, d.Milliseconds())
			t.event(r, &queue.Event{Kind: queue.EventWaiting})
			return
		}
	}
	t.end(r, queue.Failed, &queue.Event{Kind: queue.EventFailed, Message: refuse.EndSentence(queue.Failed, f.Sentence)})
}

func (t *tx) later(r *row, ms int64) {
	r.status, r.notbefore = string(queue.Scheduled), t.now+ms
	t.waits(r, 1)
}

func (t *tx) crashed(r *row, f *queue.Failure) {
	r.crashes++
	t.count("crashes", 1)
	if f.Kind == queue.FailDied {
		r.died++
	} else {
		r.died = 0
	}
	r.crashers += crash.Line(queue.Crash{Kind: f.Kind, Worker: f.Worker, Exit: f.Exit, Attempt: r.attempt, At: at(t.now)})
	workers := crash.Workers(r.crashers)
	if r.died >= 2 || r.crashes >= t.q.cfg.MaxCrashes && workers >= 2 || r.crashes >= 2*t.q.cfg.MaxCrashes {
		t.exec("INSERT OR REPLACE INTO poison(fp,job,at) VALUES(?,?,?)", r.fp, r.id, t.now)
		t.end(r, queue.Quarantined, &queue.Event{Kind: queue.EventFailed, Message: refuse.SentenceQuarantined})
		return
	}
	if r.crashes == 1 {
		t.toLine(r)
	} else {
		t.later(r, t.q.cfg.Backoff(r.crashes-1).Milliseconds())
	}
	t.event(r, &queue.Event{Kind: queue.EventWaiting})
}

// GiveBack implements [queue.Leaser].
func (q *Queue) GiveBack(ctx context.Context, ref queue.Ref, o queue.GiveBackOptions) error {
	return q.write(ctx, "give back", func(t *tx) error {
		r, err := t.holder(ref)
		if err != nil {
			if _, ok := r.again(ref, "back"); ok {
				return nil
			}
			t.refuse(err)
			return err
		}
		if o.Checkpoint != nil {
			r.ckpt = encode(o.Checkpoint)
		}
		t.unlease(r, o.Used)
		if o.Reason == queue.Yielded {
			r.yielded = t.now
		}
		t.count("given_back_"+string(o.Reason), 1)
		t.toLine(r)
		t.event(r, &queue.Event{Kind: queue.EventWaiting})
		r.fin = ref.Lease + ":back:queued"
		t.save(r)
		return nil
	})
}

// Tick implements [queue.Maintainer].
func (q *Queue) Tick(ctx context.Context) (queue.Ticked, error) {
	var n queue.Ticked
	err := q.write(ctx, "tick", func(t *tx) error {
		for _, r := range each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE status='leased' AND deadline<? ORDER BY deadline LIMIT 100", t.now) {
			t.count("lost", 1)
			t.failed(&r, &queue.Failure{Kind: queue.FailCrash, Detail: "the lease ran out without a heartbeat", Worker: r.worker})
			t.save(&r)
			n.Rescued++
		}
		for _, r := range each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE status='scheduled' AND notbefore<=? ORDER BY notbefore LIMIT 100", t.now) {
			t.waits(&r, -1)
			t.toLine(&r)
			t.save(&r)
			n.Promoted++
		}
		n.Dropped = t.prune()
		return nil
	})
	return n, err
}

// prune drops what is older or more than the keep limits, 100 of each sort a call.
func (t *tx) prune() int {
	dropped := 0
	c := &t.q.cfg
	for _, st := range []queue.Status{queue.Done, queue.Failed, queue.Cancelled, queue.Quarantined} {
		var over int64 // the newest job that is beyond the count
		t.get("SELECT ended FROM jobs WHERE status=? ORDER BY ended DESC LIMIT 1 OFFSET ?", st, c.KeepCount)(&over)
		limit := max(over, t.now-c.KeepAge.Milliseconds())
		n := t.exec("DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE status=? AND ended<=? ORDER BY ended LIMIT 100)", st, limit)
		if n > 0 {
			t.count("dropped_"+string(st), float64(n))
		}
		dropped += int(n)
	}
	var last, oldest int64
	t.get("SELECT COALESCE(MAX(id),0), COALESCE(MIN(id),0) FROM stream")(&last, &oldest)
	if cut := last - int64(c.KeepEvents); oldest <= cut && last > 0 {
		cut = min(cut, oldest+500)
		var missed int64
		t.get("SELECT COUNT(*) FROM cursors WHERE pos<?", cut)(&missed)
		n := t.exec("DELETE FROM stream WHERE id<=?", cut)
		if missed > 0 {
			t.count("trimmed_unread", float64(n))
		}
	}
	for _, k := range []string{"keys WHERE key IN (SELECT key FROM keys WHERE until<=? LIMIT 500)",
		"records WHERE key IN (SELECT key FROM records WHERE until>0 AND until<=? LIMIT 500)",
		"sums WHERE key IN (SELECT key FROM sums WHERE until>0 AND until<=? LIMIT 500)",
		"workers WHERE seen<=?-3600000", "shares WHERE at<=?-2592000000"} {
		t.exec("DELETE FROM "+k, t.now)
	}
	return dropped
}
