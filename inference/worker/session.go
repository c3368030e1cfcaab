package worker

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"dreamcad/queue"
)

// Why a job stops before it is done.
var (
	errCancelled = errors.New("the job was cancelled")
	errLost      = errors.New("the lease was lost")
	errExit      = errors.New("the worker ends")
)

// session is one lease in the worker's hands, from the lease's answer to the call
// that ends it (complete, fail, give back) or the news that it is not ours any more.
type session struct {
	w   *Worker
	job queue.Job
	ref queue.Ref
	ttl time.Duration
	// every is the time between heartbeats.
	every time.Duration
	log   *slog.Logger
	ask   int // number of the leaser's request that brought it

	// ctx ends when the job must not be worked on; its cause says why.
	ctx  context.Context
	stop context.CancelCauseFunc

	box string // <spool>/<job>
	dir string // <box>/<lease>: result files

	// Owned by the device loop.
	work         Work
	started      time.Time
	used         atomic.Int64 // nanoseconds in steps
	timings      map[string]float64
	nextCkpt     int
	sinceSave    int // steps
	lastSave     time.Time
	lastUpload   time.Time
	mustSave     atomic.Bool // the queue is away: what we have should not hang on our memory
	yield, drain atomic.Bool
	once         sync.Once // ends the session

	uploads chan func(context.Context) // background uploads, in order
	upDone  chan struct{}
	upCtx   context.Context
	upStop  context.CancelFunc
	nudge   chan struct{} // heartbeat now
	over    chan struct{} // closed when the session has ended

	mu       sync.Mutex
	progress queue.Progress
	reported time.Time
	fresh    bool // progress not yet told
	views    []queue.File
	check    *queue.Checkpoint
	flushed  bool            // uploads is closed
	stored   map[string]bool // files that lie in storage under the attempt's prefix
}

// open takes a lease into the worker's hands: heartbeats begin.
func (w *Worker) open(l *queue.Lease, ask int) *session {
	now := time.Now()
	s := &session{
		w: w, ask: ask, job: l.Job, ref: l.Ref(), ttl: l.TTL, every: l.Heartbeat,
		log: w.log.With("job", l.Job.ID, "user", l.Job.Requester.User(), "attempt", l.Job.Attempt),
		box: w.boxOf(l.Job.ID), timings: map[string]float64{},
		started: now, lastSave: now,
		uploads: make(chan func(context.Context), 64), upDone: make(chan struct{}),
		nudge: make(chan struct{}, 1), over: make(chan struct{}), stored: map[string]bool{},
	}
	if s.every <= 0 {
		s.every = max(s.ttl/3, 100*time.Millisecond)
	}
	s.dir = filepath.Join(s.box, s.ref.Lease)
	s.ctx, s.stop = context.WithCancelCause(w.hard)
	s.upCtx, s.upStop = context.WithCancel(s.ctx)
	w.mu.Lock()
	w.running[s.ref.Lease] = s
	w.mu.Unlock()
	w.sessions.Add(1)
	w.sessions.Go(s.heartbeat)
	w.sessions.Go(s.upload)
	return s
}

// end closes the session after its last call to the queue.
func (s *session) end() {
	s.once.Do(func() {
		s.stop(context.Canceled)
		s.flush(0)
		close(s.over)
		s.w.mu.Lock()
		delete(s.w.running, s.ref.Lease)
		s.w.mu.Unlock()
		s.w.sessions.Done()
	})
}

// seconds is the device time of this attempt; never 0, for which the queue would
// charge the wall time.
func (s *session) seconds() float64 { return max(time.Duration(s.used.Load()).Seconds(), 0.001) }

// cause says why the session must stop, nil while it need not.
func (s *session) cause() error {
	if s.ctx.Err() == nil {
		return nil
	}
	return context.Cause(s.ctx)
}

// heartbeat keeps the lease alive and carries news both ways until the session
// ends. It does not depend on the device.
func (s *session) heartbeat() {
	timer := time.NewTimer(s.every)
	defer timer.Stop()
	lastOK := time.Now()
	away, saved := false, false
	for {
		select {
		case <-s.over:
			return
		case <-s.nudge:
		case <-timer.C:
		}
		wait := s.every
		err := s.beat()
		switch {
		case err == nil:
			lastOK, saved = time.Now(), false
			if away {
				s.log.Info("the queue answers again")
				away = false
			}
		case s.cause() != nil:
		default:
			wait = min(s.every, time.Second)
			if !away {
				s.log.Warn("heartbeat failed, the work goes on", "err", err)
				away = true
			}
			if !saved && time.Since(lastOK) > s.lease()*2/3 {
				saved = true
				s.mustSave.Store(true)
			}
		}
		timer.Reset(wait)
	}
}

