package supervise

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
)

// Child is what a supervised process knows of it.
type Child struct {
	// Mark is the word that the parent chose.
	Mark string
	// Log takes what the parent is to find after a death. It must be free of secrets.
	Log io.Writer

	tail *tail
}

// LastLog is the end of what was written to Log, at most MaxLog bytes that begin with
// a line: for what this process can tell itself.
func (c *Child) LastLog() string { return c.tail.last() }

// Attach makes this process the child that its parent's [Run] meant it to be; nil:
// it has no such parent. From then on it ends at once, as by kill -9, when the parent
// is gone. Processes that it starts do not take themselves for children.
func Attach() (*Child, error) {
	mark := os.Getenv(variable)
	if mark == "" {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	leash, log, report := os.NewFile(3, "leash"), os.NewFile(4, "log"), os.NewFile(5, "report")
	if err := debug.SetCrashOutput(report, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("attach to the supervising process: %w", err)
	}
	info, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("attach to the supervising process: %w", err)
	}
	go func() {
		_, _ = leash.Read(make([]byte, 1)) // nobody writes: it returns when the parent is gone
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		// Not collected before: an exec of the same process finds them open.
		runtime.KeepAlive([]*os.File{log, report})
	}()
	t := &tail{f: log, size: info.Size()}
	return &Child{Mark: mark, Log: t, tail: t}, nil
}

// Environment is what the same process needs to attach again after an exec.
func (c *Child) Environment() string { return variable + "=" + c.Mark }

// tail writes to a file of which it keeps the end.
type tail struct {
	mu   sync.Mutex
	f    *os.File
	size int64
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return ending(read(t.f, max(t.size-2*MaxLog, 0), 2*MaxLog))
}

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size+int64(len(p)) > 16*MaxLog && t.size > 2*MaxLog {
		last := read(t.f, t.size-2*MaxLog, 2*MaxLog)
		if _, err := t.f.WriteAt([]byte(last), 0); err != nil {
			return 0, err
		}
		t.size = int64(len(last))
		if err := t.f.Truncate(t.size); err != nil {
			return 0, err
		}
	}
	n, err := t.f.WriteAt(p, t.size)
	t.size += int64(n)
	return n, err
}
