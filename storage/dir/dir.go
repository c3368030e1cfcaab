// Package dir keeps objects as files below one directory: the storage of a host
// that has no S3 server. A file's path is its key, so people may look inside with
// any tool. Files appear by rename or link after fsync; names are confined to the
// directory by os.Root.
package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"dreamcad/storage"
)

// tempPrefix marks files that are being written. Keys cannot begin with a dot.
const tempPrefix = ".tmp-"

// Config says where and how much.
type Config struct {
	// Path is the directory; it is made when missing.
	Path string
	// MinFree is the free space in bytes below which nothing more is stored.
	MinFree uint64
}

// Store is a storage.Store in a directory. Several processes of one host may
// share it; network file systems are not supported.
type Store struct {
	root    *os.Root
	path    string
	minFree uint64
}

var _ storage.Store = (*Store)(nil)

// Open makes or opens the directory.
func Open(cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("opening storage directory: no path given")
	}
	if err := os.MkdirAll(cfg.Path, 0o755); err != nil {
		return nil, fmt.Errorf("opening storage directory: %w", err)
	}
	root, err := os.OpenRoot(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("opening storage directory: %w", err)
	}
	return &Store{root: root, path: cfg.Path, minFree: cfg.MinFree}, nil
}

// Close releases the directory.
func (s *Store) Close() error { return s.root.Close() }

// fail wraps err with its kind.
func fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	var kind error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = storage.ErrNotFound
	case errors.Is(err, fs.ErrExist):
		kind = storage.ErrExists
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind = storage.ErrFull
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		kind = storage.ErrForbidden
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		kind = storage.ErrUnavailable
	}
	return &storage.Error{Op: op, Key: key, Kind: kind, Err: err}
}

func (s *Store) checkSpace(op, key string, size int64) error {
	if s.minFree == 0 {
		return nil
	}
	// Where the free space cannot be read, the write itself will tell.
	if free, err := s.free(); err == nil && free < s.minFree+uint64(max(size, 0)) {
		return &storage.Error{Op: op, Key: key, Kind: storage.ErrFull,
			Err: fmt.Errorf("%d MB free in %q, at least %d MB must stay free", free>>20, s.path, s.minFree>>20)}
	}
	return nil
}

func (s *Store) free() (uint64, error) {
	u, err := disk.Usage(s.path)
	if err != nil {
		return 0, err
	}
	return u.Free, nil
}

// Put implements storage.Store.
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	const op = "put"
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	if err := s.checkSpace(op, key, size); err != nil {
		return err
	}
	return s.write(ctx, op, key, body, size, s.root.Rename)
}

// Create implements storage.Store: a hard link never replaces a file.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	const op = "create"
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	if _, err := s.root.Lstat(key); err == nil {
		return fail(op, key, fs.ErrExist)
	}
	if err := s.checkSpace(op, key, int64(len(data))); err != nil {
		return err
	}
	return s.write(ctx, op, key, strings.NewReader(string(data)), int64(len(data)), func(tmp, name string) error {
		err := s.root.Link(tmp, name)
		if err == nil {
			_ = s.root.Remove(tmp) // a leftover is swept as a stale upload
		}
		return err
	})
}

// write stores body in a temporary file beside key and moves it there.
func (s *Store) write(ctx context.Context, op, key string, body io.Reader, size int64, move func(tmp, name string) error) error {
	folder := path.Dir(key)
	tmp := path.Join(folder, tempPrefix+rand.Text())
	var f *os.File
	var err error
	// A concurrent Delete may remove the folder as empty between the two calls.
	for range 100 {
		if err = s.mkdirs(folder); err == nil {
			f, err = s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fail(op, key, err)
	}
	n, err := io.Copy(f, io.LimitReader(reader{ctx, body}, size))
	if err == nil && n != size {
		err = fmt.Errorf("body does not hold the announced %d bytes", size)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = move(tmp, key)
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		return fail(op, key, err)
	}
	return fail(op, key, s.sync(folder))
}

// mkdirs makes folder and makes its entry durable.
func (s *Store) mkdirs(folder string) error {
	if _, err := s.root.Stat(folder); err == nil {
		return nil
	}
	if err := s.root.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for d := folder; d != "."; {
		d = path.Dir(d)
		if err := s.sync(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) sync(folder string) error {
	d, err := s.root.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	const op = "get"
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	f, err := s.root.Open(key)
	if err != nil {
		return nil, fail(op, key, err)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, fail(op, key, errors.Join(fs.ErrNotExist, err))
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		f.Close()
		return nil, fail(op, key, err)
	}
	var r io.Reader = reader{ctx, f}
	if n >= 0 {
		r = io.LimitReader(r, n)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}

// Stat implements storage.Store.
func (s *Store) Stat(_ context.Context, key string) (storage.Info, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Info{}, err
	}
	fi, err := s.root.Stat(key)
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return storage.Info{}, fail("stat", key, err)
	}
	return info(key, fi), nil
}

func info(key string, fi fs.FileInfo) storage.Info {
	return storage.Info{Key: key, Size: fi.Size(), Modified: fi.ModTime(),
		ETag: fmt.Sprintf("%x-%x", fi.ModTime().UnixNano(), fi.Size())}
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Info{}, err)
			return
		}
		s.walk(ctx, strings.TrimSuffix(prefix, "/"), func(name string, fi fs.FileInfo) bool {
			if strings.HasPrefix(path.Base(name), ".") {
				return true
			}
			return yield(info(name, fi), nil)
		}, func(err error) { yield(storage.Info{}, fail("list", prefix, err)) })
	}
}

