package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"dreamcad/queue"
)

// loop owns the device. It holds at most one job of each sort: a long one (mesh)
// and a short one (views), and does the short one first.
func (w *Worker) loop(ctx context.Context) {
	var long, short *session
	lease := newLeaser(w)
	defer lease.stop()
	for ctx.Err() == nil {
		lease.want(w.wanted(long, short))
		s := short
		if s == nil {
			s = long
		}
		if s != nil {
			select {
			case n := <-w.ready:
				lease.got(n)
				w.place(n, &long, &short)
			default:
				if w.advance(ctx, s) {
					w.clearSlot(s, &long, &short)
				}
			}
			continue
		}
		select {
		case <-ctx.Done():
		case n := <-w.ready:
			lease.got(n)
			w.place(n, &long, &short)
		case <-time.After(time.Second): // Admit may have changed
		}
	}
	lease.stop()
	w.drain(long, short)
}

func (w *Worker) clearSlot(s *session, long, short **session) {
	if *long == s {
		*long = nil
	}
	if *short == s {
		*short = nil
	}
}

// place gives a prepared session its slot.
func (w *Worker) place(s *session, long, short **session) {
	slot := long
	if s.job.Kind == queue.Views {
		slot = short
	}
	if *slot != nil { // the wish for work was older than what runs now
		w.sessions.Go(func() { s.giveBack(queue.Returned, nil) })
		return
	}
	*slot = s
	s.started = time.Now()
}

// wanted says what the worker could take now; nil: nothing.
func (w *Worker) wanted(long, short *session) *queue.Capabilities {
	if short != nil || !w.admits() {
		return nil
	}
	c := &queue.Capabilities{Worker: w.process, Name: w.cfg.Name, Models: modelNames(w.maker.Models()),
		Wait: w.cfg.LeaseWait, Device: w.maker.Device()}
	if long != nil {
		c.Kinds, c.Classes, c.Beside = []queue.Kind{queue.Views}, []queue.Class{queue.Interactive}, true
	}
	return c
}

// advance does one step of a session. It returns true when the device is free of
// it: done, failed, stopped or handed back.
func (w *Worker) advance(ctx context.Context, s *session) (released bool) {
	switch {
	case s.cause() != nil:
		s.closeWork()
		w.sessions.Go(s.abandon)
		return true
	case s.yield.Load():
		s.handBack(queue.Yielded)
		return true
	case s.drain.Load():
		s.handBack(queue.Drained)
		return true
	}
	if !w.rest(ctx, s) {
		return false
	}
	var upd Update
	err := w.guarded(s, func() error {
		if s.work == nil {
			return s.begin()
		}
		var err error
		upd, err = s.work.Step(s.ctx)
		return err
	})
	if err == nil && upd.Outcome == nil {
		s.took(upd)
		return false
	}
	if err == nil {
		s.closeWork()
		err = s.finish(upd.Outcome)
		if err == nil {
			return true
		}
	}
	s.closeWork()
	w.sessions.Go(func() { s.broke(err) })
	return true
}

// guarded runs a piece of work under the watchdog, measures it and turns a panic
// into an error.
func (w *Worker) guarded(s *session, fn func() error) (err error) {
	s.mu.Lock()
	stage := s.progress.Stage
	s.mu.Unlock()
	if stage == "" && s.work != nil {
		stage = queue.StageText // the first step of any job
	}
	begun := time.Now()
	w.dog.arm(s, string(stage))
	defer func() {
		w.dog.disarm()
		d := time.Since(begun)
		s.used.Add(int64(d))
		if stage != "" {
			s.timings[string(stage)] += d.Seconds()
		}
		if r := recover(); r != nil {
			err = &panicError{value: r, stack: debug.Stack()}
		}
	}()
	return fn()
}

type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// took takes a step's news: progress, views, checkpoints.
func (s *session) took(u Update) {
	if u.Stage == "" { // begin
		return
	}
	s.w.at("step")
	s.sinceSave++
	s.report(queue.Progress{Stage: u.Stage, Step: u.Step, Total: u.Total, Message: u.Message, Remaining: u.Remaining.Seconds()})
	if u.Views != nil && s.job.Kind != queue.Views {
		s.viewsReady(u.Views)
	}
	now := time.Now()
	idle := now.Sub(s.lastSave)
	due := s.mustSave.Load()
	if s.job.Kind != queue.Views { // those take seconds: not worth it
		due = due || s.sinceSave >= s.w.cfg.SaveSteps || idle >= s.w.cfg.SaveEvery ||
			u.Boundary && (s.nextCkpt == 0 || idle >= s.w.cfg.SaveGap)
	}
	if !due {
		return
	}
	c := s.save()
	// The first one, after the views, is small and saves most.
	if c != nil && (s.lastUpload.IsZero() || now.Sub(s.lastUpload) >= s.w.cfg.UploadEvery) {
		s.shipCheckpoint(c)
	}
}

