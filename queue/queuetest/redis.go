package queuetest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/internal/testout"
)

// Server is the program that the tests start: redis-server, or what
// REDIS_SERVER names, such as the path of a valkey-server.
func Server() string { return cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server") }

// Redis is a redis-server child process on a free loopback port, with its own
// folder. It ends with the test.
type Redis struct {
	Addr string
	Dir  string
	args []string
	env  []string
	t    testing.TB
	mu   sync.Mutex
	cmd  *exec.Cmd
	out  *testout.Buffer
}

// FreePort finds a free loopback port.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// StartRedis starts a server with extra arguments ("--appendonly", "yes").
// Without a server the test fails: it is never skipped.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	return StartRedisEnv(t, nil, args...)
}

// StartRedisEnv is StartRedis with additional environment variables.
func StartRedisEnv(t testing.TB, env []string, args ...string) *Redis {
	t.Helper()
	r := &Redis{t: t, Dir: t.TempDir(), args: args, env: env}
	for try := 0; ; try++ { // another process may take the port in between
		port := FreePort(t)
		r.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if err := r.Start(); err == nil {
			break
		} else if try == 4 {
			t.Fatal(err)
		}
	}
	t.Cleanup(r.Kill)
	return r
}

// Start starts the server (again), on the same port and folder, and waits
// until it answers.
func (r *Redis) Start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, port, _ := net.SplitHostPort(r.Addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", r.Dir, "--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction"}, r.args...)
	if i := slices.Index(r.args, "--sentinel"); i >= 0 { // a Sentinel reads all from its file
		args = append([]string{filepath.Join(r.Dir, "sentinel.conf")}, r.args[i:]...)
	}
	r.out = &testout.Buffer{}
	r.cmd = exec.Command(Server(), args...)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.Env = append(os.Environ(), r.env...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("start %s (Debian: apt-get install redis-server): %w", Server(), err)
	}
	c := redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1})
	defer c.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		err := c.Ping(ctx).Err()
		stop()
		if err == nil || strings.HasPrefix(err.Error(), "NOAUTH") { // it answers, but wants a password
			return nil
		}
		if time.Now().After(end) || strings.Contains(r.out.String(), "Failed listening") {
			r.kill()
			return fmt.Errorf("%s does not answer: %w\n%s", Server(), err, r.out)
		}
	}
}

// Kill is kill -9.
func (r *Redis) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kill()
}

func (r *Redis) kill() {
	if r.cmd != nil && r.cmd.Process != nil {
		_ = r.cmd.Process.Kill() // already gone is fine
		_ = r.cmd.Wait()         // the exit status of a killed process
		r.cmd = nil
	}
}

// Signal sends a signal, for example SIGSTOP.
func (r *Redis) Signal(s os.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd != nil {
		_ = r.cmd.Process.Signal(s) // already gone is fine
	}
}

// Client returns a plain client for looking inside; it closes with the test.
func (r *Redis) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: r.Addr})
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}
