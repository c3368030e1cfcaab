package sqliteq

import (
	"context"
	"database/sql"
	"fmt"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

// maxReasons is how many failed lines keep their reason in the record.
const maxReasons = 1000

const batchColumns = "body,state,cursor,redo,redoleft,out,done,failed,cancelled,created,ended"

func scanBatch(rs *sql.Rows, b *queue.Batch) error {
	var body string
	var created, ended int64
	var state queue.BatchState
	var n [7]int64
	if err := rs.Scan(&body, &state, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &created, &ended); err != nil {
		return err
	}
	if err := decode(body, b); err != nil {
		return err
	}
	b.State, b.Created, b.Ended = state, at(created), at(ended)
	b.Cursor, b.Redo, b.RedoLeft, b.Out, b.Done, b.Failed, b.Cancelled = n[0], n[1], n[2], n[3], n[4], n[5], n[6]
	return nil
}

func (t *tx) batch(id string) (*queue.Batch, error) {
	bs := each(t, scanBatch, "SELECT "+batchColumns+" FROM batches WHERE id=?", id)
	if t.err != nil {
		return nil, t.err
	}
	if len(bs) == 0 {
		return nil, queue.NotFound("batch", id)
	}
	return &bs[0], nil
}

// CreateBatch implements [queue.Batches].
func (q *Queue) CreateBatch(ctx context.Context, b queue.Batch) (out queue.Batch, isNew bool, err error) {
	err = q.write(ctx, "create batch", func(t *tx) error {
		isNew = t.exec("INSERT OR IGNORE INTO batches(id,body,owner,state,total,cursor,redo,redoleft,out,done,failed,cancelled,created,ended) VALUES(?,?,?,?,?,0,0,0,0,0,0,0,?,0)",
			b.ID, encode(b), b.Owner.User(), queue.BatchRunning, b.Total, t.now) == 1
		if isNew {
			t.batchCheck(b.ID)
		}
		x, err := t.batch(b.ID)
		if err == nil {
			out = *x
		}
		return err
	})
	return out, isNew, err
}

// Batch implements [queue.Batches].
func (q *Queue) Batch(ctx context.Context, id string) (b queue.Batch, err error) {
	err = q.read(ctx, "read batch", func(t *tx) error {
		x, err := t.batch(id)
		if err == nil {
			b = *x
		}
		return err
	})
	return b, err
}

// Batches implements [queue.Batches].
func (q *Queue) Batches(ctx context.Context, owner string) (out []queue.Batch, err error) {
	err = q.read(ctx, "list batches", func(t *tx) error {
		out = each(t, scanBatch, "SELECT "+batchColumns+" FROM batches WHERE ?='' OR owner=? ORDER BY created DESC, id LIMIT 1000", owner, owner)
		return nil
	})
	return out, err
}

// Feed implements [queue.Batches].
func (q *Queue) Feed(ctx context.Context, f queue.Feeding) error {
	return q.write(ctx, "feed batch", func(t *tx) error {
		b, err := t.batch(f.Batch)
		if err != nil {
			return err
		}
		cur := b.Cursor
		if f.Redo {
			cur = b.Redo
		}
		if b.State == queue.BatchRunning && cur == f.To && f.To > f.From {
			return nil // a repetition
		}
		if b.State != queue.BatchRunning || cur != f.From || f.Redo && b.RedoLeft == 0 {
			return &queue.Error{Code: queue.CodeConflict, Doing: fmt.Sprintf("feed batch %s from %d: it is %s at %d", f.Batch, f.From, b.State, cur)}
		}
		n := int64(0)
		for i := range f.Requests {
			r := &f.Requests[i]
			if err := r.Normalise(); err != nil {
				return err
			}
			if f.Redo {
				t.exec("DELETE FROM jobs WHERE id=? AND status IN ('failed','quarantined')", r.ID)
				t.bit(f.Batch, "redo", r.Line, false)
				t.exec("DELETE FROM poison WHERE fp=?", r.Fingerprint())
			}
			rc, err := t.submit(r, nil, true)
			if err != nil {
				return err
			}
			if rc.New {
				n++
			}
		}
		if f.Redo {
			t.exec("UPDATE batches SET redo=?, redoleft=redoleft-?, out=out+? WHERE id=?", f.To, len(f.Requests), n, f.Batch)
		} else {
			t.exec("UPDATE batches SET cursor=?, out=out+? WHERE id=?", f.To, n, f.Batch)
		}
		t.batchCheck(f.Batch)
		return nil
	})
}

// batchEnd records a line's outcome.
func (t *tx) batchEnd(r *row, st queue.Status, reason string) {
	col := map[queue.Status]string{queue.Done: "done", queue.Failed: "failed", queue.Quarantined: "failed", queue.Cancelled: "cancelled"}[st]
	t.exec("UPDATE batches SET out=out-1, "+col+"="+col+"+1 WHERE id=?", r.batch)
	if col != "cancelled" {
		t.bit(r.batch, col, r.line, true)
	}
	if col == "failed" {
		t.exec("INSERT OR REPLACE INTO reasons(batch,line,reason) SELECT ?,?,? WHERE (SELECT COUNT(*) FROM reasons WHERE batch=?)<?", r.batch, r.line, refuse.EndSentence(st, reason), r.batch, maxReasons)
	}
	t.exec("DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE batch=? AND status=? AND seq<>? ORDER BY seq DESC LIMIT 2 OFFSET ?)", r.batch, st, r.seq, max(t.q.cfg.KeepBatch-1, 0))
	t.wake = true
	t.batchCheck(r.batch)
}

// batchRevive takes a line's outcome back because its job is queued again.
func (t *tx) batchRevive(r *row, st queue.Status) {
	if r.batch == "" {
		return
	}
	col := "failed"
	if st == queue.Cancelled {
		col = "cancelled"
	}
	t.bit(r.batch, "failed", r.line, false)
	t.exec("DELETE FROM reasons WHERE batch=? AND line=?", r.batch, r.line)
	t.exec("UPDATE batches SET out=out+1, "+col+"=MAX("+col+"-1,0), state=CASE state WHEN 'ended' THEN 'running' ELSE state END, ended=0 WHERE id=?", r.batch)
}

// batchCheck ends a batch whose lines all have an outcome, with one event.
func (t *tx) batchCheck(id string) {
	b, err := t.batch(id)
	if err != nil {
		t.fail(err)
		return
	}
	if b.State != queue.BatchRunning && b.State != queue.BatchPaused || b.Cursor < b.Total || b.RedoLeft > 0 || b.Out > 0 {
		return
	}
	t.batchClose(b, queue.BatchEnded)
}

func (t *tx) batchClose(b *queue.Batch, st queue.BatchState) {
	t.exec("UPDATE batches SET state=?, ended=?, round=round+1 WHERE id=?", st, t.now, b.ID)
	t.exec("DELETE FROM switches WHERE scope=? AND name=?", queue.OfBatch, b.ID)
	t.publish(topicEvents, &queue.Event{Kind: queue.EventBatch, Batch: b.ID, User: b.Owner.User(), Private: b.Private, Origin: b.Origin,
		Message: refuse.BatchSentence(b.Name, st, b.Done, b.Failed, b.Cancelled)})
}

func (t *tx) holdBatch(id string) error {
	b, err := t.batch(id)
	if err != nil {
		return err
	}
	if b.State == queue.BatchPaused {
		return nil
	}
	if b.State != queue.BatchRunning {
		return &queue.Error{Code: queue.CodeConflict, Doing: "pause batch", Sentence: fmt.Sprintf("The batch is already %s.", b.State)}
	}
	t.exec("UPDATE batches SET state='paused' WHERE id=?", id)
	for _, r := range each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE batch=? AND status='queued' AND held=0", id) {
		t.lineAdd(&r, -1)
		r.held = true
		t.save(&r)
	}
	return t.err
}

