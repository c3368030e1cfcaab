package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"dreamcad/queue"
)

// hands are what the device loop holds: at most one long job (a mesh), and some
// short ones (views), which go first and step together where that pays.
type hands struct {
	long   *session
	short  []*session
	joined int // short ones that came to others since the hands were last empty
}

// maxJoined short jobs for each place may join in a row; then the hands become
// empty, so that other kinds get their turn.
const maxJoined = 8

// turn are the sessions that step now. A job that cost a worker its life before
// steps alone, so that no other is taken for the guilty one.
func (h *hands) turn() []*session {
	var sound []*session
	for _, s := range h.short {
		if s.job.Crashes == 0 {
			sound = append(sound, s)
		}
	}
	switch {
	case len(sound) > 0:
		return sound
	case len(h.short) > 0:
		return h.short[:1]
	case h.long != nil:
		return []*session{h.long}
	}
	return nil
}

// suspect tells whether a short job is there that cost a worker its life before.
func (h *hands) suspect() bool {
	return slices.ContainsFunc(h.short, func(s *session) bool { return s.job.Crashes > 0 })
}

// alone tells whether the worker has no lease besides this one.
func (w *Worker) alone(s *session) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running) == 1 && w.running[s.ref.Lease] == s
}

// room tells whether a short job could come to those that are there.
func (h *hands) room(batch int) bool {
	if len(h.short) == 0 {
		return true
	}
	return !h.suspect() && len(h.short) < batch && (h.long != nil || h.joined < maxJoined*batch)
}

func (h *hands) drop(s *session) {
	if h.long == s {
		h.long = nil
	}
	h.short = slices.DeleteFunc(h.short, func(o *session) bool { return o == s })
}

// batch is how many short jobs are best made together.
func (w *Worker) batch() int {
	if b, ok := w.maker.(Batcher); ok {
		return b.Batch()
	}
	return 1
}

