// Package worker runs jobs on one device: it leases them from the queue, makes
// them step by step, saves checkpoints, publishes the results and reports.
//
// One goroutine owns the device and does the steps. Everything that may wait for
// a network (leasing, heartbeats, uploads, publishing) happens beside it, so a
// slow or missing server costs no computing. A mesh is made of short steps;
// between two of them a views job of a person in chat is done first. Where the device
// gains by it (see [Batcher]), several views jobs step together; none waits for others.
//
// What an attempt must not lose lies below Config.Dir:
//
//	<Dir>/<name>/lock                      held while the worker of that name runs
//	<Dir>/<name>/<job>/ckpt-<n>            the last two checkpoints
//	<Dir>/<name>/<job>/<lease>/…           result files of an attempt
//	<Dir>/<name>/<job>/<lease>.json        the manifest of a finished result that is not yet published
//
// A worker that is killed finds its checkpoint or its finished result there when
// it leases the job again; another worker of the same host finds it too.
package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
)

// Config are the worker's numbers. Zero values take the defaults.
type Config struct {
	// Name is the stable name that operators see, "host/gpu0". It must be unique
	// among the workers that share Dir.
	Name string
	// Dir is a folder on a local disk for checkpoints and unpublished results.
	Dir string
	// Version goes into manifests.
	Version string
	// Mark, a random word, is part of the process's name in the queue, by which its
	// supervisor finds its leases when it died ([ReportDeath]).
	Mark string

	SaveEvery      time.Duration // between checkpoints on local disk; default 60 s
	SaveSteps      int           // the same in steps; default 1000
	SaveGap        time.Duration // a finished round is saved if the last checkpoint is older; default 5 s
	UploadEvery    time.Duration // between uploads of checkpoints; default 10 min
	ProgressEvery  time.Duration // between progress events; default 2 s
	Grace          time.Duration // a drained worker finishes what ends within it; default 20 s
	PublishLimit   time.Duration // publishing is tried that long; default 6 h
	MaxUnpublished int           // results that wait for storage before leasing stops; default 16
	MinFree        uint64        // free bytes below Dir under which leasing stops; default 256 MiB
	StuckFactor    float64       // a step of that many times the usual time is stuck; default 20
	StuckFloor     time.Duration // but not before; default 5 min
	LeaseWait      time.Duration // how long one call for work waits; default 5 s
	Hold           time.Duration // a pause this long saves and uploads a checkpoint first; default 10 s
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.SaveEvery, time.Minute)
	def(&c.SaveGap, 5*time.Second)
	def(&c.UploadEvery, 10*time.Minute)
	def(&c.ProgressEvery, 2*time.Second)
	def(&c.Grace, 20*time.Second)
	def(&c.PublishLimit, 6*time.Hour)
	def(&c.StuckFloor, 5*time.Minute)
	def(&c.LeaseWait, 5*time.Second)
	def(&c.Hold, 10*time.Second)
	if c.SaveSteps == 0 {
		c.SaveSteps = 1000
	}
	if c.MaxUnpublished == 0 {
		c.MaxUnpublished = 16
	}
	if c.MinFree == 0 {
		c.MinFree = 256 << 20
	}
	if c.StuckFactor == 0 {
		c.StuckFactor = 20
	}
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "worker"
		}
		c.Name = host
	}
}

// Jobs is what the worker needs of the queue.
type Jobs interface {
	queue.Leaser
	Job(ctx context.Context, id string) (queue.Job, error)
}

// Deps are the parts that the worker works with.
type Deps struct {
	Queue    Jobs
	Store    storage.Store
	Maker    Maker
	Governor Governor     // may be nil
	Meter    Meter        // may be nil
	Log      *slog.Logger // nil discards
	// LastLog, may be nil, is the end of what this process logged, free of secrets,
	// for the record of a crash that it survives.
	LastLog func() string
}

// ErrStuck is returned by Run when a step hangs in a call that ignores its
// context. The process should exit: the device cannot be used any more.
var ErrStuck = errors.New("a step hangs; the worker must be started again")

// ErrDevice is what Makers and Works return, and Run ends with, when the device
// failed in a way that only a new process can cure.
var ErrDevice = errors.New("the device is lost; the worker must be started again")

// Worker runs jobs on one device.
type Worker struct {
	cfg   Config
	q     Jobs
	store storage.Store
	maker Maker
	gov   Governor
	meter Meter
	log   *slog.Logger
	spool *spool

	lastLog func() string

	process string // unique per start
	host    string

	// hard ends when everything must be dropped: the grace of a drain is over.
	hard     context.Context
	hardStop context.CancelCauseFunc

	ready    chan *session  // prepared sessions for the device loop
	sessions sync.WaitGroup // every session's background work

	dog  watchdog
	lost error // why the device is gone; the loop's own until it ends

	mu          sync.Mutex
	running     map[string]*session // by lease
	unpublished int
	full        bool // storage or disk was full at the last attempt
	probed      time.Time
	refusing    string // why no work is taken; empty: it is

	at func(point string) // tests stop the process here
}