// lease is the life of the lease as the queue last said.
func (s *session) lease() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ttl
}

// beat sends one heartbeat and acts on its answer.
func (s *session) beat() error {
	s.mu.Lock()
	b := queue.Beat{Views: s.views, Checkpoint: s.check, Quiet: true}
	if s.fresh {
		p := s.progress
		b.Progress, b.Quiet = &p, false
	}
	s.views, s.check, s.fresh = nil, nil, false
	s.mu.Unlock()
	if b.Views != nil {
		b.Quiet = false
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(s.every, 2*time.Second))
	defer cancel()
	ans, err := s.w.q.Heartbeat(ctx, s.ref, b)
	if err != nil {
		// Tell it again next time, unless something newer came meanwhile.
		s.mu.Lock()
		if s.views == nil {
			s.views = b.Views
		}
		if s.check == nil {
			s.check = b.Checkpoint
		}
		s.fresh = s.fresh || b.Progress != nil
		s.mu.Unlock()
		return err
	}
	if ans.TTL > 0 {
		s.mu.Lock()
		s.ttl = ans.TTL
		s.mu.Unlock()
	}
	switch ans.Directive {
	case queue.StopCancel:
		s.stop(errCancelled)
	case queue.StopLost:
		s.stop(errLost)
	case queue.YieldBulk:
		s.yield.Store(true)
	case queue.DrainWorker:
		s.drain.Store(true)
	}
	return nil
}

// tell wakes the heartbeat.
func (s *session) tell() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// report takes the progress of a step and sends it on: at once when the stage
// changes, else at most each Config.ProgressEvery.
func (s *session) report(p queue.Progress) {
	s.mu.Lock()
	changed := p.Stage != s.progress.Stage
	s.progress, s.fresh = p, true
	due := changed || time.Since(s.reported) >= s.w.cfg.ProgressEvery
	if due {
		s.reported = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.tell()
	}
}

// upload does the background uploads one after the other.
func (s *session) upload() {
	defer close(s.upDone)
	for job := range s.uploads {
		job(s.upCtx)
	}
}

// background queues an upload; when too many wait it is left out, for a newer one
// will follow.
func (s *session) background(job func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flushed {
		return
	}
	select {
	case s.uploads <- job:
	default:
		s.log.Warn("uploads are slow, leaving one out")
	}
}

// flush lets no more background uploads in, waits a while for those that are
// queued and ends the rest.
func (s *session) flush(wait time.Duration) {
	s.mu.Lock()
	if !s.flushed {
		s.flushed = true
		close(s.uploads)
	}
	s.mu.Unlock()
	select {
	case <-s.upDone:
	case <-time.After(wait):
		s.upStop()
		<-s.upDone
	}
}

// closeWork frees the device.
func (s *session) closeWork() {
	if s.work == nil {
		return
	}
	if err := s.work.Close(); err != nil {
		s.log.Warn("closing the work failed", "err", err)
	}
	s.work = nil
}

// persist calls fn until it works, the session must stop, or limit is over. It
// returns the last error.
func (s *session) persist(ctx context.Context, what string, limit time.Duration, fn func(context.Context) error) error {
	deadline := time.Now().Add(limit)
	wait := 200 * time.Millisecond
	for n := 0; ; n++ {
		err := fn(ctx)
		if err == nil {
			if n > 0 {
				s.log.Info("works again", "what", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if permanent(err) || time.Now().Add(wait).After(deadline) {
			return err
		}
		s.w.noteFull(diskFull(err))
		if n == 0 {
			s.log.Warn("trying again", "what", what, "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		wait = min(wait*2, 15*time.Second)
	}
}

// permanent tells errors that no waiting can cure.
func permanent(err error) bool {
	switch queue.CodeOf(err) {
	case queue.CodeLost, queue.CodeCancelled, queue.CodeConflict, queue.CodeNotFound, queue.CodeInvalid, queue.CodeTooLarge:
		return true
	}
	return errors.Is(err, os.ErrNotExist)
}
