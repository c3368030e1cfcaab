package links

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"dreamcad/storage"
)

const (
	redirectLife = 10 * time.Minute // of the presigned URL behind a redirect
	revokeFresh  = 10 * time.Second // how long a "not revoked" is believed
	maxCached    = 4096             // jobs whose manifest is remembered
)

// Handler answers GET and HEAD of /r/{job}/{name}. Mount it on "/r/".
type Handler struct {
	Store storage.Store
	Keys  Keys
	// Direct serves the bytes itself even where the backend could redirect; for
	// S3 servers that the outside cannot reach.
	Direct bool
	Log    *slog.Logger
	Now    func() time.Time // nil means time.Now

	mu   sync.Mutex
	jobs map[string]*cached
}

// cached is what was last known of a job. Manifests never change.
type cached struct {
	manifest *storage.Manifest // nil: none yet
	checked  time.Time         // when the job was last seen not to be revoked
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET is possible here", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	job, name, ok := splitPath(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	now := time.Now
	if h.Now != nil {
		now = h.Now
	}
	if err := h.Keys.Verify(r.URL.Path, r.URL.Query(), now()); err != nil {
		code := http.StatusForbidden
		if errors.Is(err, ErrExpired) {
			code = http.StatusGone
		}
		http.Error(w, err.Error(), code)
		return
	}
	if err := h.serve(w, r, job, name, now()); err != nil {
		h.fail(w, r, job, name, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, job, name string, now time.Time) error {
	ctx := r.Context()
	m, err := h.lookup(ctx, job, now)
	if err != nil {
		return err
	}
	var key, etag string
	if m != nil {
		f, ok := m.Find(name)
		if !ok {
			return storage.ErrNotFound
		}
		key, etag = m.FileKey(name), f.SHA256
		w.Header().Set("Cache-Control", "private, max-age=3600")
	} else {
		// Views are shown while the mesh is still in work: take them from the
		// latest attempt that has them. What a link gives may change later.
		if key, err = storage.FindUnpublished(ctx, h.Store, job, name); err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "private, no-cache")
	}
	if !h.Direct {
		url, err := h.Store.Link(ctx, key, redirectLife)
		if err == nil {
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, url, http.StatusTemporaryRedirect)
			return nil
		}
		if !errors.Is(err, storage.ErrNoLinks) {
			return err
		}
	}
	return storage.Serve(w, r, h.Store, key, name, etag)
}

var errRevoked = errors.New("this result was withdrawn")

// lookup returns the manifest of a job, nil if there is none yet, errRevoked if its
// links were withdrawn.
func (h *Handler) lookup(ctx context.Context, job string, now time.Time) (*storage.Manifest, error) {
	h.mu.Lock()
	c := h.jobs[job]
	h.mu.Unlock()
	if c != nil && c.manifest != nil && now.Sub(c.checked) < revokeFresh {
		return c.manifest, nil
	}
	gone, err := storage.Revoked(ctx, h.Store, job)
	if err != nil {
		return nil, err
	}
	if gone {
		h.remember(job, nil)
		return nil, errRevoked
	}
	var m *storage.Manifest
	if c != nil {
		m = c.manifest
	}
	if m == nil {
		if m, err = storage.ReadManifest(ctx, h.Store, job); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
	}
	if m != nil {
		h.remember(job, &cached{manifest: m, checked: now})
	}
	return m, nil
}

func (h *Handler) remember(job string, c *cached) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c == nil {
		delete(h.jobs, job)
		return
	}
	if len(h.jobs) >= maxCached {
		clear(h.jobs)
	}
	if h.jobs == nil {
		h.jobs = map[string]*cached{}
	}
	h.jobs[job] = c
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, job, name string, err error) {
	for _, k := range []string{"Content-Type", "Content-Disposition", "Content-Security-Policy", "ETag", "Cache-Control"} {
		w.Header().Del(k)
	}
	switch {
	case errors.Is(err, errRevoked):
		http.Error(w, err.Error(), http.StatusGone)
	case errors.Is(err, storage.ErrNotFound):
		http.Error(w, "there is no such file; results are deleted after their time", http.StatusNotFound)
	case errors.Is(err, context.Canceled):
	default:
		if h.Log != nil { // path only: the query is a secret
			h.Log.Error("serving a result file failed", "job", job, "file", name, "err", err)
		}
		w.Header().Set("Retry-After", "5")
		http.Error(w, "the storage does not answer; please try again", http.StatusServiceUnavailable)
	}
}

// splitPath takes /r/<job>/<name> apart.
func splitPath(p string) (job, name string, ok bool) {
	rest, ok := strings.CutPrefix(p, "/r/")
	if !ok {
		return "", "", false
	}
	job, name, ok = strings.Cut(rest, "/")
	return job, name, ok && storage.ValidName(job) && storage.ValidName(name)
}
