// Package sqliteq keeps the queue in one SQLite file: the default without
// Redis. Processes of one host may share the file; it must not lie on a
// network file system.
package sqliteq

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"dreamcad/queue"
)

// Queue is the SQLite backend; it fulfils [queue.Queue].
type Queue struct {
	cfg   queue.Config
	path  string
	clock func() time.Time
	w, r  *pool // one connection for writing: SQLite has one writer anyway

	mu   sync.Mutex
	wake chan struct{} // closed and replaced at each change that someone may wait for
	line []*submission // in the order in which they came
}

var _ queue.Queue = (*Queue)(nil)

// Options are for tests.
type Options struct {
	// Clock replaces the host's clock.
	Clock func() time.Time
	// NoSync gives up durability against power cuts for speed.
	NoSync bool
}

// pollEvery is how often waiting callers look for changes of other processes.
const pollEvery = 200 * time.Millisecond

// Path takes the file out of a URL sqlite:///PATH.
func Path(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "sqlite" {
		return "", fmt.Errorf("queue URL %q: want sqlite:///PATH", rawURL)
	}
	p := u.Path
	if u.Host != "" { // sqlite://relative/path
		p = u.Host + p
	}
	if p == "" || p == "/" {
		return "", fmt.Errorf("queue URL %q names no file", rawURL)
	}
	return p, nil
}

