package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
)

// callLimit bounds how long an ending call to the queue is tried: after that the
// lease has long expired and another attempt has the job.
const callLimit = 10 * time.Minute

// prepare looks whether the job is made already, fetches its checkpoint and hands
// the session to the device loop; false means that it did not come to that. It runs
// beside the loop; ctx ends when the worker takes no more work.
func (s *session) prepare(ctx context.Context) (handed bool) {
	pctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(errExit) })()
	m, err := s.published(pctx)
	if m != nil {
		s.log.Info("an earlier attempt has published this job", "winner", m.Attempt)
		s.w.sessions.Go(func() { s.complete(m) })
		return false
	}
	if err == nil {
		if m, dir := s.w.spool.finished(s.job.ID); m != nil {
			s.log.Info("publishing a result that was made earlier", "made_by", m.Attempt)
			m.Attempt = s.ref.Lease
			s.w.addUnpublished(1)
			s.w.sessions.Go(func() { s.publish(m, dir) })
			return false
		}
		if s.job.Check != nil || s.job.Attempt > 1 {
			s.fetchCheckpoint(pctx)
		}
		select {
		case s.w.ready <- s:
			return true
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
	}
	s.w.sessions.Go(func() {
		switch {
		case s.cause() != nil:
			s.abandon()
		case ctx.Err() != nil:
			s.giveBack(queue.Drained, nil)
		default:
			s.fail(queue.Failure{Kind: queue.FailError, Detail: "look for an earlier result: " + err.Error(),
				Sentence: "The storage does not answer; the job will be tried again."})
		}
	})
	return false
}

// published returns the manifest of the job if an earlier attempt wrote one. A
// first attempt does not wait for a storage that is away; a later one does, for
// computing a published job again would be for nothing.
func (s *session) published(ctx context.Context) (*storage.Manifest, error) {
	limit := 2 * time.Minute
	if s.job.Attempt <= 1 {
		limit = 0
	}
	var m *storage.Manifest
	err := s.persist(ctx, "looking for an earlier result", limit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var err error
		if m, err = storage.ReadManifest(ctx, s.w.store, s.job.ID); errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil && s.job.Attempt <= 1 && ctx.Err() == nil {
		return nil, nil
	}
	return m, err
}

// viewsReady uploads the four views in the background and tells the requester.
func (s *session) viewsReady(products []Product) {
	files, err := describe(s.dir, products)
	if err != nil {
		s.log.Error("reading the views failed", "err", err)
		return
	}
	s.background(func(ctx context.Context) {
		err := s.persist(ctx, "uploading the views", 10*time.Minute, func(ctx context.Context) error {
			return s.putFiles(ctx, files, s.dir)
		})
		if err != nil {
			if s.cause() == nil {
				s.log.Warn("the views could not be shown early", "err", err)
			}
			return
		}
		s.mu.Lock()
		s.views = queueFiles(files)
		s.mu.Unlock()
		s.tell()
	})
}

// putFiles stores files of the attempt that are not there yet.
func (s *session) putFiles(ctx context.Context, files []storage.File, dir string) error {
	for _, f := range files {
		s.mu.Lock()
		done := s.stored[f.Name]
		s.mu.Unlock()
		if done {
			continue
		}
		if err := putFile(ctx, s.w.store, storage.FileKey(s.job.ID, s.ref.Lease, f.Name), filepath.Join(dir, f.Name)); err != nil {
			return err
		}
		s.mu.Lock()
		s.stored[f.Name] = true
		s.mu.Unlock()
	}
	return nil
}

// putFile stores a local file, within a time that its size allows.
func putFile(ctx context.Context, store storage.Store, key, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	// One minute, and as long as 256 kB/s take.
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(fi.Size()>>18)*time.Second)
	defer cancel()
	return store.Put(ctx, key, f, fi.Size())
}