// broke ends a session whose work failed.
func (s *session) broke(err error) {
	var input *InputError
	var panicked *panicError
	switch {
	case s.cause() != nil:
		s.abandon()
	case errors.As(err, &input):
		s.fail(queue.Failure{Kind: queue.FailInput, Sentence: input.Sentence, Detail: err.Error()})
	case errors.As(err, &panicked):
		s.fail(queue.Failure{Kind: queue.FailCrash, Detail: err.Error() + "\n" + string(panicked.stack)})
	case diskFull(err):
		// Nothing is wrong with the job: it goes on here or elsewhere.
		s.w.noteFull(true)
		s.log.Error("the local disk is full; leasing stops until there is room", "err", err)
		os.RemoveAll(s.dir)
		s.giveBack(queue.Returned, nil)
	default:
		s.fail(queue.Failure{Kind: queue.FailError, Detail: err.Error()})
	}
}

// rest does what the governor asks before a step. It returns false when the
// session's state should be looked at again first.
func (w *Worker) rest(ctx context.Context, s *session) bool {
	if w.gov == nil {
		return true
	}
	d := w.gov.Pause()
	if d <= 0 {
		return true
	}
	if d >= w.cfg.Hold && s.work != nil && s.sinceSave > 0 {
		if c := s.save(); c != nil {
			s.shipCheckpoint(c)
		}
	}
	select {
	case <-time.After(min(d, time.Second)):
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return d <= time.Second
}

// admits tells whether new work may be taken.
func (w *Worker) admits() bool {
	why := ""
	w.mu.Lock()
	if w.unpublished >= w.cfg.MaxUnpublished {
		why = fmt.Sprintf("%d results wait for the storage", w.unpublished)
	}
	full := w.full
	w.mu.Unlock()
	if why == "" && w.gov != nil {
		if err := w.gov.Admit(); err != nil {
			why = err.Error()
		}
	}
	if why == "" {
		free, err := w.spool.free()
		switch {
		case err == nil && free < w.cfg.MinFree:
			why = fmt.Sprintf("%d MB free in %q, at least %d MB are needed", free>>20, filepath.Clean(w.spool.dir), w.cfg.MinFree>>20)
		case full && !w.spaceAgain():
			why = "the storage is full"
		}
	}
	w.sayOnce(why)
	return why == ""
}

// spaceAgain probes, at most every few seconds, whether a storage that was full
// takes something again.
func (w *Worker) spaceAgain() bool {
	w.mu.Lock()
	due := time.Since(w.probed) > 5*time.Second
	if due {
		w.probed = time.Now()
	}
	w.mu.Unlock()
	if !due {
		return false
	}
	ctx, cancel := context.WithTimeout(w.hard, 10*time.Second)
	defer cancel()
	_, err := w.store.Check(ctx)
	if err == nil {
		err = writeFile(filepath.Join(w.spool.dir, "probe"), writeProbe)
	}
	if err != nil {
		return false
	}
	w.noteFull(false)
	return true
}

// sayOnce logs a change of the reason for not leasing.
func (w *Worker) sayOnce(why string) {
	w.mu.Lock()
	changed := why != w.refusing
	w.refusing = why
	w.mu.Unlock()
	switch {
	case changed && why != "":
		w.log.Warn("taking no new work", "why", why)
	case changed:
		w.log.Info("taking work again")
	}
}

// drain ends what the worker has: what finishes within the grace period is
// finished, the rest is handed back.
func (w *Worker) drain(long, short *session) {
	deadline := time.Now().Add(w.cfg.Grace)
	for _, s := range []*session{short, long} {
		if s == nil {
			continue
		}
		for {
			s.mu.Lock()
			left := time.Duration(s.progress.Remaining * float64(time.Second))
			s.mu.Unlock()
			now := time.Now()
			known := left > 0 && now.Add(left).Before(deadline)
			brief := left == 0 && s.job.Kind == queue.Views && now.Before(deadline)
			if !known && !brief && s.cause() == nil {
				s.handBack(queue.Drained)
				break
			}
			s.drain.Store(false)
			s.yield.Store(false)
			if w.advance(w.hard, s) {
				break
			}
		}
	}
}