// Open opens or creates the file and brings its schema up to date. A file of
// a newer schema is refused with [queue.CodeVersion].
func Open(ctx context.Context, path string, cfg queue.Config, o Options) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open queue %q: %w", path, err)
	}
	q := &Queue{cfg: cfg, path: path, clock: o.Clock, wake: make(chan struct{})}
	if q.clock == nil {
		q.clock = time.Now
	}
	sync := "FULL"
	if o.NoSync {
		sync = "OFF"
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_pragma=synchronous(" + sync + ")"
	var err error
	if q.w, err = openPool(dsn, 1); err != nil {
		return nil, fmt.Errorf("open queue %q: %w", path, err)
	}
	if q.r, err = openPool(dsn+"&_pragma=query_only(1)", 4); err != nil {
		return nil, errors.Join(fmt.Errorf("open queue %q: %w", path, err), q.w.close())
	}
	if err := q.migrate(ctx); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// Close closes the file, once what runs is done.
func (q *Queue) Close() error { return errors.Join(q.w.close(), q.r.close()) }

func (q *Queue) migrate(ctx context.Context) error {
	return q.write(ctx, "migrate queue", func(t *tx) error {
		var v int
		t.get("PRAGMA user_version")(&v)
		if t.err != nil {
			return t.err
		}
		if v > schemaVersion {
			return &queue.Error{Code: queue.CodeVersion, Doing: "open queue " + q.path,
				Sentence: fmt.Sprintf("This queue file has schema %d, newer than the %d that this program knows: update the program.", v, schemaVersion)}
		}
		for ; v < schemaVersion; v++ {
			t.exec(migrations[v])
			t.exec(fmt.Sprintf("PRAGMA user_version=%d", v+1))
		}
		return t.err
	})
}

// tx is a transaction that keeps its first error, so that code reads top down.
// When ctx ends it fails at the next statement.
type tx struct {
	*conn
	ctx  context.Context
	q    *Queue
	now  int64 // ms
	err  error
	wake bool
}

// fail keeps the first error.
func (t *tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// stmt compiles a query to be run in the given context, which does not end:
// statements are short, and watching for an end takes longer than most.
func (t *tx) stmt(query string) (*sql.Stmt, context.Context, error) {
	if t.err != nil {
		return nil, nil, t.err
	}
	if err := t.ctx.Err(); err != nil {
		return nil, nil, err
	}
	ctx := context.WithoutCancel(t.ctx)
	s, err := t.conn.stmt(ctx, query)
	return s, ctx, err
}

func (t *tx) exec(query string, args ...any) int64 {
	s, ctx, err := t.stmt(query) //nolint:sqlclosecheck // the connection keeps it
	if err != nil {
		t.fail(err)
		return 0
	}
	r, err := s.ExecContext(ctx, args...)
	if err != nil {
		t.fail(err)
		return 0
	}
	n, _ := r.RowsAffected()
	return n
}

// get scans the first row; the answer is false if there is none.
func (t *tx) get(query string, args ...any) func(dst ...any) bool {
	return func(dst ...any) bool {
		s, ctx, err := t.stmt(query) //nolint:sqlclosecheck // the connection keeps it
		if err == nil {
			err = s.QueryRowContext(ctx, args...).Scan(dst...)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.fail(err)
		}
		return err == nil
	}
}

// each returns all rows, so that what is done for each may query.
func each[T any](t *tx, scan func(*sql.Rows, *T) error, query string, args ...any) []T {
	out, err := rows(t, scan, query, args...)
	if err != nil {
		t.fail(err)
		return nil
	}
	return out
}

func rows[T any](t *tx, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	s, ctx, err := t.stmt(query) //nolint:sqlclosecheck // the connection keeps it
	if err != nil {
		return nil, err
	}
	rs, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	var out []T
	for rs.Next() {
		var v T
		if err := scan(rs, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rs.Err()
}

func one[T any](rs *sql.Rows, v *T) error { return rs.Scan(v) }

func (q *Queue) now() int64 { return q.clock().UnixMilli() }

// write runs f in an immediate transaction.
func (q *Queue) write(ctx context.Context, doing string, f func(*tx) error) error {
	c, err := q.w.take(ctx)
	if err != nil {
		return wrap(doing, err)
	}
	defer q.w.give(c)
	return q.transact(c, ctx, ctx, doing, f)
}

// transact runs f in a transaction on the writing connection. Beginning it, which
// waits for other processes, ends with begin; its statements with ctx.
func (q *Queue) transact(c *conn, begin, ctx context.Context, doing string, f func(*tx) error) error {
	t := &tx{conn: c, ctx: ctx, q: q}
	err := c.run(begin, "BEGIN IMMEDIATE")
	if err == nil {
		t.now = q.now()
		err = f(t)
	}
	if err == nil {
		err = t.err
	}
	if err == nil {
		err = c.run(context.WithoutCancel(ctx), "COMMIT")
	}
	if err != nil {
		c.rollback()
		return wrap(doing, err)
	}
	if t.wake {
		q.notify()
	}
	return nil
}

// read runs f in a read transaction: one consistent picture.
func (q *Queue) read(ctx context.Context, doing string, f func(*tx) error) error {
	c, err := q.r.take(ctx)
	if err != nil {
		return wrap(doing, err)
	}
	defer q.r.give(c)
	defer c.rollback()
	t := &tx{conn: c, ctx: ctx, q: q, now: q.now()}
	err = c.run(ctx, "BEGIN")
	if err == nil {
		err = f(t)
	}
	if err == nil {
		err = t.err
	}
	return wrap(doing, err)
}

// wrap turns driver errors into the contract's; errors with a code pass.
func wrap(doing string, err error) error {
	if err == nil || queue.CodeOf(err) != "" {
		return err
	}
	if se, ok := errors.AsType[*sqlite.Error](err); ok && se.Code()&0xff == sqlite3.SQLITE_FULL || strings.Contains(err.Error(), "no space left") {
		return &queue.Error{Code: queue.CodeFull, Doing: doing, Err: err, Sentence: "The disk of the queue is full, so this was not accepted; the operators have to make room."}
	}
	return queue.Unavailable(doing, err)
}

func (q *Queue) notify() {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.wake)
	q.wake = make(chan struct{})
}

// waiter returns a channel that is closed at the next change in this process.
func (q *Queue) waiter() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wake
}

// await repeats f until it says done, the wait is over, or ctx ends. Changes
// of this process are seen at once, those of others within pollEvery.
func (q *Queue) await(ctx context.Context, wait time.Duration, f func() (bool, error)) error {
	end := time.Now().Add(wait)
	for {
		ch := q.waiter()
		if done, err := f(); done || err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		tm := time.NewTimer(min(left, pollEvery))
		select {
		case <-ctx.Done():
			tm.Stop()
			return ctx.Err()
		case <-ch:
		case <-tm.C:
		}
		tm.Stop()
	}
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