// finish takes what the last step made. The result is kept on the local disk
// before anything is uploaded; publishing goes on beside the device.
func (s *session) finish(o *Outcome) error {
	m, err := newManifest(&s.job, s.ref.Lease, s.dir, o)
	if err != nil {
		return err
	}
	m.Device, m.Version, m.Timings = s.w.maker.Device(), s.w.cfg.Version, s.timings
	if err := keepDraft(m, s.dir); err != nil {
		return err
	}
	s.w.at("kept")
	s.w.addUnpublished(1)
	s.w.sessions.Go(func() { s.publish(m, s.dir) })
	return nil
}

// publish stores the files of m from dir, then the manifest, then completes the
// job. Every step may be repeated; the manifest decides which attempt counts.
func (s *session) publish(m *storage.Manifest, dir string) {
	defer s.w.addUnpublished(-1)
	s.report(queue.Progress{Stage: queue.StageUpload, Total: len(m.Files)})
	s.flush(5 * time.Second)
	begun := time.Now()
	err := s.persist(s.ctx, "uploading the result", s.w.cfg.PublishLimit, func(ctx context.Context) error {
		return s.putFiles(ctx, m.Files, dir)
	})
	if err != nil {
		s.unpublished(err)
		return
	}
	s.w.at("artifacts")
	// Ask before publishing: when the queue was away the job may be another's.
	if err := s.persist(s.ctx, "confirming the lease", callLimit, func(context.Context) error { return s.beat() }); err != nil {
		s.unpublished(err)
		return
	}
	if s.cause() != nil {
		s.abandon()
		return
	}
	var won *storage.Manifest
	err = s.persist(s.ctx, "writing the manifest", s.w.cfg.PublishLimit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		var err error
		won, err = storage.Publish(ctx, s.w.store, m)
		return err
	})
	if err != nil {
		s.unpublished(err)
		return
	}
	s.w.noteFull(false)
	s.w.at("manifest")
	s.log.Info("published", "winner", won.Attempt, "took", time.Since(begun).Round(time.Millisecond))
	s.complete(won)
}

// unpublished ends a session whose result could not be published. The result
// stays on the local disk for the next attempt here.
func (s *session) unpublished(err error) {
	switch cause := s.cause(); {
	case errors.Is(cause, errExit):
		s.giveBack(queue.Drained, nil)
	case cause != nil:
		s.abandon()
	default:
		s.fail(queue.Failure{Kind: queue.FailError, RetryAfter: 10 * time.Minute,
			Sentence: "The result is made but could not be stored; it is kept and will be stored when the storage works again.",
			Detail:   "publish: " + err.Error()})
	}
}

// complete tells the queue that the job is done with what the manifest holds, and
// clears what is no longer needed.
func (s *session) complete(m *storage.Manifest) {
	res := queue.Result{Winner: m.Attempt, Files: queueFiles(m.Files), Notices: m.Notices, Timings: m.Timings,
		Device: m.Device, Model: m.Model.Name, Used: s.seconds()}
	err := s.last("completing the job", func(ctx context.Context) error { return s.w.q.Complete(ctx, s.ref, res) })
	s.w.at("completed")
	switch queue.CodeOf(err) {
	case "":
		if err != nil {
			s.log.Error("completing the job failed", "err", err)
			s.end()
			return
		}
		s.log.Info("job done", "kind", s.job.Kind, "took", time.Since(s.started).Round(time.Millisecond))
		if s.w.meter != nil {
			s.w.meter.Finished(s.job.Kind, m.Timings)
		}
		s.clear(m.Attempt != s.ref.Lease)
	case queue.CodeCancelled:
		// The cancel came first. A manifest of ours must not bring the job back.
		if m.Attempt == s.ref.Lease {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			if err := s.w.store.Delete(ctx, storage.ResultKey(s.job.ID)); err != nil {
				s.log.Warn("withdrawing the manifest of a cancelled job failed", "err", err)
			}
			cancel()
		}
		s.clear(true)
	case queue.CodeLost:
		// Whoever has the job now finds the manifest and completes with it.
		s.log.Warn("completion refused: the lease was lost", "winner", m.Attempt)
		if m.Attempt != s.ref.Lease {
			s.deleteOwn()
		}
	default:
		s.log.Error("completing the job failed", "err", err)
	}
	s.end()
}

