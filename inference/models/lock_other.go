//go:build !unix

package models

import (
	"fmt"
	"os"
	"path/filepath"
)

// lock keeps other processes from changing a model. Without advisory locks a
// crash leaves the file behind; the error names it.
func (s *Store) lock(name string) (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(s.Dir, lockPrefix+name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("another process is changing this model, or crashed and left %q: %w", path, err)
	}
	return func() { _ = f.Close(); _ = os.Remove(path) }, nil
}

// freeBytes is the room on the file system of a folder; false when unknown.
func freeBytes(string) (int64, bool) { return 0, false }
