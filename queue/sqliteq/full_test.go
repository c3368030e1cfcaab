package sqliteq_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/sqliteq"
)

// Row 14: the disk below the database is full. Requests are refused with a
// sentence, nothing that was accepted is gone, and with room it goes on by itself.
func TestRow14FullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no small disk to be had here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	cfg := queuetest.Config()
	q, err := sqliteq.Open(t.Context(), filepath.Join(dir, "queue.db"), cfg, sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 22<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := 0; err == nil && i < 20_000; i++ {
		var rc queue.Receipt
		if rc, err = q.Submit(t.Context(), queuetest.Request("a", fmt.Sprint("thing ", i))); err == nil {
			ids = append(ids, rc.ID)
		}
	}
	if queue.CodeOf(err) != queue.CodeFull || queue.SentenceOf(err) == "" || len(ids) < 10 {
		t.Fatalf("after %d requests on a full disk: %v, want %q with a sentence", len(ids), err, queue.CodeFull)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	rc, err := q.Submit(t.Context(), queuetest.Request("a", "again"))
	if err != nil {
		t.Fatalf("with room again: %v", err)
	}
	for ids = append(ids, rc.ID); ; {
		l, err := q.Lease(t.Context(), queuetest.Caps("w"))
		if queue.CodeOf(err) == queue.CodeEmpty {
			break
		}
		if err == nil {
			err = q.Complete(t.Context(), l.Ref(), queue.Result{Winner: l.ID})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	(&queuetest.Ledger{T: t, Q: q, Want: ids}).Check(t.Context(), 0)
}