// loop owns the device.
func (w *Worker) loop(ctx context.Context) {
	var h hands
	lease := newLeaser(w)
	defer lease.stop()
	for ctx.Err() == nil && w.lost == nil {
		lease.want(w.wanted(&h))
		if turn := h.turn(); len(turn) > 0 {
			select {
			case n := <-w.ready:
				lease.got(n)
				w.place(n, &h)
				continue
			default:
			}
			// What is leased while a suspect takes the worker down would be blamed with
			// it: it steps when nothing else is asked for, held, published or given back.
			if s := turn[0]; s != h.long && s.job.Crashes > 0 && s.cause() == nil {
				if h.long != nil {
					h.long.handBack(queue.Yielded)
					h.long = nil
				}
				if lease.asking.Load() > 0 || !w.alone(s) {
					time.Sleep(5 * time.Millisecond)
					continue
				}
			}
			for _, s := range w.advance(ctx, turn) {
				h.drop(s)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case n := <-w.ready:
			lease.got(n)
			w.place(n, &h)
		case <-time.After(time.Second): // Admit may have changed
		}
	}
	lease.stop()
	w.drain(&h)
}

// place takes a prepared session into the hands.
func (w *Worker) place(s *session, h *hands) {
	views := s.job.Kind == queue.Views
	late := len(h.short) >= max(w.batch(), 1) || s.job.Crashes > 0 && h.suspect()
	if views && late || !views && h.long != nil { // the wish for work was older than what runs now
		w.sessions.Go(func() { s.giveBack(queue.Returned, nil) })
		return
	}
	s.started = time.Now()
	switch {
	case !views:
		h.long = s
		return
	case len(h.short) == 0:
		h.joined = 0
	default:
		h.joined++
	}
	h.short = append(h.short, s)
}

// wanted says what the worker could take now; nil: nothing.
func (w *Worker) wanted(h *hands) *queue.Capabilities {
	if !h.room(w.batch()) || !w.admits() {
		return nil
	}
	c := &queue.Capabilities{Worker: w.process, Name: w.cfg.Name, Models: modelNames(w.maker.Models()),
		Wait: w.cfg.LeaseWait, Device: w.maker.Device()}
	if h.long != nil || len(h.short) > 0 {
		c.Kinds, c.Beside = []queue.Kind{queue.Views}, true
	}
	if h.long != nil {
		c.Classes = []queue.Class{queue.Interactive}
	}
	return c
}

// advance does one step of each session, what they have in common at once. It
// returns those of which the device is free: done, failed, stopped or handed back.
func (w *Worker) advance(ctx context.Context, turn []*session) (released []*session) {
	var going []*session
	for _, s := range turn {
		if w.stopped(s) {
			released = append(released, s)
		} else {
			going = append(going, s)
		}
	}
	if len(going) == 0 || !w.rest(ctx, going) {
		return released
	}
	w.ahead(going)
	lost := w.lost != nil // in the common step: then all of them are suspects
	for _, s := range going {
		if w.lost != nil && !lost {
			break // the others only had bad luck; they are handed back
		}
		if w.step(s) {
			released = append(released, s)
		}
	}
	return released
}

// stopped does what the queue asked for; true: the session is over.
func (w *Worker) stopped(s *session) bool {
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
	return false
}

// ahead does what the next steps of several sessions have in common. When that
// fails they step alone.
func (w *Worker) ahead(going []*session) {
	b, ok := w.maker.(Batcher)
	if !ok {
		return
	}
	var works []Work
	var sessions []*session
	for _, s := range going {
		if s.work != nil {
			works, sessions = append(works, s.work), append(sessions, s)
		}
	}
	if len(works) < 2 {
		return
	}
	if err := w.guarded(sessions, func() error { return b.Ahead(works) }); err != nil {
		w.log.Warn("the common step of several jobs failed, they step alone", "jobs", len(works), "err", err)
		w.noteLost(err)
	}
}

// step does one step of a session; true: the device is free of it.
func (w *Worker) step(s *session) (released bool) {
	var upd Update
	err := w.guarded([]*session{s}, func() error {
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
	w.noteLost(err)
	s.closeWork()
	w.sessions.Go(func() { s.broke(err) })
	return true
}

// noteLost remembers that the device is gone.
func (w *Worker) noteLost(err error) {
	if w.lost == nil && errors.Is(err, ErrDevice) {
		w.lost = err
		w.log.Error("the device is lost; the worker ends", "err", err)
	}
}

// guarded runs a piece of work under the watchdog, measures it and turns a panic
// into an error. The time is that of every session, the device's use is shared.
func (w *Worker) guarded(sessions []*session, fn func() error) (err error) {
	s := sessions[0]
	s.mu.Lock()
	stage := s.progress.Stage
	s.mu.Unlock()
	if stage == "" && s.work != nil {
		stage = queue.StageText // the first step of any job
	}
	if len(sessions) > 1 {
		stage = queue.StageViews
	}
	begun := time.Now()
	w.dog.arm(sessions, string(stage))
	defer func() {
		w.dog.disarm()
		d := time.Since(begun)
		for _, s := range sessions {
			s.used.Add(int64(d) / int64(len(sessions)))
			if stage != "" {
				s.timings[string(stage)] += d.Seconds()
			}
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
	case errors.Is(err, ErrDevice):
		// A job may be the reason, so it counts as a crash.
		s.fail(queue.Failure{Kind: queue.FailCrash, Detail: err.Error()})
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
// sessions' state should be looked at again first.
func (w *Worker) rest(ctx context.Context, going []*session) bool {
	if w.gov == nil {
		return true
	}
	d := w.gov.Pause()
	if d <= 0 {
		return true
	}
	for _, s := range going {
		if d >= w.cfg.Hold && s.work != nil && s.sinceSave > 0 {
			if c := s.save(); c != nil {
				s.shipCheckpoint(c)
			}
		}
	}
	select {
	case <-time.After(min(d, time.Second)):
	case <-ctx.Done():
	case <-going[0].ctx.Done():
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
			why = fmt.Sprintf("%d MB free in %q, at least %d MB are needed", free/1e6, filepath.Clean(w.spool.dir), w.cfg.MinFree/1e6)
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
// finished, the rest is handed back. On a lost device nothing can be finished.
func (w *Worker) drain(h *hands) {
	deadline := time.Now().Add(w.cfg.Grace)
	for {
		turn := h.turn()
		if len(turn) == 0 {
			return
		}
		var going []*session
		for _, s := range turn {
			if s.cause() == nil && (w.lost != nil || !s.endsBy(deadline)) {
				s.handBack(queue.Drained)
				h.drop(s)
				continue
			}
			s.drain.Store(false)
			s.yield.Store(false)
			going = append(going, s)
		}
		for _, s := range w.advance(w.hard, going) {
			h.drop(s)
		}
	}
}

// endsBy tells whether the work will be done before the deadline, as far as known.
func (s *session) endsBy(deadline time.Time) bool {
	s.mu.Lock()
	left := time.Duration(s.progress.Remaining * float64(time.Second))
	s.mu.Unlock()
	if left > 0 {
		return time.Now().Add(left).Before(deadline)
	}
	return s.job.Kind == queue.Views && time.Now().Before(deadline)
}
