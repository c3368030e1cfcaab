package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// SweepConfig says what is too old.
type SweepConfig struct {
	// Keep is the life of a result after it was published; KeepClass overrides it
	// by the manifest's class. Zero keeps for ever.
	Keep      time.Duration
	KeepClass map[string]time.Duration
	// Loose is the age after which files of an attempt that no manifest names,
	// checkpoints without a result and unfinished uploads go. Default 24 h.
	Loose time.Duration
	// Live, if set, tells that a job is still queued or running: its files stay
	// whatever their age.
	Live func(ctx context.Context, job string) (bool, error)
	// DryRun reports and deletes nothing.
	DryRun bool
	Now    func() time.Time // nil means time.Now
}

// SweepReport counts what was (or would be) deleted.
type SweepReport struct {
	Jobs       int   `json:"jobs"`    // jobs looked at
	Expired    int   `json:"expired"` // results past their time
	Loose      int   `json:"loose"`   // files of attempts that do not count
	Uploads    int   `json:"uploads"` // unfinished uploads
	Bytes      int64 `json:"bytes"`   // of all objects deleted
	Kept       int64 `json:"kept"`    // bytes that stay
	KeptResult int   `json:"results"` // results that stay
	Skipped    int   `json:"skipped"` // jobs left alone because their manifest could not be read
}

// Sweep deletes what nobody needs: expired results, files of attempts that lost,
// checkpoints of finished jobs, unfinished uploads. It lists the whole store once
// and holds one job in memory. An object is deleted only if the manifest was read
// (or is known to be missing), so an outage deletes nothing.
func Sweep(ctx context.Context, s Store, cfg SweepConfig) (SweepReport, error) {
	var rep SweepReport
	now := time.Now()
	if cfg.Now != nil {
		now = cfg.Now()
	}
	if cfg.Loose <= 0 {
		cfg.Loose = 24 * time.Hour
	}
	var job string
	var objects []Info
	flush := func() error {
		if job == "" {
			return nil
		}
		err := sweepJob(ctx, s, cfg, now, job, objects, &rep)
		job, objects = "", objects[:0]
		return err
	}
	for info, err := range s.List(ctx, jobsPrefix) {
		if err != nil {
			return rep, err
		}
		j, _, _, ok := splitJobKey(info.Key)
		if !ok {
			continue
		}
		if j != job {
			if err := flush(); err != nil {
				return rep, err
			}
			job = j
		}
		objects = append(objects, info)
	}
	if err := flush(); err != nil {
		return rep, err
	}
	for info, err := range s.List(ctx, "probe/") {
		if err != nil {
			return rep, err
		}
		if now.Sub(info.Modified) > cfg.Loose {
			if err := remove(ctx, s, cfg, []Info{info}, &rep); err != nil {
				return rep, err
			}
			rep.Loose++
		}
	}
	for u, err := range s.Uploads(ctx, now.Add(-cfg.Loose)) {
		if err != nil {
			return rep, err
		}
		rep.Uploads++
		if cfg.DryRun {
			continue
		}
		if err := s.Abort(ctx, u); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

func sweepJob(ctx context.Context, s Store, cfg SweepConfig, now time.Time, job string, objects []Info, rep *SweepReport) error {
	rep.Jobs++
	m, err := ReadManifest(ctx, s, job)
	if err != nil && !errors.Is(err, ErrNotFound) {
		if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		rep.Skipped++ // damaged or from a newer program: leave it to people
		return nil
	}
	var doomed []Info
	if m != nil {
		keep, ok := cfg.KeepClass[m.Class]
		if !ok {
			keep = cfg.Keep
		}
		if keep > 0 && now.Sub(m.Published) > keep {
			rep.Expired++
			// The manifest goes last: while it is there nobody makes the job anew.
			var last []Info
			for _, o := range objects {
				if o.Key == ResultKey(job) {
					last = append(last, o)
				} else {
					doomed = append(doomed, o)
				}
			}
			if err := remove(ctx, s, cfg, doomed, rep); err != nil {
				return err
			}
			return remove(ctx, s, cfg, last, rep)
		}
		rep.KeptResult++
	} else if cfg.Live != nil {
		live, err := cfg.Live(ctx, job)
		if err != nil {
			return fmt.Errorf("sweeping job %q: %w", job, err)
		}
		if live {
			for _, o := range objects {
				rep.Kept += o.Size
			}
			return nil
		}
	}
	for _, o := range objects {
		_, folder, _, _ := splitJobKey(o.Key)
		counts := folder == "" || m != nil && folder == m.Attempt
		if counts || now.Sub(o.Modified) <= cfg.Loose {
			rep.Kept += o.Size
			continue
		}
		doomed = append(doomed, o)
	}
	rep.Loose += len(doomed)
	return remove(ctx, s, cfg, doomed, rep)
}

func remove(ctx context.Context, s Store, cfg SweepConfig, objects []Info, rep *SweepReport) error {
	keys := make([]string, 0, len(objects))
	for _, o := range objects {
		keys = append(keys, o.Key)
		rep.Bytes += o.Size
	}
	if cfg.DryRun || len(keys) == 0 {
		return nil
	}
	return s.Delete(ctx, keys...)
}
