package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dreamcad/inference/device"
	"dreamcad/inference/worker"
	"dreamcad/ops/alert"
	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/monitor"
	"dreamcad/ops/rules"
	"dreamcad/queue"
	"dreamcad/storage"
)

// limits are the thresholds of the rules as configured.
func (s *opsSettings) limits() rules.Limits {
	return rules.Limits{
		GPUWarm: s.GPUWarm, GPUHot: s.GPUHot, GPUMargin: s.GPUMargin, VRAM: s.VRAM, Memory: s.Memory, Disk: s.Disk, DiskRefuse: s.DiskRefuse,
		ServerSlow: s.ServerSlow, QueueAge: s.QueueAge, OutboxDepth: s.Outbox,
		OutboxAge: s.OutboxAge, WorkerLost: s.WorkerLost, WorkerGone: s.WorkerGone, NoProgress: s.NoProgress, FailureRate: s.FailureRate, FailureWindow: s.FailureWindow,
	}
}

// rules are the rules as configured.
func (s *opsSettings) rules() ([]rules.Rule, error) {
	return rules.Override(rules.Default(s.limits()), s.Rules)
}

// alertConfig says where alerts go besides the queue and the log.
func (s *opsSettings) alertConfig() alert.Config {
	bearer := func(token secret) http.Header {
		if token == "" {
			return nil
		}
		return http.Header{"Authorization": {"Bearer " + string(token)}}
	}
	return alert.Config{Webhook: string(s.Webhook), Header: bearer(s.WebhookToken),
		Alertmanager: string(s.Alertmanager), AlertmanagerHeader: bearer(s.AlertmanagerToken), Again: s.Again}
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

// watched says which part of the service a watch looks after.
type watched struct {
	role   string // worker, bot or up
	name   string // under which others see this process
	worker *worker.Worker
	own    int                    // index of the card that the worker uses, or rules.NoCard
	chats  func() []rules.Session // nil: none
	serves []string               // consumers of the outbox
}

// watch looks at sensors each second, judges, tells and governs.
type watch struct {
	part     watched
	settings opsSettings
	host     string
	started  time.Time
	cards    *gpu.Sensors // nil: none
	local    host.Sensors
	servers  host.Sensors
	queue    queue.Queue
	engine   *rules.Engine
	governor *rules.Governor
	sender   *alert.Sender
	history  *monitor.History
	log      *slog.Logger

	// What the slow looks keep to themselves.
	fleet, stalls rules.Silence
	outcomes      rules.Outcomes
	consumers     rules.Consumers
	role          *monitor.Role
	awaySaid      bool

	judging bool // whether look judges the shared rules

	mu     sync.Mutex
	slow   rules.Snapshot // what the slow looks found
	handed []queue.Alert  // shared alerts that this process goes on with, now that it judges them
	last   *rules.Snapshot
	firing map[string]int
}

// newWatch prepares the watch of a process. Its governor is for the worker, which
// set tells the watch about.
func newWatch(a *app, g ground, part watched) (*watch, error) {
	q, store := g.queue, g.store
	guards, err := guard(a.config.Worker.GuardGPUs, part.own)
	if err != nil {
		return nil, err
	}
	s := a.config.Ops
	rs, err := s.rules()
	if err != nil {
		return nil, usageError{err}
	}
	w := &watch{part: part, settings: s, queue: q, log: a.log, started: time.Now(), engine: rules.NewEngine(rs),
		governor: rules.NewGovernor(s.limits(), guards, nil, a.log),
		history:  monitor.NewHistory(q, part.name), fleet: rules.Silence{Longest: 2 * s.ServersEvery}, stalls: rules.Silence{Longest: 10 * time.Second},
		outcomes: rules.Outcomes{Window: s.FailureWindow}, role: monitor.NewRole(q, part.name, hostName(), 3*s.ServersEvery+5*time.Second)}
	alerts := s.alertConfig()
	alerts.Defer = w.defers
	w.sender = alert.New(alerts, q, a.log)
	w.host = hostName()
	if part.role != "bot" {
		if w.cards, err = gpu.Open(); err != nil {
			w.cards = nil
			a.log.Info("no GPU is watched", "why", err)
		}
	}
	w.local.Directories = directories(a)
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

// hostName is how this machine is called in alerts.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "local"
	}
	return name
}

