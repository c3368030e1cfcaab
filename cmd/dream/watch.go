package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dreamcad/inference/device"
	"dreamcad/ops/alert"
	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/rules"
	"dreamcad/queue"
	"dreamcad/storage"
)

// limits are the thresholds of the rules as configured.
func (s *opsSettings) limits() rules.Limits {
	return rules.Limits{
		GPUWarm: s.GPUWarm, GPUHot: s.GPUHot, GPUMargin: s.GPUMargin, VRAM: s.VRAM, Memory: s.Memory, Disk: s.Disk, DiskRefuse: s.DiskRefuse,
		ServerSlow: s.ServerSlow, QueueAge: s.QueueAge, OutboxDepth: s.Outbox,
		OutboxAge: s.OutboxAge, WorkerLost: s.WorkerLost, NoProgress: s.NoProgress, FailureRate: s.FailureRate, FailureWindow: s.FailureWindow,
	}
}

// rules are the rules as configured.
func (s *opsSettings) rules() ([]rules.Rule, error) {
	return rules.Override(rules.Default(s.limits()), s.Rules)
}

// alertConfig says where alerts go besides the queue and the log.
func (s *opsSettings) alertConfig() alert.Config {
	c := alert.Config{Webhook: string(s.Webhook)}
	if s.WebhookToken != "" {
		c.Header = http.Header{"Authorization": {"Bearer " + string(s.WebhookToken)}}
	}
	return c
}

// guard reads worker.guard_gpus. own is the card that this worker uses, or
// rules.NoCard for a worker on the processor.
func guard(setting string, own int) (func(*gpu.Sample) bool, error) {
	switch setting {
	case "", "own":
		return func(c *gpu.Sample) bool { return c.Index == own }, nil
	case "all":
		return func(*gpu.Sample) bool { return true }, nil
	}
	ids := map[string]bool{}
	for id := range strings.SplitSeq(setting, ",") {
		id = strings.TrimSpace(id)
		if _, err := strconv.Atoi(id); err != nil && !strings.HasPrefix(id, "GPU-") {
			return nil, usagef("worker.guard_gpus holds %q; use own, all, or numbers and UUIDs of cards", id)
		}
		ids[id] = true
	}
	return func(c *gpu.Sample) bool { return ids[strconv.Itoa(c.Index)] || ids[c.UUID] }, nil
}

// ownCard is the index of the card that a device is.
func ownCard(i device.Info, spec string) int {
	if i.Kind != "cuda" {
		return rules.NoCard
	}
	n, err := strconv.Atoi(strings.TrimPrefix(spec, "cuda:"))
	if err != nil {
		return 0 // auto takes the first
	}
	return n
}

// watch looks at sensors each second, judges, tells and governs.
type watch struct {
	settings opsSettings
	name     string // of this machine
	cards    *gpu.Sensors
	local    host.Sensors
	servers  host.Sensors
	queue    queue.Queue
	engine   *rules.Engine
	governor *rules.Governor
	sender   *alert.Sender
	log      *slog.Logger

	mu    sync.Mutex // of what the slow looks found
	reply map[string]host.Reply
	stats *queue.Stats
}

// newWatch prepares the watch of a worker that uses the given card.
func newWatch(a *app, q queue.Queue, store storage.Store, own int) (*watch, error) {
	guards, err := guard(a.config.Worker.GuardGPUs, own)
	if err != nil {
		return nil, err
	}
	s := a.config.Ops
	rs, err := s.rules()
	if err != nil {
		return nil, usageError{err}
	}
	w := &watch{settings: s, queue: q, log: a.log, engine: rules.NewEngine(rs),
		governor: rules.NewGovernor(s.limits(), guards, nil, a.log), sender: alert.New(s.alertConfig(), q, a.log)}
	if w.name, err = os.Hostname(); err != nil {
		w.name = "local"
	}
	w.cards, err = gpu.Open()
	if err != nil {
		w.cards = nil
		a.log.Info("no GPU is watched", "why", err)
	}
	dirs := []string{a.config.Data}
	if a.config.Log.File != "" {
		dirs = append(dirs, filepath.Dir(a.config.Log.File))
	}
	w.local.Directories = dirs
	w.servers.Probes = map[string]host.Probe{
		"queue": func(ctx context.Context) error {
			_, err := q.Get(ctx, "watch/probe")
			if queue.CodeOf(err) == queue.CodeNotFound {
				return nil
			}
			return err
		},
		"storage": func(ctx context.Context) error {
			_, err := store.Stat(ctx, "probe/watch")
			if errors.Is(err, storage.ErrNotFound) {
				return nil
			}
			return err
		},
	}
	return w, nil
}

