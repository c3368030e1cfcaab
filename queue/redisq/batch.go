package redisq

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
)

// CreateBatch implements [queue.Batches].
func (q *Queue) CreateBatch(ctx context.Context, b queue.Batch) (queue.Batch, bool, error) {
	private := ""
	if b.Private {
		private = "1"
	}
	n, err := q.run(ctx, q.s.batchCreate, b.ID, encode(b), b.Owner.User(), b.Total, encode(b.Origin), b.Name, private).Int()
	if err != nil {
		return queue.Batch{}, false, wrap("create batch", err)
	}
	x, err := q.Batch(ctx, b.ID)
	return x, n == 1, err
}

func batchOf(h hash) (queue.Batch, error) {
	var b queue.Batch
	if err := decode(h["body"], &b); err != nil {
		return b, fmt.Errorf("decode batch: %w", err)
	}
	n := func(f string) int64 { return int64(h.float(f)) }
	b.State, b.Created, b.Ended = queue.BatchState(h["st"]), h.time("crt"), h.time("en")
	b.Cursor, b.Redo, b.RedoLeft, b.Out, b.Done, b.Failed, b.Cancelled = n("cu"), n("rd"), n("rl"), n("out"), n("dn"), n("fd"), n("cn")
	return b, nil
}

// Batch implements [queue.Batches].
func (q *Queue) Batch(ctx context.Context, id string) (queue.Batch, error) {
	h, err := q.c.HGetAll(ctx, q.key("b", id)).Result()
	if err != nil {
		return queue.Batch{}, wrap("read batch", err)
	}
	if h["st"] == "" {
		return queue.Batch{}, queue.NotFound("batch", id)
	}
	return batchOf(h)
}

// Batches implements [queue.Batches].
func (q *Queue) Batches(ctx context.Context, owner string) ([]queue.Batch, error) {
	k := q.key("batches")
	if owner != "" {
		k = q.key("bo", owner)
	}
	ids, err := q.c.ZRevRange(ctx, k, 0, 999).Result()
	if err != nil {
		return nil, wrap("list batches", err)
	}
	p := q.c.Pipeline()
	cmds := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		cmds[i] = p.HGetAll(ctx, q.key("b", id))
	}
	if _, err := p.Exec(ctx); err != nil && len(ids) > 0 {
		return nil, wrap("list batches", err)
	}
	var out []queue.Batch
	for _, c := range cmds {
		if h := c.Val(); h["st"] != "" {
			b, err := batchOf(h)
			if err != nil {
				return nil, err
			}
			out = append(out, b)
		}
	}
	return out, nil
}

// Feed implements [queue.Batches].
func (q *Queue) Feed(ctx context.Context, f queue.Feeding) error {
	redo := "0"
	if f.Redo {
		redo = "1"
	}
	args := []any{f.Batch, f.From, f.To, redo, len(f.Requests)}
	for i := range f.Requests {
		r := f.Requests[i]
		if err := r.Normalise(); err != nil {
			return err
		}
		r.Batch = f.Batch
		req, fix, err := split(&r)
		if err != nil {
			return err
		}
		args = append(args, r.ID, req, fix.pack())
	}
	v, err := q.list(ctx, "feed batch", q.s.feed, args...)
	switch {
	case err != nil:
		return err
	case v[0] == "none":
		return queue.NotFound("batch", f.Batch)
	case v[0] == "conflict":
		return &queue.Error{Code: queue.CodeConflict, Doing: fmt.Sprintf("feed batch %s from %d: it is %s at %s", f.Batch, f.From, v[1], v[2])}
	}
	return nil
}

// CancelBatch implements [queue.Batches].
func (q *Queue) CancelBatch(ctx context.Context, id string) error {
	for {
		v, err := q.list(ctx, "cancel batch", q.s.batchCancel, id)
		switch {
		case err != nil:
			return err
		case v[0] == "none":
			return queue.NotFound("batch", id)
		case v[0] == "ended":
			return &queue.Error{Code: queue.CodeConflict, Doing: "cancel batch", Sentence: "The batch has already ended."}
		case v[1] == "0":
			return nil
		}
	}
}

// RetryBatch implements [queue.Batches].
func (q *Queue) RetryBatch(ctx context.Context, id string) (int64, error) {
	v, err := q.list(ctx, "retry batch", q.s.batchRetry, id)
	switch {
	case err != nil:
		return 0, err
	case v[0] == "none":
		return 0, queue.NotFound("batch", id)
	case v[0] == "cancelled":
		return 0, &queue.Error{Code: queue.CodeConflict, Doing: "retry batch", Sentence: "The batch was cancelled; ingest the file again instead."}
	}
	return strconv.ParseInt(v[1], 10, 64)
}

// isSet reads bit i of a Redis bitmap, whose first bit is the byte's highest.
func isSet(b string, i int64) bool {
	return i/8 < int64(len(b)) && b[i/8]&(0x80>>(i%8)) != 0
}

// Outcomes implements [queue.Batches].
func (q *Queue) Outcomes(ctx context.Context, id string, first int64, n int) ([]queue.Outcome, error) {
	b, err := q.Batch(ctx, id)
	if err != nil {
		return nil, err
	}
	end := min(first+int64(min(n, 10_000)), b.Total)
	if first >= end {
		return nil, nil
	}
	lo, hi := first/8, (end-1)/8
	p := q.c.Pipeline()
	done := p.GetRange(ctx, q.key("bd", id), lo, hi)
	failed := p.GetRange(ctx, q.key("bf", id), lo, hi)
	reasons := p.HGetAll(ctx, q.key("bw", id))
	if _, err := p.Exec(ctx); err != nil {
		return nil, wrap("outcomes of batch", err)
	}
	out := make([]queue.Outcome, 0, end-first)
	for line := first; line < end; line++ {
		o := queue.Outcome{Line: line, Status: b.Rest()}
		switch i := line - lo*8; {
		case isSet(done.Val(), i):
			o.Status = queue.Done
		case isSet(failed.Val(), i):
			o.Status, o.Reason = queue.Failed, reasons.Val()[strconv.FormatInt(line, 10)]
		}
		out = append(out, o)
	}
	return out, nil
}

// NextRedo implements [queue.Batches].
func (q *Queue) NextRedo(ctx context.Context, id string, from int64, n int) ([]int64, error) {
	const step = 8192 // bytes
	var out []int64
	for lo := from / 8; ; lo += step {
		s, err := q.c.GetRange(ctx, q.key("br", id), lo, lo+step-1).Result()
		if err != nil {
			return nil, wrap("next lines to run again", err)
		}
		for i := range int64(len(s)) * 8 {
			if line := lo*8 + i; line >= from && isSet(s, i) {
				if out = append(out, line); len(out) == n {
					return out, nil
				}
			}
		}
		if len(s) < step {
			return out, nil
		}
	}
}
