package queuetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
)

// The worker child: a test binary started again with workerEnv set becomes a
// worker process that does no GPU work but dies, hangs or drains on command.
// It prints a line for each thing it does, so that a test can count effects.
const workerEnv = "DREAM_QUEUETEST_WORKER"

// WorkerMain runs the child if this process is one; call it first in TestMain.
// open connects to the queue that the argument names.
func WorkerMain(open func(ctx context.Context, url string) (queue.Queue, error)) {
	spec := os.Getenv(workerEnv)
	if spec == "" {
		return
	}
	// url|name|steps|step-ms|die-at
	f := strings.Split(spec, "|")
	steps, _ := strconv.Atoi(f[2])
	ms, _ := strconv.Atoi(f[3])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	q, err := open(context.Background(), f[0])
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	w := &childWorker{q: q, caps: Caps(f[1]), steps: steps, step: time.Duration(ms) * time.Millisecond, die: f[4]}
	w.caps.Worker = fmt.Sprintf("%s/%d", f[1], os.Getpid())
	w.caps.Wait = 500 * time.Millisecond
	w.run(ctx)
	_ = q.Close()
	os.Exit(0)
}

type childWorker struct {
	q     queue.Queue
	caps  queue.Capabilities
	steps int
	step  time.Duration
	die   string // point at which the process kills itself
}

// at dies like kill -9 if this is the point.
func (w *childWorker) at(point string) {
	if w.die == point {
		fmt.Println("dies", point)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	}
}

func (w *childWorker) run(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := w.q.Lease(ctx, w.caps)
		if err != nil {
			if ctx.Err() == nil && queue.CodeOf(err) != queue.CodeEmpty {
				time.Sleep(50 * time.Millisecond) // the server is away: stay
			}
			continue
		}
		fmt.Println("leased", l.Job.ID, l.Job.Attempt, time.Now().UnixMilli())
		w.at("leased")
		if strings.Contains(l.Job.Prompt, "poison") {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
			time.Sleep(time.Minute)
		}
		w.job(ctx, l)
	}
	fmt.Println("drained")
}

func (w *childWorker) job(ctx context.Context, l *queue.Lease) {
	bg := context.Background()
	first := 0
	if l.Job.Check != nil {
		first = l.Job.Check.Step
	}
	last := time.Now()
	for i := first; i < w.steps; i++ {
		time.Sleep(w.step)
		if i == w.steps/2 {
			w.at("step")
		}
		fmt.Println("step", l.Job.ID, i)
		d := queue.GoOn
		if time.Since(last) >= l.Heartbeat/2 {
			last = time.Now()
			a, err := w.q.Heartbeat(bg, l.Ref(), queue.Beat{Checkpoint: &queue.Checkpoint{Key: "c", Step: i + 1}})
			if err == nil { // away: keep computing
				d = a.Directive
			}
			w.at("checkpoint")
		}
		if ctx.Err() != nil {
			d = queue.DrainWorker
		}
		switch d {
		case queue.StopLost, queue.StopCancel:
			fmt.Println("stopped", l.Job.ID, d)
			return
		case queue.YieldBulk, queue.DrainWorker:
			reason := queue.Drained
			if d == queue.YieldBulk {
				reason = queue.Yielded
			}
			err := w.q.GiveBack(bg, l.Ref(), queue.GiveBackOptions{Reason: reason, Checkpoint: &queue.Checkpoint{Key: "c", Step: i + 1}})
			fmt.Println("gave-back", l.Job.ID, reason, err)
			return
		}
	}
	w.at("computed")
	for {
		err := w.q.Complete(bg, l.Ref(), queue.Result{Winner: l.ID})
		if queue.CodeOf(err) == queue.CodeUnavailable {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		w.at("completed")
		fmt.Println("completed", l.Job.ID, queue.CodeOf(err))
		return
	}
}

// Child is a worker process.
type Child struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	log  []string
	deaf bool // keeps no log
	done chan struct{}
}

// StartWorker starts a worker process of this test binary. dieAt names the
// point at which it kills itself: leased, step, checkpoint, computed,
// completed, or "".
func StartWorker(t testing.TB, url, name string, steps int, step time.Duration, dieAt string) *Child {
	t.Helper()
	return StartWorkerOf(t, os.Args[:1], nil, url, name, steps, step, dieAt)
}

// StartWorkerOf is StartWorker with another command and additional environment
// variables.
func StartWorkerOf(t testing.TB, command, env []string, url, name string, steps int, step time.Duration, dieAt string) *Child {
	t.Helper()
	c := &Child{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{})}
	c.cmd.Env = append(append(os.Environ(), env...), workerEnv+"="+strings.Join([]string{url, name, strconv.Itoa(steps), strconv.FormatInt(step.Milliseconds(), 10), dieAt}, "|"))
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go c.read(out)
	t.Cleanup(func() {
		c.Signal(syscall.SIGKILL)
		<-c.done
	})
	return c
}

func (c *Child) read(out io.Reader) {
	s := bufio.NewScanner(out)
	for s.Scan() {
		c.mu.Lock()
		if !c.deaf {
			c.log = append(c.log, s.Text())
		}
		c.mu.Unlock()
	}
	_ = c.cmd.Wait() // how it ended is in the log
	close(c.done)
}

// Signal sends a signal to the child.
func (c *Child) Signal(s os.Signal) { _ = c.cmd.Process.Signal(s) } // already gone is fine

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Discard keeps no log from now on, as for a child that lives long.
func (c *Child) Discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.deaf = nil, true
}

// Log returns the lines so far that begin with the word.
func (c *Child) Log(word string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, l := range c.log {
		if strings.HasPrefix(l, word+" ") || l == word {
			out = append(out, l)
		}
	}
	return out
}
