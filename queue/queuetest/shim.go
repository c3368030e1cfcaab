package queuetest

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shimSource is loaded into a server with LD_PRELOAD. It moves the wall clock
// and delays fdatasync by the milliseconds that stand in a file.
const shimSource = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long long none[2], *ms = none; /* clock, sync */
__attribute__((constructor)) static void start(void) {
  const char *f = getenv("DREAM_SHIM");
  int fd = f ? open(f, O_RDONLY) : -1;
  if (fd < 0) return;
  void *p = mmap(0, 16, PROT_READ, MAP_SHARED, fd, 0);
  if (p != MAP_FAILED) ms = p;
  close(fd);
}
int clock_gettime(clockid_t c, struct timespec *ts) {
  int r = syscall(SYS_clock_gettime, c, ts);
  if (r == 0 && (c == CLOCK_REALTIME || c == CLOCK_REALTIME_COARSE)) {
    long long ns = ts->tv_nsec + ms[0] % 1000 * 1000000;
    ts->tv_sec += ms[0] / 1000;
    if (ns < 0) ns += 1000000000, ts->tv_sec--;
    if (ns >= 1000000000) ns -= 1000000000, ts->tv_sec++;
    ts->tv_nsec = ns;
  }
  return r;
}
int gettimeofday(struct timeval *tv, void *tz) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  tv->tv_sec = ts.tv_sec, tv->tv_usec = ts.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  if (t) *t = ts.tv_sec;
  return ts.tv_sec;
}
int fdatasync(int fd) {
  if (ms[1] > 0) usleep(ms[1] * 1000);
  return syscall(SYS_fdatasync, fd);
}
`

// Shim gives servers a wall clock and a disk that the test sets, also while
// they run.
type Shim struct {
	t    testing.TB
	file *os.File
	lib  string
}

// NewShim compiles the shim; without a C compiler the test fails.
func NewShim(t testing.TB) *Shim {
	t.Helper()
	dir := t.TempDir()
	s := &Shim{t: t, lib: filepath.Join(dir, "shim.so")}
	cc := exec.Command("cc", "-shared", "-fPIC", "-O2", "-o", s.lib, "-x", "c", "-")
	cc.Stdin = strings.NewReader(shimSource)
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("compile the shim (Debian: apt-get install gcc): %v\n%s", err, out)
	}
	var err error
	if s.file, err = os.Create(filepath.Join(dir, "shim")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.file.Close() }) // the folder goes with it
	s.set(0, 0)
	s.set(8, 0)
	return s
}

func (s *Shim) set(off int64, d time.Duration) {
	s.t.Helper()
	if _, err := s.file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(d.Milliseconds())), off); err != nil {
		s.t.Fatal(err)
	}
}

// Env is what a server's environment must hold.
func (s *Shim) Env() []string {
	return []string{"LD_PRELOAD=" + s.lib, "DREAM_SHIM=" + s.file.Name()}
}

// Clock sets how far the servers' wall clock is off.
func (s *Shim) Clock(by time.Duration) { s.set(0, by) }

// SlowSync sets how much longer a sync of the disk takes.
func (s *Shim) SlowSync(by time.Duration) { s.set(8, by) }
