package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"dreamcad/queue"
	"dreamcad/storage"
)

// spoolKeep is how long results that could not be published, and checkpoints of
// jobs that went elsewhere, stay on the local disk.
const spoolKeep = 7 * 24 * time.Hour

// spool is the worker's folder on the local disk.
type spool struct {
	base string // shared by the workers of this host
	dir  string // this worker's
	lock *os.File
}

func openSpool(base, name string) (*spool, error) {
	folder := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, name)
	s := &spool{base: base, dir: filepath.Join(base, folder)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another worker named %q uses %q: give this one another name", name, base)
	}
	s.lock = f
	return s, nil
}

func (s *spool) close() { s.lock.Close() }

// free returns the free bytes of the disk.
func (s *spool) free() (uint64, error) {
	u, err := disk.Usage(s.dir)
	if err != nil {
		return 0, err
	}
	return u.Free, nil
}

// boxes lists the folders of a job, of all workers of this host, own one first.
func (s *spool) boxes(job string) []string {
	own := filepath.Join(s.dir, job)
	out := []string{own}
	found, _ := filepath.Glob(filepath.Join(s.base, "*", job)) // the pattern is valid: job ids hold no special characters
	for _, b := range found {
		if b != own {
			out = append(out, b)
		}
	}
	return out
}

// finished returns a result of the job that was made on this host and not
// published: its manifest and the folder of its files.
func (s *spool) finished(job string) (*storage.Manifest, string) {
	for _, box := range s.boxes(job) {
		drafts, _ := filepath.Glob(filepath.Join(box, "*.json"))
		for _, d := range drafts {
			data, err := os.ReadFile(d)
			if err != nil {
				continue
			}
			m := &storage.Manifest{}
			if json.Unmarshal(data, m) != nil || m.Validate() != nil || m.Job != job {
				continue
			}
			dir := strings.TrimSuffix(d, ".json")
			whole := true
			for _, f := range m.Files {
				got, err := storage.DescribeFile(f.Role, f.Name, filepath.Join(dir, f.Name))
				whole = whole && err == nil && got.SHA256 == f.SHA256
			}
			if whole {
				return m, dir
			}
		}
	}
	return nil, ""
}

// keepDraft writes the manifest of a finished result beside its files, after
// making those durable.
func keepDraft(m *storage.Manifest, dir string) error {
	for _, f := range m.Files {
		if err := syncPath(filepath.Join(dir, f.Name)); err != nil {
			return fmt.Errorf("keeping result of job %q: %w", m.Job, err)
		}
	}
	if err := syncPath(dir); err != nil {
		return fmt.Errorf("keeping result of job %q: %w", m.Job, err)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("keeping result of job %q: %w", m.Job, err)
	}
	return writeFile(dir+".json", func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// writeFile writes a file that is there whole or not at all, and lasts.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return syncPath(filepath.Dir(path))
}

// tidy removes what earlier runs left of jobs that are over.
func (s *spool) tidy(ctx context.Context, q Jobs, log *slog.Logger) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		log.Warn("looking through the worker's folder failed", "err", err)
		return
	}
	for _, e := range entries {
		if !e.IsDir() || ctx.Err() != nil {
			continue
		}
		job, err := q.Job(ctx, e.Name())
		fi, ferr := e.Info()
		old := ferr == nil && time.Since(fi.ModTime()) > spoolKeep
		over := err == nil && (job.Status == queue.Done || job.Status == queue.Cancelled)
		gone := errors.Is(err, queue.ErrNotFound) && old
		if over || gone || err == nil && job.Status.Terminal() && old {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				log.Warn("clearing the worker's folder failed", "err", err)
			}
		}
	}
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, storage.ErrFull)
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
