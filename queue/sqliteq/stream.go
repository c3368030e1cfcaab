package sqliteq

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"dreamcad/queue"
)

type entry struct {
	id   int64
	body string
}

func (q *Queue) stream(ctx context.Context, topic int, after string, limit int, wait time.Duration) ([]entry, error) {
	pos, err := cursor(after)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = 100
	}
	var out []entry
	err = q.await(ctx, wait, func() (bool, error) {
		err := q.read(ctx, "read stream", func(t *tx) error {
			out = each(t, func(rs *sql.Rows, e *entry) error { return rs.Scan(&e.id, &e.body) },
				"SELECT id,body FROM stream WHERE topic=? AND id>? ORDER BY id LIMIT ?", topic, pos, limit)
			return nil
		})
		return len(out) > 0, err
	})
	return out, err
}

func cursor(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, &queue.Error{Code: queue.CodeInvalid, Doing: fmt.Sprintf("parse cursor %q", s), Err: err}
	}
	return n, nil
}

// Events implements [queue.Outbox].
func (q *Queue) Events(ctx context.Context, after string, limit int, wait time.Duration) ([]queue.Event, error) {
	es, err := q.stream(ctx, topicEvents, after, limit, wait)
	out := make([]queue.Event, len(es))
	for i, e := range es {
		if err := decode(e.body, &out[i]); err != nil {
			return nil, fmt.Errorf("decode event %d: %w", e.id, err)
		}
		out[i].ID = strconv.FormatInt(e.id, 10)
	}
	return out, err
}

// End implements [queue.Outbox].
func (q *Queue) End(ctx context.Context) (string, error) {
	var id string
	err := q.read(ctx, "end of stream", func(t *tx) error {
		id = t.end0()
		return nil
	})
	return id, err
}

// end0 is the newest id of the stream, also when it was trimmed to nothing.
func (t *tx) end0() string {
	var n int64
	t.get("SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name='stream'),0)")(&n)
	return strconv.FormatInt(n, 10)
}

// Cursor implements [queue.Outbox].
func (q *Queue) Cursor(ctx context.Context, consumer string) (string, error) {
	var pos string
	err := q.write(ctx, "cursor of "+consumer, func(t *tx) error {
		t.exec("INSERT OR IGNORE INTO cursors(consumer,pos) VALUES(?,?)", consumer, t.end0())
		t.get("SELECT pos FROM cursors WHERE consumer=?", consumer)(&pos)
		return nil
	})
	return pos, err
}

// Ack implements [queue.Outbox].
func (q *Queue) Ack(ctx context.Context, consumer, pos string) error {
	n, err := cursor(pos)
	if err != nil {
		return err
	}
	return q.write(ctx, "ack", func(t *tx) error {
		t.exec("INSERT INTO cursors(consumer,pos) VALUES(?,?) ON CONFLICT DO UPDATE SET pos=MAX(pos,excluded.pos)", consumer, n)
		return nil
	})
}

// Retire implements [queue.Outbox].
func (q *Queue) Retire(ctx context.Context, consumer string) error {
	return q.write(ctx, "retire "+consumer, func(t *tx) error {
		t.exec("DELETE FROM cursors WHERE consumer=?", consumer)
		return nil
	})
}

// Raise implements [queue.Alerts].
func (q *Queue) Raise(ctx context.Context, a queue.Alert) error {
	a.ID = ""
	return q.write(ctx, "raise alert", func(t *tx) error {
		t.exec("INSERT INTO stream(topic,body) VALUES(?,?)", topicAlerts, encode(a))
		t.wake = true
		if a.State == queue.Resolved {
			t.exec("DELETE FROM firing WHERE code=? AND key=?", a.Code, a.Key)
		} else {
			t.exec("INSERT OR REPLACE INTO firing(code,key,body) VALUES(?,?,?)", a.Code, a.Key, encode(a))
		}
		return nil
	})
}

// Alerts implements [queue.Alerts].
func (q *Queue) Alerts(ctx context.Context, after string, limit int, wait time.Duration) ([]queue.Alert, error) {
	es, err := q.stream(ctx, topicAlerts, after, limit, wait)
	out := make([]queue.Alert, len(es))
	for i, e := range es {
		if err := decode(e.body, &out[i]); err != nil {
			return nil, fmt.Errorf("decode alert %d: %w", e.id, err)
		}
		out[i].ID = strconv.FormatInt(e.id, 10)
	}
	return out, err
}

// FiringAlerts implements [queue.Alerts].
func (q *Queue) FiringAlerts(ctx context.Context) ([]queue.Alert, error) {
	var out []queue.Alert
	err := q.read(ctx, "firing alerts", func(t *tx) error {
		for _, s := range each(t, one[string], "SELECT body FROM firing ORDER BY code,key") {
			var a queue.Alert
			t.fail(decode(s, &a))
			out = append(out, a)
		}
		return nil
	})
	return out, err
}
