package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
)

// Serve answers a GET or HEAD with the object, its ranges and conditions (If-Range,
// If-None-Match). name decides media type and file name; etag, when not empty,
// replaces the backend's. The headers keep a browser from running what it gets.
func Serve(w http.ResponseWriter, r *http.Request, s Store, key, name, etag string) error {
	info, err := s.Stat(r.Context(), key)
	if err != nil {
		return err
	}
	if etag == "" {
		etag = info.ETag
	}
	h := w.Header()
	h.Set("Content-Type", MediaType(name))
	h.Set("Content-Disposition", Disposition(path.Base(name)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("ETag", `"`+etag+`"`)
	body := &reader{ctx: r.Context(), store: s, key: key, size: info.Size}
	defer body.Close()
	http.ServeContent(w, r, "", info.Modified, body)
	return nil
}

// reader reads a stored object with seeking, opening a range when bytes are asked
// for. It is for one goroutine.
type reader struct {
	ctx   context.Context
	store Store
	key   string
	size  int64
	off   int64
	body  io.ReadCloser
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.off >= r.size {
		return 0, io.EOF
	}
	if r.body == nil {
		body, err := r.store.Get(r.ctx, r.key, r.off, -1)
		if err != nil {
			return 0, err
		}
		r.body = body
	}
	n, err := r.body.Read(p)
	r.off += int64(n)
	if errors.Is(err, io.EOF) && r.off < r.size {
		err = fmt.Errorf("reading %q: %w", r.key, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seeking in %q: negative offset", r.key)
	}
	if offset != r.off {
		r.Close()
		r.off = offset
	}
	return offset, nil
}

// Close ends a range that is being read.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
