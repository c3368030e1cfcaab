// Package storage keeps what jobs publish: files under a job's key, one manifest
// that names the attempt whose files count, and checkpoints.
//
// Two backends fulfil [Store]: package s3 (any S3 server that knows conditional
// PUT) and package dir (a directory, for one host). Package storagetest holds the
// suite that both must pass. Nothing here knows the queue or the networks.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Kinds of failure. Backends return an *Error that matches one of them with
// errors.Is; anything that matches none is permanent and unknown.
var (
	// ErrNotFound: no object has that key.
	ErrNotFound = errors.New("no such object")
	// ErrExists: Create found an object under that key.
	ErrExists = errors.New("object exists already")
	// ErrFull: the disk, the quota or the configured floor of free space is
	// reached. Nothing was stored. Work that needs storage should pause.
	ErrFull = errors.New("storage is full")
	// ErrForbidden: the server refuses these credentials (or its clock and ours
	// differ too much for signatures to hold).
	ErrForbidden = errors.New("access denied")
	// ErrUnavailable: the server is away, slow or failing; later may be better.
	ErrUnavailable = errors.New("storage is unavailable")
	// ErrInvalidKey: the key breaks the rules of CheckKey.
	ErrInvalidKey = errors.New("invalid key")
	// ErrNoLinks: this backend cannot give a URL that works without us.
	ErrNoLinks = errors.New("this storage cannot sign public links")
)

// Error says which operation on which key failed, and how.
type Error struct {
	Op   string // "put", "get", …
	Key  string // key or prefix; may be empty
	Kind error  // one of the Err… above, or nil
	Err  error  // the cause
}

func (e *Error) Error() string {
	s := e.Op
	if e.Key != "" {
		s = fmt.Sprintf("%s %q", e.Op, e.Key)
	}
	if e.Kind != nil && e.Kind != e.Err {
		s += ": " + e.Kind.Error()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the kind and the cause to errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	var out []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// Temporary tells whether trying again later can help without anybody's doing:
// the server was unavailable or full.
func Temporary(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrFull)
}

// Info describes a stored object.
type Info struct {
	Key      string
	Size     int64 // bytes
	Modified time.Time
	ETag     string // without quotes; changes whenever the content does
}

// Features says what a backend was found to support when it was checked.
type Features struct {
	Backend     string // one line for people: kind and place, without secrets
	Conditional bool   // Create really refuses a second writer
	Links       bool   // Link works
	FreeBytes   int64  // room left; -1 unknown
}

// Upload is an upload that was begun and not finished.
type Upload struct {
	Key     string
	ID      string
	Started time.Time
}

// Store keeps objects under keys (see CheckKey). All methods are safe for
// concurrent use, wait no longer than their context allows and return an *Error.
//
// A reader sees an object whole or not at all: nothing shows before Put or Create
// has got every byte and made it durable. Media type and file name of a download
// follow from the key alone (MediaType, Disposition), so that no text of a user
// ever chooses them.
type Store interface {
	// Put stores size bytes of body, replacing what was there. The body is read
	// from its current offset and may be read again from there after a failure.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error

	// Create stores data if the key is free, else returns ErrExists. Of several
	// racing callers exactly one succeeds. After an error of another kind the
	// object may or may not exist: read it to know.
	Create(ctx context.Context, key string, data []byte) error

	// Get reads n bytes from off; n < 0 reads to the end. A range that reaches
	// past the end is cut; off past the end gives an empty reader or an error.
	// The caller closes the reader. A broken connection shows as an error of
	// Read, never as a short object.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// Stat describes one object.
	Stat(ctx context.Context, key string) (Info, error)

	// List yields the objects below prefix (empty, or ending in "/") in the
	// order of their keys. It stops at the first error, which comes last.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes objects. Keys that do not exist are no error.
	Delete(ctx context.Context, keys ...string) error

	// Link returns a URL that anyone can GET for the given time (at most 7
	// days), or ErrNoLinks. It is a bearer secret: keep it out of logs.
	Link(ctx context.Context, key string, life time.Duration) (string, error)

	// Uploads yields uploads that were begun before the given time and never
	// finished; Abort removes one.
	Uploads(ctx context.Context, before time.Time) iter.Seq2[Upload, error]
	Abort(ctx context.Context, u Upload) error

	// Check writes, reads, creates twice, links and deletes below "probe/" and
	// reports what works. An error says in one sentence what does not.
	Check(ctx context.Context) (Features, error)
}

// MaxLinkLife is the longest life of a link that S3 servers accept.
const MaxLinkLife = 7 * 24 * time.Hour

// ReadAll returns the whole object, refusing one of more than limit bytes.
func ReadAll(ctx context.Context, s Store, key string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", key, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("reading %q: larger than %d bytes", key, limit)
	}
	return data, nil
}

// DeletePrefix removes every object below prefix and returns how many went.
func DeletePrefix(ctx context.Context, s Store, prefix string) (int, error) {
	n := 0
	var batch []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.Delete(ctx, batch...)
		if err == nil {
			n += len(batch)
		}
		batch = batch[:0]
		return err
	}
	for info, err := range s.List(ctx, prefix) {
		if err != nil {
			return n, err
		}
		if batch = append(batch, info.Key); len(batch) == 1000 {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}
