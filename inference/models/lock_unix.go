//go:build unix

package models

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lock keeps other processes from changing a model. It ends with the process,
// so that a crash leaves nothing locked.
func (s *Store) lock(name string) (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(s.Dir, lockPrefix+name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		if pid, err := os.ReadFile(path); err == nil && len(pid) > 0 {
			return nil, fmt.Errorf("process %s is changing this model at the moment", strings.TrimSpace(string(pid)))
		}
		return nil, errors.New("another process is changing this model at the moment")
	}
	// The file stays: removing it would let two processes lock two files of
	// the same name.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return func() { _ = f.Truncate(0); _ = f.Close() }, nil
}

// freeBytes is the room on the file system of a folder; false when unknown.
func freeBytes(dir string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail * uint64(st.Bsize)), true
}
