package worker_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
	"dreamcad/storage/s3"
	"dreamcad/storage/storagetest"
)

// The test program is also the worker that the fault tests kill: with WORKER_BASE
// set it runs one in that folder.
func TestMain(m *testing.M) {
	if base := os.Getenv("WORKER_BASE"); base != "" {
		if err := child(base); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// lossless, set, gives leases that outlast any standstill of the machine: for
// tests that kill no worker, where a lost lease is an error.
const lossless = "WORKER_LOSSLESS"

// faultConfig is the queue's in the fault tests; every process must agree on it.
func faultConfig() queue.Config {
	c := queue.DefaultConfig()
	c.Lease, c.Heartbeat, c.TickEvery = 4*time.Second, 400*time.Millisecond, 200*time.Millisecond
	if os.Getenv(lossless) != "" {
		c.Lease = 2 * time.Minute
	}
	c.SubmitBudget = 20 * time.Second
	return c
}

// openParts opens queue and storage: servers where they are named, else SQLite and a
// directory below base.
func openParts(ctx context.Context, base, redis, bucket string) (q queue.Queue, s storage.Store, err error) {
	if bucket == "" {
		s, err = dir.Open(dir.Config{Path: filepath.Join(base, "store")})
	} else {
		var cfg s3.Config
		if cfg, err = s3.ParseURL(bucket); err == nil {
			s, err = s3.Open(cfg)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if redis == "" {
		q, err = sqliteq.Open(ctx, filepath.Join(base, "queue.db"), faultConfig(), sqliteq.Options{})
		return q, s, err
	}
	o, err := redisq.ParseURL(redis)
	if err != nil {
		return nil, nil, err
	}
	q, err = redisq.Open(ctx, faultConfig(), o)
	return q, s, err
}

// child runs a worker until a signal. WORKER_DIE names the point at which it kills
// itself, WORKER_WAIT the one at which it waits for the file "go"; both happen once,
// at the WORKER_NTH passage.
func child(base string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := os.WriteFile(filepath.Join(base, fmt.Sprintf("ready-%d", os.Getpid())), nil, 0o600); err != nil {
		return err
	}
	q, s, err := openParts(ctx, base, os.Getenv("WORKER_REDIS"), os.Getenv("WORKER_S3"))
	if err != nil {
		return err
	}
	defer q.Close()
	dev := newChain()
	dev.pace = 10 * time.Millisecond
	dev.together, _ = strconv.Atoi(os.Getenv("WORKER_BATCH"))
	if n, _ := strconv.Atoi(os.Getenv("WORKER_ROUNDS")); n > 0 {
		dev.rounds = n
	}
	dev.ledger.file, err = os.OpenFile(filepath.Join(base, "ledger"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if os.Getenv("WORKER_POISON") != "" {
		dev.hook = func(job string, step int) error {
			j, err := q.Job(ctx, job)
			if err == nil && j.Prompt == "poison" && step == 2 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
				select {}
			}
			return nil
		}
	}
	cfg := worker.Config{Name: os.Getenv("WORKER_NAME"), Dir: filepath.Join(base, "work"), Grace: 5 * time.Second,
		LeaseWait: 200 * time.Millisecond, ProgressEvery: 50 * time.Millisecond, SaveGap: 1, MinFree: 1}
	w, err := worker.New(cfg, worker.Deps{Queue: q, Store: s, Maker: dev,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	nth, _ := strconv.Atoi(os.Getenv("WORKER_NTH"))
	var passed atomic.Int32
	worker.SetAt(w, func(p string) {
		if p != os.Getenv("WORKER_DIE") && p != os.Getenv("WORKER_WAIT") || int(passed.Add(1)) != max(nth, 1) {
			return
		}
		if err := os.WriteFile(filepath.Join(base, "reached"), []byte(p), 0o600); err != nil {
			return
		}
		if p == os.Getenv("WORKER_DIE") {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		for !exists(filepath.Join(base, "go")) {
			time.Sleep(5 * time.Millisecond)
		}
	})
	go func() { _ = queue.RunMaintenance(ctx, q, faultConfig().TickEvery, slog.New(slog.DiscardHandler)) }()
	return w.Run(ctx)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// bench runs child workers on one folder.
type bench struct {
	*rig
	base string
	env  []string // of the children
	exe  string   // of the children, if it is another
}

func newBench(t *testing.T) *bench {
	base := t.TempDir()
	return &bench{rig: openRig(t, base, faultConfig()), base: base}
}

// process is a child worker.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
}

func (b *bench) spawn(name string, env ...string) *process {
	b.t.Helper()
	exe := b.exe
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			b.t.Fatal(err)
		}
	}
	p := &process{cmd: exec.Command(exe), exited: make(chan struct{})}
	p.cmd.Env = append(append(append(os.Environ(), "WORKER_BASE="+b.base, "WORKER_NAME="+name), b.env...), env...)
	p.cmd.Stderr = b.t.Output()
	if err := p.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.exited) }()
	b.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
	b.until("the process listens to signals", func() bool {
		return exists(filepath.Join(b.base, fmt.Sprintf("ready-%d", p.cmd.Process.Pid)))
	})
	return p
}

// freeze stops the process at a moment when it does not hold SQLite's write lock,
// which would stop everybody.
func (b *bench) freeze(p *process) {
	b.t.Helper()
	b.until("the worker is stopped outside of a transaction", func() bool {
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			b.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Second)
		defer cancel()
		_, err := b.q.Put(ctx, "freeze", nil, queue.AnyVersion, time.Minute)
		if err != nil {
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			time.Sleep(300 * time.Millisecond) // to end its transaction
		}
		return err == nil
	})
}

// untilQuarantined is a supervisor of workers that an input kills, until it is set
// aside.
func (b *bench) untilQuarantined(id string, env ...string) {
	b.t.Helper()
	for n := 0; b.job(id).Status != queue.Quarantined; n++ {
		if n > 6 {
			b.t.Fatalf("after %d restarts the job is %s with %d crashes", n, b.job(id).Status, b.job(id).Crashes)
		}
		p := b.spawn(fmt.Sprintf("gpu%d", n%2), append(env, "WORKER_POISON=1")...)
		b.until("the worker dies, or the job is set aside", func() bool {
			select {
			case <-p.exited:
				return true
			default:
				return b.job(id).Status == queue.Quarantined
			}
		})
	}
}

// gone waits until the process has ended.
func (b *bench) gone(p *process) {
	b.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(limit):
		b.t.Fatal("the worker process does not end")
	}
}

// steps counts the ledger's lines of a job, in all and of the most repeated step.
func (b *bench) steps(job string) (total, repeated int) {
	f, err := os.Open(filepath.Join(b.base, "ledger"))
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	seen := map[string]int{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), job+" ") {
			total++
			seen[sc.Text()]++
			repeated = max(repeated, seen[sc.Text()])
		}
	}
	return total, repeated
}