// New checks the configuration and takes the worker's folder.
func New(cfg Config, d Deps) (*Worker, error) {
	cfg.setDefaults()
	switch {
	case d.Queue == nil || d.Store == nil || d.Maker == nil:
		return nil, errors.New("starting worker: queue, storage and maker are needed")
	case cfg.Dir == "":
		return nil, errors.New("starting worker: no folder given")
	case len(d.Maker.Models()) == 0:
		return nil, errors.New("starting worker: no model")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	sp, err := openSpool(cfg.Dir, cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("starting worker: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	w := &Worker{
		cfg: cfg, q: d.Queue, store: d.Store, maker: d.Maker, gov: d.Governor, meter: d.Meter, lastLog: d.LastLog,
		log: d.Log.With("worker", cfg.Name), spool: sp, host: host,
		process: fmt.Sprintf("%s/%d/%s", strings.ReplaceAll(cfg.Name, "/", "-"), os.Getpid(), cfg.Mark+rand.Text()[:8]),
		ready:   make(chan *session), running: map[string]*session{},
		at: func(string) {},
	}
	w.hard, w.hardStop = context.WithCancelCause(context.Background())
	return w, nil
}

// Run makes a worker and runs it until ctx ends; see [Worker.Run].
func Run(ctx context.Context, cfg Config, d Deps) error {
	w, err := New(cfg, d)
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// Run works until ctx ends, then drains: it takes no more work, ends or hands back
// what it has within the grace period, and returns nil. Another error than nil
// means that the worker cannot go on. Run may be called once.
func (w *Worker) Run(ctx context.Context) error {
	defer w.spool.close()
	defer w.hardStop(nil)
	w.log.Info("worker starts", "device", w.maker.Device(), "models", modelNames(w.maker.Models()))
	work, stopLeasing := context.WithCancel(ctx)
	defer stopLeasing()
	tidied := make(chan struct{})
	go func() { defer close(tidied); w.spool.tidy(work, w.q, w.log) }()
	looped, stuck := make(chan struct{}), make(chan error, 1)
	go func() { defer close(looped); w.loop(work) }()
	watchCtx, stopWatch := context.WithCancel(context.Background())
	defer stopWatch()
	go func() { stuck <- w.dog.watch(watchCtx, w) }()
	select {
	case <-looped:
	case err := <-stuck:
		// The loop hangs in a step; nobody can end it but the end of the process.
		w.log.Error("worker ends", "err", err)
		return err
	}
	stopWatch()
	if err := <-stuck; err != nil { // it barked while the last step ended
		return err
	}
	w.settle()
	stopLeasing()
	<-tidied
	w.log.Info("worker ends")
	return w.lost
}

// settle waits for what goes on beside the device: results being published get the
// grace of a drain, then they are left on the local disk and their jobs given back.
func (w *Worker) settle() {
	ended := make(chan struct{})
	go func() { w.sessions.Wait(); close(ended) }()
	select {
	case <-ended:
		return
	case <-time.After(w.cfg.Grace):
	}
	w.hardStop(errExit)
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		w.log.Warn("leaving jobs to the end of their leases")
	}
}

// Snapshot is what the worker does at the moment.
type Snapshot struct {
	Jobs        []Doing
	Unpublished int // results that wait for storage
}

// Doing is one job in the worker's hands.
type Doing struct {
	Job      string
	Kind     queue.Kind
	Progress queue.Progress
}

// Snapshot returns what the worker does now, for metrics and health checks.
func (w *Worker) Snapshot() Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := Snapshot{Unpublished: w.unpublished}
	for _, s := range w.running {
		s.mu.Lock()
		out.Jobs = append(out.Jobs, Doing{Job: s.job.ID, Kind: s.job.Kind, Progress: s.progress})
		s.mu.Unlock()
	}
	return out
}

// Refusing says why the worker takes no new work; empty: it takes some.
func (w *Worker) Refusing() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusing
}

func modelNames(ms []storage.ModelRef) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Name)
	}
	return out
}

// digestOf returns the digest of the model that a request gets.
func (w *Worker) digestOf(name string) string {
	for _, m := range w.maker.Models() {
		if name == "" || m.Name == name {
			return m.Digest
		}
	}
	return ""
}

func (w *Worker) boxOf(job string) string { return filepath.Join(w.spool.dir, job) }