// walk visits the regular files below folder in the order of their keys until
// visit returns false. Files that vanish meanwhile are passed over.
func (s *Store) walk(ctx context.Context, folder string, visit func(string, fs.FileInfo) bool, failed func(error)) bool {
	if err := ctx.Err(); err != nil {
		failed(err)
		return false
	}
	entries, err := s.readDir(folder)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return true
		}
		failed(err)
		return false
	}
	// "a/x" sorts after "a.b" but before "a0": compare folders with their slash.
	slash := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	sort.Slice(entries, func(i, j int) bool { return slash(entries[i]) < slash(entries[j]) })
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		if e.IsDir() {
			if !s.walk(ctx, name, visit, failed) {
				return false
			}
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			continue
		}
		if err != nil {
			failed(err)
			return false
		}
		if !visit(name, fi) {
			return false
		}
	}
	return true
}

func (s *Store) readDir(folder string) ([]fs.DirEntry, error) {
	if folder == "" {
		folder = "."
	}
	d, err := s.root.Open(folder)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

// Delete implements storage.Store. Folders that become empty go too.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := storage.CheckKey(key); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fail("delete", key, err)
		}
		if fi, err := s.root.Stat(key); err != nil || fi.IsDir() {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return fail("delete", key, err)
		}
		if err := s.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail("delete", key, err)
		}
		for d := path.Dir(key); d != "."; d = path.Dir(d) {
			if s.root.Remove(d) != nil { // not empty, most often
				break
			}
		}
	}
	return nil
}

// Link implements storage.Store: a directory has no URL of its own.
func (s *Store) Link(_ context.Context, key string, _ time.Duration) (string, error) {
	return "", &storage.Error{Op: "link", Key: key, Kind: storage.ErrNoLinks}
}

// Uploads implements storage.Store: temporary files that a crash left behind.
func (s *Store) Uploads(ctx context.Context, before time.Time) iter.Seq2[storage.Upload, error] {
	return func(yield func(storage.Upload, error) bool) {
		s.walk(ctx, "", func(name string, fi fs.FileInfo) bool {
			if !strings.HasPrefix(path.Base(name), tempPrefix) || !fi.ModTime().Before(before) {
				return true
			}
			return yield(storage.Upload{Key: name, ID: path.Base(name), Started: fi.ModTime()}, nil)
		}, func(err error) { yield(storage.Upload{}, fail("list uploads", "", err)) })
	}
}

// Abort implements storage.Store.
func (s *Store) Abort(_ context.Context, u storage.Upload) error {
	if !strings.HasPrefix(path.Base(u.Key), tempPrefix) {
		return &storage.Error{Op: "abort", Key: u.Key, Kind: storage.ErrInvalidKey}
	}
	if err := s.root.Remove(u.Key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail("abort", u.Key, err)
	}
	return nil
}

// Check implements storage.Store.
func (s *Store) Check(ctx context.Context) (storage.Features, error) {
	feat := storage.Features{Backend: "directory " + s.path, FreeBytes: -1}
	if free, err := s.free(); err == nil {
		feat.FreeBytes = int64(free)
	}
	cond, err := storage.Probe(ctx, s)
	feat.Conditional = cond
	return feat, err
}

// reader ends a copy when the context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