// effects checks that the job had exactly one: one manifest with the right bytes,
// one outcome in the outbox, no object of another attempt once swept.
func (b *bench) effects(id string) {
	b.t.Helper()
	j := b.wait(id, queue.Done)
	b.published(j)
	outcomes := 0
	for _, k := range b.kinds(id) {
		if k.Outcome() {
			outcomes++
		}
	}
	twice := 0
	if outcomes != 1 {
		twice = 1
		b.t.Errorf("%d outcomes in the outbox: %v", outcomes, b.kinds(id))
	}
	queuetest.Counts(b.t, 1, 0, twice)
	if v, err := b.q.Audit(b.t.Context()); err != nil || len(v) > 0 {
		b.t.Errorf("invariants: %v, %v", v, err)
	}
	if _, err := storage.Sweep(b.t.Context(), b.store, storage.SweepConfig{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }}); err != nil {
		b.t.Error(err)
	}
	if got, want := len(storagetest.Keys(b.t, b.store, "")), len(j.Result.Files)+1; got != want {
		b.t.Errorf("%d objects are left, want %d: %q", got, want, storagetest.Keys(b.t, b.store, ""))
	}
}

// Row 1 of the fault matrix: the worker is killed at each named point.
func TestKilledAtEachPoint(t *testing.T) {
	total := newChain().total(queue.Request{Kind: queue.Mesh})
	for _, c := range []struct {
		point string
		nth   int
		again int // steps that may be done twice
	}{
		{"leased", 1, 0},
		{"step", 2, 4},
		{"checkpoint", 1, 0},
		{"step", 8, 5},
		{"checkpoint", 3, 0},
		{"kept", 1, 0},
		{"artifacts", 1, 0},
		{"manifest", 1, 0},
		{"completed", 1, 0},
	} {
		t.Run(fmt.Sprintf("%s %d", c.point, c.nth), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			j := b.submit(queue.Mesh, queue.Interactive, "a mug")
			first := b.spawn("gpu0", "WORKER_DIE="+c.point, fmt.Sprintf("WORKER_NTH=%d", c.nth))
			b.gone(first)
			if !exists(filepath.Join(b.base, "reached")) {
				t.Fatalf("the worker ended elsewhere: %v", first.err)
			}
			died := time.Now()
			before, _ := b.steps(j.ID)
			second := b.spawn("gpu0")
			if b.job(j.ID).Status != queue.Done {
				b.until("the job is taken over", func() bool { s := b.job(j.ID); return s.Attempt > 1 || s.Status == queue.Done })
				queuetest.Restarted(t, time.Since(died))
			}
			b.effects(j.ID)
			after, _ := b.steps(j.ID)
			// On a machine so slow that the second lease expires too, more is repeated.
			slow := b.job(j.ID).Attempt > 2
			if !slow && after > total+c.again || c.point == "manifest" && after != before {
				t.Errorf("%d steps in all (%d before the kill), %d are needed and %d may be repeated", after, before, total, c.again)
			}
			if got := b.job(j.ID); got.Failures != 0 {
				t.Errorf("%d failures were counted", got.Failures)
			}
			_ = second.cmd.Process.Signal(syscall.SIGTERM)
			b.gone(second)
			if second.err != nil {
				t.Errorf("the second worker ended with %v", second.err)
			}
		})
	}
}

