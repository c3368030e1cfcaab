package redisq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"crypto/rand"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

func (q *Queue) stream(ctx context.Context, name, after string, limit int, wait time.Duration) ([]redis.XMessage, error) {
	if after == "" {
		after = "0-0"
	}
	if limit <= 0 {
		limit = 100
	}
	end := time.Now().Add(wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		block := min(time.Until(end), blockFor)
		if block < time.Millisecond {
			block = -1 // do not block
		}
		ss, err := q.c.XRead(ctx, &redis.XReadArgs{Streams: []string{q.key(name), after}, Count: int64(limit), Block: block}).Result()
		switch {
		case err == nil && len(ss) > 0 && len(ss[0].Messages) > 0:
			return ss[0].Messages, nil
		case err != nil && !errors.Is(err, redis.Nil):
			return nil, wrap("read stream", err)
		case time.Now().After(end):
			return nil, nil
		}
	}
}

// Events implements [queue.Outbox].
func (q *Queue) Events(ctx context.Context, after string, limit int, wait time.Duration) ([]queue.Event, error) {
	ms, err := q.stream(ctx, "ev", after, limit, wait)
	out := make([]queue.Event, len(ms))
	for i, m := range ms {
		if out[i], err = event(m); err != nil {
			return nil, fmt.Errorf("decode event %q: %w", m.ID, err)
		}
	}
	return out, err
}

func event(m redis.XMessage) (queue.Event, error) {
	f := func(k string) string { s, _ := m.Values[k].(string); return s }
	n := func(k string) int64 { v, _ := strconv.ParseInt(f(k), 10, 64); return v }
	if s := f("f"); s != "" { // a submit's: job, fixed parts; the time only where tests move the clock
		x, ms := fixedOf(s), f("t")
		if ms == "" {
			ms, _, _ = strings.Cut(m.ID, "-")
		}
		e := queue.Event{ID: m.ID, Kind: queue.EventAccepted, Job: f("i"), Seq: 1, At: at(stamp(ms)), User: x.user, Private: x.private == "1", Stage: queue.StageQueued}
		return e, decode(x.origin, &e.Origin)
	}
	if s := f("e"); s != "" { // a job's: kind, job, attempt, lease, number, time, private, user, origin, data
		v := strings.SplitN(s, "\n", 10)
		for i, k := range []string{"k", "j", "a", "l", "q", "t", "p", "u", "o", "d"} {
			if i < len(v) {
				m.Values[k] = v[i]
			}
		}
	}
	var x extra
	e := queue.Event{ID: m.ID, Kind: queue.EventKind(f("k")), Job: f("j"), Batch: f("b"), Attempt: int(n("a")), LeaseID: f("l"), Seq: int(n("q")),
		At: at(stamp(f("t"))), User: f("u"), Private: f("p") == "1"}
	err := errors.Join(decode(f("d"), &x), decode(f("o"), &e.Origin))
	e.Stage, e.Step, e.Total, e.Message, e.Remaining, e.Files, e.Notices = x.Stage, x.Step, x.Total, x.Message, x.Remaining, x.Files, x.Notices
	if e.Kind == queue.EventBatch {
		e.Message = refuse.BatchSentence(f("nm"), queue.BatchState(f("s")), n("dn"), n("fd"), n("cn"))
	}
	return e, err
}

// End implements [queue.Outbox].
func (q *Queue) End(ctx context.Context) (string, error) {
	ms, err := q.c.XRevRangeN(ctx, q.key("ev"), "+", "-", 1).Result()
	if err != nil {
		return "", wrap("end of stream", err)
	}
	if len(ms) == 0 {
		return "0-0", nil
	}
	return ms[0].ID, nil
}

// Cursor implements [queue.Outbox].
func (q *Queue) Cursor(ctx context.Context, consumer string) (string, error) {
	name := "ev"
	if strings.HasPrefix(consumer, "alerts/") {
		name = "al"
	}
	s, err := q.run(ctx, q.s.cursor, consumer, name).Text()
	return s, wrap("cursor of "+consumer, err)
}

// Ack implements [queue.Outbox].
func (q *Queue) Ack(ctx context.Context, consumer, cursor string) error {
	a, b, _ := strings.Cut(cursor, "-")
	for _, s := range []string{a, "0" + b} {
		if _, err := strconv.ParseUint(s, 10, 64); err != nil {
			return &queue.Error{Code: queue.CodeInvalid, Doing: fmt.Sprintf("parse cursor %q", cursor), Err: err}
		}
	}
	return wrap("ack", q.run(ctx, q.s.ack, consumer, cursor).Err())
}

// Retire implements [queue.Outbox].
func (q *Queue) Retire(ctx context.Context, consumer string) error {
	return wrap("retire "+consumer, q.c.HDel(ctx, q.key("cur"), consumer).Err())
}

// Raise implements [queue.Alerts].
func (q *Queue) Raise(ctx context.Context, a queue.Alert) error {
	a.ID = ""
	firing := "1"
	if a.State == queue.Resolved {
		firing = "0"
	}
	return wrap("raise alert", q.run(ctx, q.s.raise, a.Code, a.Key, firing, encode(a), rand.Text()).Err())
}

// Alerts implements [queue.Alerts].
func (q *Queue) Alerts(ctx context.Context, after string, limit int, wait time.Duration) ([]queue.Alert, error) {
	ms, err := q.stream(ctx, "al", after, limit, wait)
	out := make([]queue.Alert, len(ms))
	for i, m := range ms {
		s, _ := m.Values["d"].(string)
		if err := decode(s, &out[i]); err != nil {
			return nil, fmt.Errorf("decode alert %q: %w", m.ID, err)
		}
		out[i].ID = m.ID
	}
	return out, err
}

// FiringAlerts implements [queue.Alerts].
func (q *Queue) FiringAlerts(ctx context.Context) ([]queue.Alert, error) {
	h, err := q.c.HGetAll(ctx, q.key("firing")).Result()
	if err != nil {
		return nil, wrap("firing alerts", err)
	}
	out := make([]queue.Alert, 0, len(h))
	for _, s := range h {
		var a queue.Alert
		if err := decode(s, &a); err != nil {
			return nil, fmt.Errorf("decode alert: %w", err)
		}
		out = append(out, a)
	}
	sortAlerts(out)
	return out, nil
}

// stamp reads an event's time: milliseconds, or seconds and microseconds as
// Redis tells them to the scripts that write no text of their own.
func stamp(s string) float64 {
	a, b, split := strings.Cut(s, " ")
	x, _ := strconv.ParseFloat(a, 64)
	if split {
		us, _ := strconv.ParseFloat(b, 64)
		x = x*1000 + us/1000
	}
	return x
}
