package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"dreamcad/inference/device"
	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/rules"
)

// spared protects the card of a one-shot command as a worker's watch does: it
// looks at the sensors and lets the command rest between its steps.
type spared struct {
	governor *rules.Governor
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// spare begins to look after the card that the command uses, and after those of
// worker.guard_gpus. Without a driver there is nothing to look at.
func (a *app) spare(i device.Info, f engineFlags) (*spared, error) {
	spec := f.Device
	if spec == "" {
		spec = a.config.Worker.Device
	}
	guards, err := guard(a.config.Worker.GuardGPUs, ownCard(i, spec))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(a.ctx)
	s := &spared{governor: rules.NewGovernor(a.config.Ops.limits(), guards, nil, a.log), stop: stop}
	cards, err := gpu.Open()
	if err != nil {
		if !errors.Is(err, gpu.ErrNoDriver) {
			a.log.Warn("the card is not watched", "err", err)
		}
		return s, nil
	}
	local := host.Sensors{Directories: directories(a)}
	line, shown := time.Now(), a.config.Log.File != "" || !isTerminal(a.stderr) // it would tear the bars
	look := func(ctx context.Context) {
		seen := &rules.Snapshot{At: time.Now(), Cards: cards.Read()}
		s.governor.Observe(seen, nil)
		if shown && seen.At.Sub(line) >= a.config.Ops.MetricsEvery-a.config.Ops.Every/2 {
			line, seen.Local = seen.At, local.Read(ctx)
			logFigures(a.log, seen, local.Directories, s.governor)
		}
	}
	look(ctx) // before the first step
	s.done.Go(func() {
		defer cards.Close()
		_ = every(ctx, a.config.Ops.Every, look)
	})
	return s, nil
}

// rest waits before a step for as long as the card needs.
func (s *spared) rest(ctx context.Context) error {
	for {
		d := s.governor.Pause()
		if d <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(d, time.Second)): // a long rest may end early
		}
		if d <= time.Second {
			return nil
		}
	}
}

func (s *spared) close() {
	s.stop()
	s.done.Wait()
}