func (t *tx) freeBatch(id string) error {
	b, err := t.batch(id)
	if err != nil || b.State != queue.BatchPaused {
		return err
	}
	t.exec("UPDATE batches SET state='running' WHERE id=?", id)
	for _, r := range each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE batch=? AND status='queued' AND held=1", id) {
		t.lineAdd(&r, 1)
		r.held = false
		t.save(&r)
	}
	return t.err
}

// CancelBatch implements [queue.Batches].
func (q *Queue) CancelBatch(ctx context.Context, id string) error {
	return q.write(ctx, "cancel batch", func(t *tx) error {
		b, err := t.batch(id)
		if err != nil || b.State == queue.BatchCancelled {
			return err
		}
		if b.State == queue.BatchEnded {
			return &queue.Error{Code: queue.CodeConflict, Doing: "cancel batch", Sentence: "The batch has already ended."}
		}
		t.exec("UPDATE batches SET state='cancelled' WHERE id=?", id)
		for _, r := range each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE batch=? AND status IN ('queued','scheduled','leased')", id) {
			t.cancel(&r)
		}
		t.exec("UPDATE batches SET cancelled=total-done-failed, redoleft=0 WHERE id=?", id)
		if b, err = t.batch(id); err != nil {
			return err
		}
		t.batchClose(b, queue.BatchCancelled)
		return nil
	})
}

