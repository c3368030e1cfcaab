package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"dreamcad/inference/models"
	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/dir"
	"dreamcad/storage/s3"
)

// openStore opens the storage that storage.url names; empty is a folder in the
// data folder. Nothing is connected yet.
func openStore(a *app) (storage.Store, error) {
	set := a.config.Storage
	address := set.URL
	if address == "" {
		path, err := a.config.dataFile("results")
		if err != nil {
			return nil, err
		}
		return dir.Open(dir.Config{Path: path, MinFree: uint64(set.MinFree) * 1e6})
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, usagef("storage.url is not a URL") // it may hold a secret
	}
	switch u.Scheme {
	case "file":
		return dir.Open(dir.Config{Path: filepath.FromSlash(u.Path), MinFree: uint64(set.MinFree) * 1e6})
	case "s3":
		cfg, err := s3.ParseURL(address)
		if err != nil {
			return nil, usageError{err}
		}
		if set.AccessKey != "" {
			cfg.AccessKey, cfg.SecretKey, cfg.SessionToken = set.AccessKey, string(set.SecretKey), string(set.SessionToken)
		}
		return s3.Open(cfg)
	default:
		return nil, usagef("storage.url begins with %q; possible are file and s3", u.Scheme)
	}
}

// checkStore makes sure at the start of a service that the storage works, and warns
// of what it cannot do.
func checkStore(a *app, s storage.Store) error {
	ctx, cancel := context.WithTimeout(a.ctx, time.Minute)
	defer cancel()
	f, err := s.Check(ctx)
	if errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrFull) {
		a.log.Warn("the storage does not work now; going on, it is tried again when it is needed", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the storage: %w", err)
	}
	if !f.Conditional {
		a.log.Warn("the storage lets a second writer through: only the queue keeps results from being published twice", "storage", f.Backend)
	}
	a.log.Info("storage works", "storage", f.Backend)
	return nil
}

// sweepConfig is what may be deleted, by the settings.
func sweepConfig(a *app, q queue.Reader) storage.SweepConfig {
	cfg := storage.SweepConfig{Keep: a.config.Storage.Keep, Live: func(ctx context.Context, id string) (bool, error) {
		job, err := q.Job(ctx, id)
		if errors.Is(err, queue.ErrNotFound) {
			return false, nil
		}
		return err == nil && !job.Status.Terminal(), err
	}}
	if k := a.config.Storage.KeepBulk; k > 0 {
		cfg.KeepClass = map[string]time.Duration{string(queue.Bulk): k}
	}
	return cfg
}

// runSweeper deletes each hour what is past its time, until ctx ends. Several
// sweepers on one storage do no harm.
func runSweeper(ctx context.Context, a *app, s storage.Store, q queue.Reader) error {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		rep, err := storage.Sweep(ctx, s, sweepConfig(a, q))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.log.Warn("sweeping the storage failed", "err", err)
		case rep.Expired+rep.Loose+rep.Uploads > 0:
			a.log.Info("swept the storage", "results", rep.Expired, "files", rep.Loose, "uploads", rep.Uploads, "bytes", rep.Bytes)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

type storageCmd struct {
	Check storageCheckCmd `cmd:"" help:"Write, read back, create twice, link and delete; says what the storage supports."`
	GC    storageGCCmd    `cmd:"" name:"gc" help:"Delete expired results and what no result names."`
	DU    storageDUCmd    `cmd:"" name:"du" help:"Show how much is stored, by kind."`
}

type storageCheckCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run checks the storage that the settings name.
func (c *storageCheckCmd) Run(a *app) error {
	s, err := openStore(a)
	if err != nil {
		return err
	}
	f, err := s.Check(a.ctx)
	if err != nil {
		return fmt.Errorf("check the storage: %w", err)
	}
	if c.JSON {
		return printJSON(a.stdout, map[string]any{"storage": f.Backend, "conditional_create": f.Conditional, "links": f.Links, "free_bytes": f.FreeBytes})
	}
	fmt.Fprintln(a.stdout, f.Backend)
	fmt.Fprintln(a.stdout, "  write, read, delete  yes")
	say := func(what string, ok bool, without string) {
		answer := "yes"
		if !ok {
			answer = "no: " + without
		}
		fmt.Fprintf(a.stdout, "  %-21s%s\n", what, answer)
	}
	say("conditional create", f.Conditional, "only the queue keeps results from being published twice")
	say("public links", f.Links, "files are served through the web console")
	if f.FreeBytes >= 0 {
		fmt.Fprintf(a.stdout, "  %-21s%s\n", "free", models.Size(f.FreeBytes))
	}
	return nil
}

type storageGCCmd struct {
	DryRun bool `help:"Say what would go, and delete nothing."`
	JSON   bool `name:"json" help:"Print JSON."`
}

// Run sweeps once. The queue tells which jobs still run.
func (c *storageGCCmd) Run(a *app) error {
	s, err := openStore(a)
	if err != nil {
		return err
	}
	q, err := openQueue(a.ctx, a)
	if err != nil {
		return err
	}
	defer q.Close()
	cfg := sweepConfig(a, q)
	cfg.DryRun = c.DryRun
	rep, err := storage.Sweep(a.ctx, s, cfg)
	if err != nil {
		return fmt.Errorf("sweep the storage: %w", err)
	}
	if c.JSON {
		return printJSON(a.stdout, rep)
	}
	verb := "deleted"
	if c.DryRun {
		verb = "would delete"
	}
	fmt.Fprintf(a.stdout, "%s %d expired results, %d files that no result names and %d unfinished uploads: %s\nkept %d results, %s\n",
		verb, rep.Expired, rep.Loose, rep.Uploads, models.Size(rep.Bytes), rep.KeptResult, models.Size(rep.Kept))
	if rep.Skipped > 0 {
		fmt.Fprintf(a.stdout, "left %d jobs alone whose manifest cannot be read\n", rep.Skipped)
	}
	return nil
}

type storageDUCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run adds up what is stored.
func (c *storageDUCmd) Run(a *app) error {
	s, err := openStore(a)
	if err != nil {
		return err
	}
	u, err := storage.Measure(a.ctx, s)
	if err != nil {
		return fmt.Errorf("measure the storage: %w", err)
	}
	if c.JSON {
		return printJSON(a.stdout, u)
	}
	row := func(what string, n storage.Amount) {
		fmt.Fprintf(a.stdout, "%-12s%8d objects %12s\n", what, n.Objects, models.Size(n.Bytes))
	}
	row("results", u.Results)
	row("attempts", u.Attempts)
	row("checkpoints", u.Checkpoints)
	row("other", u.Other)
	fmt.Fprintf(a.stdout, "%d jobs\n", u.Jobs)
	return nil
}