// Row 2: a worker that is stopped for three leases finds its job taken over when it
// wakes, and has no effect.
func TestStoppedWorkerHasNoEffect(t *testing.T) {
	for _, point := range []string{"step", "artifacts"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			j := b.submit(queue.Mesh, queue.Interactive, "a mug")
			first := b.spawn("gpu0", "WORKER_WAIT="+point)
			b.until("the worker gets there", func() bool { return exists(filepath.Join(b.base, "reached")) })
			b.freeze(first)
			if err := os.WriteFile(filepath.Join(b.base, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			b.spawn("gpu1")
			b.wait(j.ID, queue.Done)
			winner := b.job(j.ID).Result.Winner
			time.Sleep(2 * faultConfig().Lease) // one has passed
			if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			// The stale worker goes on to other work only when it has let go of this one.
			time.Sleep(2 * faultConfig().Heartbeat)
			if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			b.gone(first)
			if got := b.job(j.ID).Result.Winner; got != winner {
				t.Errorf("the stale worker changed the winner from %q to %q", winner, got)
			}
			b.effects(j.ID)
		})
	}
}

// Row 17: an input that kills the process is quarantined; others are served.
func TestPoisonIsQuarantined(t *testing.T) {
	b := newBench(t)
	poison := b.submit(queue.Mesh, queue.Interactive, "poison")
	good := b.submit(queue.Mesh, queue.Interactive, "a mug")
	b.untilQuarantined(poison.ID)
	b.spawn("gpu2", "WORKER_POISON=1")
	b.wait(good.ID, queue.Done)
	if c := b.job(poison.ID).Crashes; c > 3 {
		t.Errorf("it took %d crashes", c)
	}
}

// Row 20: workers are drained in turn under load; nothing is lost or done twice.
func TestRollingDrain(t *testing.T) {
	t.Setenv(lossless, "1")
	b := newBench(t)
	var jobs []queue.Job
	for i := range 8 {
		jobs = append(jobs, b.submit(queue.Mesh, queue.Interactive, fmt.Sprintf("mug %d", i)))
	}
	workers := []*process{b.spawn("gpu0"), b.spawn("gpu1")}
	for round := range 4 {
		time.Sleep(400 * time.Millisecond)
		i := round % 2
		begun := time.Now()
		_ = workers[i].cmd.Process.Signal(syscall.SIGTERM)
		b.gone(workers[i])
		if workers[i].err != nil {
			t.Errorf("drained worker: %v", workers[i].err)
		}
		if d := time.Since(begun); d > 20*time.Second {
			t.Errorf("draining took %v", d)
		}
		workers[i] = b.spawn(fmt.Sprintf("gpu%d", i))
	}
	for _, j := range jobs {
		got := b.wait(j.ID, queue.Done)
		b.published(got)
		if got.Failures != 0 || got.Crashes != 0 {
			t.Errorf("job %q: %d failures, %d crashes", got.Prompt, got.Failures, got.Crashes)
		}
		if _, repeated := b.steps(j.ID); repeated > 2 {
			t.Errorf("job %q: a step was done %d times", got.Prompt, repeated)
		}
	}
}
