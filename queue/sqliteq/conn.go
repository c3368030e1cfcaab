package sqliteq

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
)

// pool holds the connections of one way to open the file. Who waits for one is
// served in turn, which SQLite's own busy handler does not do.
type pool struct {
	db     *sql.DB
	idle   chan *conn
	closed chan struct{}
}

// conn is a connection with the statements that ran on it, compiled: compiling
// most of ours takes longer than running them. There are only as many as the
// program's text holds.
type conn struct {
	*sql.Conn // nil: not opened yet
	compiled  map[string]*sql.Stmt
}

func openPool(dsn string, size int) (*pool, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	p := &pool{db: db, idle: make(chan *conn, size), closed: make(chan struct{})}
	for range size {
		p.idle <- &conn{}
	}
	return p, nil
}

// take waits for a connection; the caller gives it back.
func (p *pool) take(ctx context.Context) (*conn, error) {
	select {
	case <-p.closed:
		return nil, sql.ErrConnDone
	default:
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, sql.ErrConnDone
	case c := <-p.idle:
		if c.Conn != nil {
			return c, nil
		}
		var err error
		if c.Conn, err = p.db.Conn(ctx); err != nil {
			p.give(c)
			return nil, err
		}
		c.compiled = map[string]*sql.Stmt{}
		return c, nil
	}
}

func (p *pool) give(c *conn) { p.idle <- c }

// close waits for what runs.
func (p *pool) close() error {
	select {
	case <-p.closed:
		return nil
	default:
	}
	close(p.closed)
	var err error
	for range cap(p.idle) {
		err = errors.Join(err, (<-p.idle).shut(false))
	}
	return errors.Join(err, p.db.Close())
}

// shut closes the connection; a broken one is thrown away.
func (c *conn) shut(broken bool) error {
	if c.Conn == nil {
		return nil
	}
	var err error
	for _, s := range c.compiled {
		err = errors.Join(err, s.Close())
	}
	if broken {
		_ = c.Raw(func(any) error { return driver.ErrBadConn }) // which closes it
	} else {
		err = errors.Join(err, c.Conn.Close())
	}
	c.Conn, c.compiled = nil, nil
	return err
}

// stmt is the query, compiled.
func (c *conn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if c.Conn == nil { // thrown away within this transaction
		return nil, sql.ErrConnDone
	}
	s := c.compiled[query]
	if s == nil {
		var err error
		if s, err = c.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		c.compiled[query] = s
	}
	return s, nil
}

// run executes a statement without arguments or rows.
func (c *conn) run(ctx context.Context, query string) error {
	s, err := c.stmt(ctx, query) //nolint:sqlclosecheck // the connection keeps it
	if err == nil {
		_, err = s.ExecContext(ctx)
	}
	return err
}

// rollback ends a transaction that failed; it may have ended by itself, or
// never begun. A connection that cannot is closed and opened anew.
func (c *conn) rollback() {
	if err := c.run(context.Background(), "ROLLBACK"); err != nil && !strings.Contains(err.Error(), "no transaction is active") {
		_ = c.shut(true) // what led here is told
	}
}
