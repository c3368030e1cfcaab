package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
)

// fetchCheckpoint downloads the newest good checkpoint of the job unless one as new
// lies on this host. Without it the work begins anew, so a failure is only logged.
func (s *session) fetchCheckpoint(ctx context.Context) {
	best := -1
	for _, box := range s.w.spool.boxes(s.job.ID) {
		if ns := checkpoints(box); len(ns) > 0 {
			best = max(best, ns[0])
		}
	}
	var stored []int
	err := s.persist(ctx, "looking for checkpoints", time.Minute, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		stored = stored[:0]
		for info, err := range s.w.store.List(ctx, storage.CheckpointPrefix(s.job.ID)) {
			if err != nil {
				return err
			}
			if n, ok := storage.CheckpointNumber(info.Key); ok {
				stored = append(stored, n)
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("looking for checkpoints failed", "err", err)
	}
	sort.Sort(sort.Reverse(sort.IntSlice(stored)))
	for _, n := range stored {
		if n <= best {
			return
		}
		err := s.persist(ctx, "fetching a checkpoint", 5*time.Minute, func(ctx context.Context) error {
			return s.download(ctx, n)
		})
		if err == nil {
			return
		}
		s.log.Warn("checkpoint not usable, trying an older one", "n", n, "err", err)
	}
}

// download copies checkpoint n from storage into the box and checks it.
func (s *session) download(ctx context.Context, n int) error {
	body, err := s.w.store.Get(ctx, storage.CheckpointKey(s.job.ID, n), 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := os.MkdirAll(s.box, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.box, ckptName(n))
	if err := writeFile(path, func(w io.Writer) error { _, err := io.Copy(w, body); return err }); err != nil {
		return err
	}
	f, _, err := openCheckpoint(path)
	if err != nil {
		os.Remove(path)
		if errors.Is(err, ErrCheckpoint) {
			return fmt.Errorf("%w: %w", err, os.ErrNotExist) // no use in fetching it again
		}
		return err
	}
	return f.Close()
}

// begin starts the work, from the newest checkpoint that can be used.
func (s *session) begin() error {
	type place struct {
		n    int
		path string
	}
	var places []place
	for _, box := range s.w.spool.boxes(s.job.ID) {
		for _, n := range checkpoints(box) {
			places = append(places, place{n, filepath.Join(box, ckptName(n))})
			s.nextCkpt = max(s.nextCkpt, n+1)
		}
	}
	sort.SliceStable(places, func(i, j int) bool { return places[i].n > places[j].n })
	for _, p := range places {
		ok, err := s.beginFrom(p.path)
		if ok || err != nil {
			return err
		}
	}
	return s.start(nil)
}

// beginFrom goes on from a checkpoint; false without an error means that it cannot
// be used.
func (s *session) beginFrom(path string) (bool, error) {
	f, ft, err := openCheckpoint(path)
	if err != nil {
		s.log.Warn("checkpoint not usable", "path", path, "err", err)
		return false, nil
	}
	defer f.Close()
	if ft.Job != s.job.ID || ft.Model != s.w.digestOf(s.job.Model) {
		s.log.Warn("checkpoint is of another model", "path", path)
		return false, nil
	}
	err = s.start(io.LimitReader(f, ft.Bytes))
	switch {
	case errors.Is(err, ErrCheckpoint):
		s.log.Warn("checkpoint not usable", "path", path, "err", err)
		return false, nil
	case err != nil:
		return false, err
	}
	for stage, sec := range ft.Timings {
		s.timings[stage] += sec
	}
	s.log.Info("going on from a checkpoint", "n", ft.N, "stage", ft.Stage, "step", ft.Step)
	return true, nil
}

func (s *session) start(ckpt io.Reader) error {
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	work, err := s.w.maker.Start(s.ctx, Task{Job: s.job, Dir: s.dir, Checkpoint: ckpt})
	if err != nil {
		return err
	}
	s.work = work
	return nil
}

// save writes a checkpoint to the local disk and tells the queue of it; nil when
// that failed, which costs only the safety of the work.
func (s *session) save() *queue.Checkpoint {
	s.mustSave.Store(false)
	s.sinceSave, s.lastSave = 0, time.Now()
	s.mu.Lock()
	p := s.progress
	s.mu.Unlock()
	ft := footer{Job: s.job.ID, N: s.nextCkpt, Model: s.w.digestOf(s.job.Model), Stage: p.Stage, Step: p.Step, Timings: s.timings}
	path, err := writeCheckpoint(s.box, ft, s.work.Save)
	if err != nil {
		s.w.noteFull(diskFull(err))
		s.log.Error("no checkpoint", "err", err)
		return nil
	}
	s.nextCkpt++
	s.w.at("checkpoint")
	c := &queue.Checkpoint{Key: path, Step: p.Step, Stage: p.Stage, Model: ft.Model, Host: s.w.host}
	s.mu.Lock()
	s.check = c
	s.mu.Unlock()
	return c
}

// uploadCheckpoint stores a local checkpoint, drops all but the last two stored and
// returns the pointer to it.
func (s *session) uploadCheckpoint(ctx context.Context, c *queue.Checkpoint) (*queue.Checkpoint, error) {
	n, ok := storage.CheckpointNumber("0" + c.Key[len(c.Key)-8:])
	if !ok {
		return nil, fmt.Errorf("uploading checkpoint %q: no number", c.Key)
	}
	key := storage.CheckpointKey(s.job.ID, n)
	if err := putFile(ctx, s.w.store, key, c.Key); err != nil {
		return nil, err
	}
	up := *c
	up.Key, up.Host = key, ""
	var old []string
	for info, err := range s.w.store.List(ctx, storage.CheckpointPrefix(s.job.ID)) {
		if err != nil {
			break // the next upload will see them
		}
		old = append(old, info.Key)
	}
	sort.Strings(old)
	if len(old) > keepCheckpoints {
		if err := s.w.store.Delete(ctx, old[:len(old)-keepCheckpoints]...); err != nil {
			s.log.Warn("deleting old checkpoints failed", "err", err)
		}
	}
	return &up, nil
}

// shipCheckpoint uploads a checkpoint beside the work.
func (s *session) shipCheckpoint(c *queue.Checkpoint) {
	s.lastUpload = time.Now()
	s.background(func(ctx context.Context) {
		up, err := s.uploadCheckpoint(ctx, c)
		switch {
		case missing(err): // replaced by newer ones meanwhile
		case err != nil:
			if ctx.Err() == nil {
				s.log.Warn("uploading a checkpoint failed; it is on the local disk", "err", err)
			}
		default:
			s.mu.Lock()
			s.check = up
			s.mu.Unlock()
			s.tell()
		}
	})
}

// handBack saves the work and returns the job to the queue; the device is free at
// once, the upload goes on beside it.
func (s *session) handBack(why queue.Reason) {
	var c *queue.Checkpoint
	if s.work != nil {
		c = s.save()
	}
	s.closeWork()
	s.w.sessions.Go(func() {
		if c != nil {
			ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
			up, err := s.uploadCheckpoint(ctx, c)
			cancel()
			if err != nil {
				s.log.Warn("uploading the checkpoint failed; only this host can go on from it", "err", err)
			} else {
				c = up
			}
		}
		if errors.Is(s.cause(), errCancelled) || errors.Is(s.cause(), errLost) {
			s.abandon()
			return
		}
		s.giveBack(why, c)
	})
}