// serversEvery is how often servers are asked and the queue is looked at.
const serversEvery = 10 * time.Second

// run watches until ctx ends.
func (w *watch) run(ctx context.Context) error {
	if w.cards != nil {
		defer w.cards.Close()
	}
	if firing, err := w.queue.FiringAlerts(ctx); err == nil {
		for i := range firing {
			if firing[i].Source == w.name { // what this host said before a restart
				w.engine.Adopt(firing[i].Code, firing[i].Key, firing[i].Since)
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.sender.Run(ctx) })
	group.Go(func() error { return every(ctx, serversEvery, w.askServers) })
	group.Go(func() error {
		lastLine := time.Time{}
		return every(ctx, w.settings.Every, func(ctx context.Context) {
			s := w.look(ctx)
			if w.governor.Busy(w.settings.MetricsEvery) && s.At.Sub(lastLine) >= w.settings.MetricsEvery {
				lastLine = s.At
				w.line(s)
			}
		})
	})
	return group.Wait()
}

// every calls f at once and then each d until ctx ends.
func every(ctx context.Context, d time.Duration, f func(context.Context)) error {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// askServers probes the servers and reads the queue's figures.
func (w *watch) askServers(ctx context.Context) {
	s := w.servers.Read(ctx)
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := w.queue.Stats(limited)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reply, w.stats = s.Servers, nil
	if err == nil {
		w.stats = &st
	}
}

// look takes one snapshot and acts on it.
func (w *watch) look(ctx context.Context) *rules.Snapshot {
	s := &rules.Snapshot{At: time.Now(), Host: w.name, Local: w.local.Read(ctx)}
	if w.cards != nil {
		s.Cards = w.cards.Read()
	}
	w.mu.Lock()
	s.Local.Servers, s.Queue = w.reply, w.stats
	w.mu.Unlock()
	changes := w.engine.Evaluate(s)
	w.governor.Observe(s, changes)
	for _, t := range changes {
		w.sender.Put(queue.Alert{Code: t.Rule.Code, Key: t.Key, Severity: t.Rule.Severity, State: t.State, Text: t.Text, Since: t.Since, Source: w.name})
	}
	return s
}

// line writes the figures that people know from nvidia-smi.
func (w *watch) line(s *rules.Snapshot) {
	args := []any{"load", known(s.Local.Load)}
	if m := s.Local.Memory; m.Known {
		args = append(args, "memory", fmt.Sprintf("%.1f/%.1f GB", float64(m.Used)/1e9, float64(m.Total)/1e9))
	}
	for _, dir := range w.local.Directories {
		if d := s.Local.Disks[dir]; d.Known {
			args = append(args, "disk", fmt.Sprintf("%.0f %% of %s", 100*d.Fraction(), dir))
		}
	}
	for i := range s.Cards {
		c := &s.Cards[i]
		args = append(args, slog.Group(fmt.Sprintf("gpu%d", c.Index),
			"temperature", figure(c.Temperature, 1), "margin", figure(c.SlowdownMargin, 1), "power", figure(c.Power, 1), "power_limit", figure(c.PowerLimit, 1),
			"memory_mib", figure(c.MemoryUsed, 1<<20), "memory_total_mib", figure(c.MemoryTotal, 1<<20), "utilisation", figure(c.Utilisation, 1),
			"clock_sm", figure(c.ClockSM, 1), "clock_memory", figure(c.ClockMemory, 1), "fan", figure(c.Fan, 1), "throttle", strings.Join(c.Throttle, ", ")))
	}
	w.log.Info("metrics", args...)
}

// figure is a reading for the log, in whole units.
func figure(v gpu.Value, unit float64) any {
	if !v.Known {
		return "unknown"
	}
	return math.Round(v.V / unit)
}

func known(v *float64) any {
	if v == nil {
		return "unknown"
	}
	return *v
}
