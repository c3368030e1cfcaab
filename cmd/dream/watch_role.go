package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"dreamcad/ops/monitor"
	"dreamcad/ops/rules"
	"dreamcad/queue"
)

// rule is the rule of that code; nil: there is none.
func (w *watch) rule(code string) *rules.Rule {
	rs := w.engine.Rules()
	if i := slices.IndexFunc(rs, func(r rules.Rule) bool { return r.Code == code }); i >= 0 {
		return &rs[i]
	}
	return nil
}

func (w *watch) shared(code string) bool {
	r := w.rule(code)
	return r != nil && r.Shared
}

// defers leaves to another process what many see at once while the queue is away.
func (w *watch) defers(a *queue.Alert) bool {
	r := w.rule(a.Code)
	return r != nil && r.Common && w.role.Defers(time.Now())
}

// claim takes part in who judges the shared rules. Whoever begins goes on with
// what was announced.
func (w *watch) claim(ctx context.Context, fleet []monitor.Live) {
	gained, _, err := w.role.Take(ctx, time.Now(), fleet)
	if err != nil || !gained {
		return
	}
	firing, err := w.queue.FiringAlerts(ctx)
	if err != nil {
		w.log.Warn("the alerts of the shared rules could not be read", "err", err)
	}
	firing = slices.DeleteFunc(firing, func(f queue.Alert) bool { return !w.shared(f.Code) })
	for i := range firing {
		switch firing[i].Code {
		case "worker_lost":
			w.fleet.Know(firing[i].Key)
		case "outbox", "outbox_age":
			w.consumers.Know(firing[i].Key)
		}
	}
	w.log.Debug("this process judges the shared rules")
	w.mu.Lock()
	w.handed = firing
	w.mu.Unlock()
}

// judge begins or ends to judge the shared rules, before a look.
func (w *watch) judge() {
	w.mu.Lock()
	handed := w.handed
	w.handed = nil
	w.mu.Unlock()
	owner := w.role.Owner()
	if w.judging && !owner {
		w.engine.Release()
		w.sender.Release(w.shared)
	}
	w.judging = owner
	for i := range handed {
		w.engine.Adopt(handed[i].Code, handed[i].Key, handed[i].Since)
	}
}

// retired notes whom this process serves and tells of whom nothing is expected.
func (w *watch) retired(ctx context.Context, now time.Time, outbox map[string]int64) (map[string]bool, error) {
	for _, c := range w.part.serves {
		if err := monitor.Serve(ctx, w.queue, c, now); err != nil {
			return nil, err
		}
	}
	served, err := monitor.Served(ctx, w.queue)
	if err != nil {
		return nil, err
	}
	return w.consumers.Retired(now, outbox, func(c string) bool { return served[strings.TrimPrefix(c, "alerts/")] }), nil
}

// giveUp forgets workers that have been silent for so long that they are taken
// for removed.
func (w *watch) giveUp(ctx context.Context, workers []rules.Quiet, marks map[string]string) {
	if !w.role.Owner() {
		return
	}
	for _, q := range workers {
		if q.For <= w.settings.WorkerGone {
			continue
		}
		w.log.Warn("a lost worker is no longer expected", "worker", q.Name, "silent", q.For.Round(time.Second))
		if err := monitor.Forget(ctx, w.queue, q.Name, marks[q.Name]); err != nil {
			w.log.Warn("a lost worker could not be forgotten", "worker", q.Name, "err", err)
		}
	}
}