// clear removes the job's local folder and checkpoints, and with own also what
// this attempt stored.
func (s *session) clear(own bool) {
	if own {
		s.deleteOwn()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if s.nextCkpt > 0 || s.job.Check != nil {
		if _, err := storage.DeletePrefix(ctx, s.w.store, storage.CheckpointPrefix(s.job.ID)); err != nil {
			s.log.Warn("deleting checkpoints failed; the sweeper will", "err", err)
		}
	}
	for _, box := range s.w.spool.boxes(s.job.ID) {
		if err := os.RemoveAll(box); err != nil {
			s.log.Warn("clearing the local folder failed", "err", err)
		}
	}
}

// deleteOwn removes what this attempt stored.
func (s *session) deleteOwn() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := storage.DeletePrefix(ctx, s.w.store, storage.AttemptPrefix(s.job.ID, s.ref.Lease)); err != nil {
		s.log.Warn("deleting the files of this attempt failed; the sweeper will", "err", err)
	}
}

// abandon ends a session that must not go on: cancelled, lost, or the worker ends.
// Nothing is told to the queue but, at the end of the worker, that the job is free.
func (s *session) abandon() {
	cause := s.cause()
	if errors.Is(cause, errExit) {
		s.giveBack(queue.Drained, nil)
		return
	}
	s.log.Info("job stopped", "why", cause)
	s.w.at("abandoned")
	s.flush(0)
	if errors.Is(cause, errCancelled) {
		s.clear(true)
	} else {
		s.deleteOwn()
		os.RemoveAll(s.dir)
		os.Remove(s.dir + ".json")
	}
	s.end()
}

// last makes an ending call to the queue, again and again while the queue is away.
func (s *session) last(what string, call func(context.Context) error) error {
	ctx := context.Background()
	limit := callLimit
	if s.w.hard.Err() != nil {
		limit = 3 * time.Second
	}
	return s.persist(ctx, what, limit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return call(ctx)
	})
}

// giveBack returns the job to the queue with its checkpoint.
func (s *session) giveBack(why queue.Reason, c *queue.Checkpoint) {
	s.flush(0)
	err := s.last("giving the job back", func(ctx context.Context) error {
		return s.w.q.GiveBack(ctx, s.ref, queue.GiveBackOptions{Reason: why, Used: s.seconds(), Checkpoint: c})
	})
	if err != nil {
		s.log.Warn("the job could not be given back", "why", why, "err", err)
	} else {
		s.log.Info("job given back", "why", why)
	}
	s.end()
}

// fail ends the attempt as failed.
func (s *session) fail(f queue.Failure) {
	s.flush(0)
	f.Worker, f.Used = s.w.process, s.seconds()
	if (f.Kind == queue.FailCrash || f.Kind == queue.FailStuck) && s.w.lastLog != nil {
		f.Log = s.w.lastLog()
	}
	var st queue.Status
	err := s.last("reporting a failure", func(ctx context.Context) error {
		var err error
		st, err = s.w.q.Fail(ctx, s.ref, f)
		return err
	})
	s.log.Error("attempt failed", "kind", f.Kind, "detail", f.Detail, "status", st, "err", err)
	s.end()
}

func queueFiles(files []storage.File) []queue.File {
	out := make([]queue.File, 0, len(files))
	for _, f := range files {
		out = append(out, queue.File(f))
	}
	return out
}

func (w *Worker) addUnpublished(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unpublished += n
}

// noteFull remembers whether the last attempt to store found no space.
func (w *Worker) noteFull(full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = full
}