// directories are those in use, one of each file system.
func directories(a *app) []string {
	dirs := []string{a.config.Data}
	if path := a.localQueue(); path != "" {
		dirs = append(dirs, filepath.Dir(path))
	}
	dirs = append(dirs, a.localStore(), a.config.Models.Dir, os.TempDir())
	if a.config.Log.File != "" {
		dirs = append(dirs, filepath.Dir(a.config.Log.File))
	}
	return host.Distinct(dirs)
}

// run watches until ctx ends.
func (w *watch) run(ctx context.Context) error {
	if w.cards != nil {
		defer w.cards.Close()
	}
	w.adopt(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.sender.Run(ctx) })
	group.Go(func() error { return every(ctx, w.settings.ServersEvery, w.askServers) })
	group.Go(func() error {
		lastLine := time.Time{}
		return every(ctx, w.settings.Every, func(ctx context.Context) {
			s := w.look(ctx)
			// A look is never quite on time: the nearest one counts.
			if w.busy() && s.At.Sub(lastLine) >= w.settings.MetricsEvery-w.settings.Every/2 {
				lastLine = s.At
				logFigures(w.log, s, w.local.Directories, w.governor)
			}
		})
	})
	err := group.Wait()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := errors.Join(w.history.Close(end), monitor.Goodbye(end, w.queue, w.part.name), w.role.Leave(end)); err != nil {
		w.log.Warn("the watch could not say goodbye", "err", err)
	}
	return err
}

// adopt takes over the alerts that this host sent before a restart; those of the
// shared rules come with the ownership.
func (w *watch) adopt(ctx context.Context) {
	firing, err := w.queue.FiringAlerts(ctx)
	if err != nil {
		return
	}
	for _, f := range firing {
		if f.Source != w.host || w.shared(f.Code) {
			continue
		}
		w.engine.Adopt(f.Code, f.Key, f.Since)
		if f.Code == "no_progress" {
			w.stalls.Know(f.Key)
		}
	}
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

// busy tells whether the worker has jobs in its hands.
func (w *watch) busy() bool {
	return w.part.worker != nil && len(w.part.worker.Snapshot().Jobs) > 0
}

// newsEvery is how often the text of a firing alert may change.
const newsEvery = time.Minute

// look takes one snapshot and acts on it.
func (w *watch) look(ctx context.Context) *rules.Snapshot {
	s := &rules.Snapshot{At: time.Now(), Host: w.host, Local: w.local.Read(ctx), Overloaded: w.governor.Overloaded()}
	if w.cards != nil {
		s.Cards = w.cards.Read()
	}
	if w.part.chats != nil {
		s.Sessions = w.part.chats()
	}
	s.Jobs = w.standing(s.At)
	w.mu.Lock()
	s.Local.Servers, s.Queue, s.Workers, s.Unread, s.Retired, s.Failures, s.Poison = w.slow.Local.Servers, w.slow.Queue, w.slow.Workers, w.slow.Unread, w.slow.Retired, w.slow.Failures, w.slow.Poison
	w.mu.Unlock()
	w.judge()
	s.Elsewhere = !w.judging
	changes := w.engine.Evaluate(s)
	w.governor.Observe(s, changes)
	w.mu.Lock()
	w.last, w.firing = s, w.engine.Firing()
	w.mu.Unlock()
	for _, t := range append(changes, w.engine.News(s.At, newsEvery)...) {
		w.sender.Put(queue.Alert{Code: t.Rule.Code, Key: t.Key, Severity: t.Rule.Severity, State: t.State, Text: t.Text, Since: t.Since, At: t.At.UTC(), Source: w.host})
	}
	return s
}

// standing tells for how long each job of the worker has made no step. A hold by
// the governor excuses it.
func (w *watch) standing(now time.Time) []rules.Quiet {
	if w.part.worker == nil {
		return nil
	}
	marks := map[string]string{}
	for _, d := range w.part.worker.Snapshot().Jobs {
		marks[d.Job] = fmt.Sprintf("%s %d/%d", d.Progress.Stage, d.Progress.Step, d.Progress.Total)
	}
	_, held := w.governor.Resting()
	return w.stalls.Take(now, marks, held)
}