// RetryBatch implements [queue.Batches].
func (q *Queue) RetryBatch(ctx context.Context, id string) (n int64, err error) {
	err = q.write(ctx, "retry batch", func(t *tx) error {
		b, err := t.batch(id)
		if err != nil {
			return err
		}
		if b.State == queue.BatchCancelled {
			return &queue.Error{Code: queue.CodeConflict, Doing: "retry batch", Sentence: "The batch was cancelled; ingest the file again instead."}
		}
		if b.RedoLeft > 0 {
			n = b.RedoLeft // the last retry is still being fed
			return nil
		}
		if n = b.Failed; n == 0 {
			return nil
		}
		t.exec("DELETE FROM bits WHERE batch=? AND map='redo'", id)
		t.exec("UPDATE bits SET map='redo' WHERE batch=? AND map='failed'", id)
		t.exec("DELETE FROM reasons WHERE batch=?", id)
		t.exec("UPDATE batches SET redo=0, redoleft=failed, failed=0, ended=0, state=CASE state WHEN 'paused' THEN 'paused' ELSE 'running' END WHERE id=?", id)
		t.wake = true
		return nil
	})
	return n, err
}

// chunk is how many lines a row of bits holds.
const chunk = 8192

func (t *tx) bit(batch, m string, line int64, on bool) {
	b := t.chunk(batch, m, line/chunk)
	if b == nil {
		if !on {
			return
		}
		b = make([]byte, chunk/8)
	}
	i := line % chunk
	if on {
		b[i/8] |= 1 << (i % 8)
	} else {
		b[i/8] &^= 1 << (i % 8)
	}
	t.exec("INSERT OR REPLACE INTO bits(batch,map,chunk,bits) VALUES(?,?,?,?)", batch, m, line/chunk, b)
}

func (t *tx) chunk(batch, m string, i int64) []byte {
	var b []byte
	t.get("SELECT bits FROM bits WHERE batch=? AND map=? AND chunk=?", batch, m, i)(&b)
	return b
}

func isSet(b []byte, i int64) bool { return len(b) > 0 && b[i/8]&(1<<(i%8)) != 0 }

// Outcomes implements [queue.Batches].
func (q *Queue) Outcomes(ctx context.Context, id string, first int64, n int) (out []queue.Outcome, err error) {
	err = q.read(ctx, "outcomes of batch", func(t *tx) error {
		b, err := t.batch(id)
		if err != nil {
			return err
		}
		n = min(n, 10_000)
		type why struct {
			line   int64
			reason string
		}
		reasons := map[int64]string{}
		for _, w := range each(t, func(rs *sql.Rows, w *why) error { return rs.Scan(&w.line, &w.reason) },
			"SELECT line,reason FROM reasons WHERE batch=? AND line>=? AND line<?", id, first, first+int64(n)) {
			reasons[w.line] = w.reason
		}
		var done, failed []byte
		for line := first; line < min(first+int64(n), b.Total); line++ {
			if line == first || line%chunk == 0 {
				done, failed = t.chunk(id, "done", line/chunk), t.chunk(id, "failed", line/chunk)
			}
			o := queue.Outcome{Line: line, Status: b.Rest()}
			switch {
			case isSet(done, line%chunk):
				o.Status = queue.Done
			case isSet(failed, line%chunk):
				o.Status, o.Reason = queue.Failed, reasons[line]
			}
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

// NextRedo implements [queue.Batches].
func (q *Queue) NextRedo(ctx context.Context, id string, from int64, n int) (out []int64, err error) {
	err = q.read(ctx, "next lines to run again", func(t *tx) error {
		type part struct {
			i int64
			b []byte
		}
		for _, p := range each(t, func(rs *sql.Rows, p *part) error { return rs.Scan(&p.i, &p.b) },
			"SELECT chunk,bits FROM bits WHERE batch=? AND map='redo' AND chunk>=? ORDER BY chunk", id, from/chunk) {
			for k := range int64(chunk) {
				if line := p.i*chunk + k; isSet(p.b, k) && line >= from {
					if out = append(out, line); len(out) == n {
						return nil
					}
				}
			}
		}
		return nil
	})
	return out, err
}
