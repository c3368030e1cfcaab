package dir_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/storage"
	"dreamcad/storage/dir"
	"dreamcad/storage/storagetest"
)

func open(t *testing.T) storage.Store {
	s, err := dir.Open(dir.Config{Path: filepath.Join(t.TempDir(), "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, open, storagetest.Options{Racers: 1000})
}

// Links out of the directory must not be followed, whoever made them.
func TestSymlinksStayInside(t *testing.T) {
	base := t.TempDir()
	secret := filepath.Join(base, "secret.txt")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := dir.Open(dir.Config{Path: filepath.Join(base, "store")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Symlink(base, filepath.Join(base, "store", "out")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "out/secret.txt", 0, -1); err == nil {
		t.Error("Get followed a link out of the directory")
	}
	if err := s.Put(t.Context(), "out/new.txt", strings.NewReader("x"), 1); err == nil {
		t.Error("Put followed a link out of the directory")
	}
}

// What a crash in mid-write leaves is invisible, and listed as unfinished.
func TestUnfinishedUploads(t *testing.T) {
	base := t.TempDir()
	s, err := dir.Open(dir.Config{Path: base})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storagetest.Put(t, s, "jobs/a/l/view-0.png", "x")
	left := filepath.Join(base, "jobs/a/l/.tmp-LEFTOVER")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := storagetest.Keys(t, s, ""); !slices.Equal(got, []string{"jobs/a/l/view-0.png"}) {
		t.Errorf("List shows %q", got)
	}
	if _, err := storage.Sweep(t.Context(), s, storage.SweepConfig{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a young unfinished upload was swept: %v", err)
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	rep, err := storage.Sweep(t.Context(), s, storage.SweepConfig{})
	if err != nil || rep.Uploads != 1 {
		t.Errorf("Sweep = %+v, %v; want one upload aborted", rep, err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale upload is still there: %v", err)
	}
}

func TestFloorOfFreeSpace(t *testing.T) {
	s, err := dir.Open(dir.Config{Path: t.TempDir(), MinFree: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Put(t.Context(), "a/x.txt", strings.NewReader("x"), 1)
	if !errors.Is(err, storage.ErrFull) || !storage.Temporary(err) {
		t.Errorf("Put below the floor: %v, want ErrFull", err)
	}
	if err := s.Create(t.Context(), "a/x.txt", nil); !errors.Is(err, storage.ErrFull) {
		t.Errorf("Create below the floor: %v, want ErrFull", err)
	}
	if _, err := s.Check(t.Context()); !errors.Is(err, storage.ErrFull) {
		t.Errorf("Check below the floor: %v, want ErrFull", err)
	}
}

// A body that ends its context half way leaves nothing.
func TestCancelInMidBody(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	body := &cancelling{cancel: cancel}
	if err := s.Put(ctx, "a/x.bin", body, 1<<30); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	for u, err := range s.Uploads(t.Context(), time.Now().Add(time.Hour)) {
		t.Errorf("left %+v, %v", u, err)
	}
}

type cancelling struct {
	n      int
	cancel func()
}

func (c *cancelling) Read(p []byte) (int, error) {
	if c.n++; c.n == 3 {
		c.cancel()
	}
	return len(p), nil
}

func (c *cancelling) Seek(int64, int) (int64, error) { return 0, io.ErrNoProgress }

// Row 14: a disk that is really full. Mounting needs rights that not every machine
// gives; TestFloorOfFreeSpace covers the rest.
func TestFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Logf("no small disk to be had here: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := dir.Open(dir.Config{Path: small})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storagetest.Put(t, s, "jobs/a/l/small.txt", "small")
	big := strings.Repeat("x", 1<<20)
	if err := s.Put(t.Context(), "jobs/a/l/small.txt", strings.NewReader(big), int64(len(big))); !errors.Is(err, storage.ErrFull) {
		t.Errorf("Put on a full disk: %v, want ErrFull", err)
	}
	if err := s.Create(t.Context(), "jobs/a/result.json", []byte(big)); !errors.Is(err, storage.ErrFull) {
		t.Errorf("Create on a full disk: %v, want ErrFull", err)
	}
	if got := storagetest.Read(t, s, "jobs/a/l/small.txt"); got != "small" {
		t.Errorf("the object that was to be replaced holds %d bytes", len(got))
	}
	for u, err := range s.Uploads(t.Context(), time.Now().Add(time.Hour)) {
		t.Errorf("left %+v, %v", u, err)
	}
	storagetest.Put(t, s, "jobs/a/l/next.txt", "there is room again")
}
