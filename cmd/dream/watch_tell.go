package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"dreamcad/bots/delivery"
	"dreamcad/ops/gpu"
	"dreamcad/ops/metrics"
	"dreamcad/ops/monitor"
	"dreamcad/ops/rules"
	"dreamcad/queue"
)

// askServers probes the servers, reads the figures of queue and fleet and gives a
// sign of life. What does not answer is not known.
func (w *watch) askServers(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, max(w.settings.ServersEvery, 5*time.Second))
	defer cancel()
	var s rules.Snapshot
	s.Local = w.servers.Read(limited)
	if s.Local.Servers["queue"].Error == "" {
		now := time.Now()
		if st, err := w.queue.Stats(limited); err == nil {
			rate := w.outcomes.Take(now, st.Counters)
			s.Queue, s.Failures = &st, &rate
			s.Unread, s.Poison = w.unread(limited, &st), w.poison(limited, &st)
			if s.Retired, err = w.retired(limited, now, st.Outbox); err != nil {
				s.Queue, s.Unread = nil, nil // not known of whom something is expected
			}
		}
		if live, marks, err := monitor.Fleet(limited, w.queue); err == nil {
			for _, l := range live {
				if l.Role == "bot" {
					delete(marks, l.Name)
				}
			}
			w.claim(limited, live)
			s.Workers = w.fleet.Take(now, marks, false)
			w.giveUp(limited, s.Workers, marks)
		}
	} else {
		w.role.Away(time.Now())
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.slow = s
	w.mu.Unlock()
	w.tell(limited)
}

// poison tells of the inputs that were set aside lately; nil: another process does, or
// the queue did not say.
func (w *watch) poison(ctx context.Context, st *queue.Stats) *rules.Poison {
	if !w.role.Owner() {
		return nil
	}
	p := &rules.Poison{Window: w.settings.FailureWindow}
	if st.Ended[queue.Quarantined] == 0 {
		return p
	}
	js, err := w.queue.List(ctx, queue.Filter{Status: []queue.Status{queue.Quarantined}, Limit: 20})
	if err != nil {
		return nil
	}
	var newest queue.Job
	for _, j := range js {
		if st.Now.Sub(j.Ended) < p.Window {
			p.Jobs++
		}
		if j.Ended.After(newest.Ended) {
			newest = j
		}
	}
	var crashes []string
	for _, c := range newest.CrashedBy {
		crashes = append(crashes, fmt.Sprintf("%s on %s", exitOf(&c), c.Worker))
	}
	p.Newest = fmt.Sprintf("job %s of %s (%s)", newest.ID, newest.Requester.User(), strings.Join(crashes, ", "))
	return p
}

// unread tells for how long the oldest message of each consumer has waited: an
// event that it has not read, or an outcome that its platform has not taken.
func (w *watch) unread(ctx context.Context, st *queue.Stats) map[string]float64 {
	out := map[string]float64{}
	for consumer, n := range st.Outbox {
		if strings.HasPrefix(consumer, "alerts/") {
			continue // of alerts only the number counts
		}
		out[consumer] = 0
		if n == 0 {
			continue
		}
		cursor, err := w.queue.Cursor(ctx, consumer)
		if err != nil {
			return nil
		}
		if es, err := w.queue.Events(ctx, cursor, 1, 0); err != nil {
			return nil
		} else if len(es) > 0 {
			out[consumer] = max(st.Now.Sub(es[0].At).Seconds(), 0)
		}
	}
	due, err := delivery.OldestDue(ctx, w.queue)
	if err != nil {
		return nil
	}
	for platform, at := range due {
		name := "bots/" + platform
		out[name] = max(out[name], st.Now.Sub(at).Seconds())
	}
	return out
}

// tell writes this process's newest sample where others see it, and its history.
func (w *watch) tell(ctx context.Context) {
	l := w.live()
	if l == nil {
		return
	}
	err := monitor.Tell(ctx, w.queue, l)
	if err == nil {
		err = w.history.Add(ctx, l.At, monitor.Figures(l))
	}
	if away := err != nil; away != w.awaySaid && ctx.Err() == nil {
		w.awaySaid = away
		if away {
			w.log.Warn("samples cannot be written to the queue", "err", err)
		}
	}
}

// live is what this process last saw; nil: nothing yet.
func (w *watch) live() *monitor.Live {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return nil
	}
	l := &monitor.Live{Name: w.part.name, Role: w.part.role, Host: w.host, Version: version(), Started: w.started, At: w.last.At, Cards: w.last.Cards, Local: w.last.Local}
	l.Local.Servers = w.slow.Local.Servers
	for _, code := range slices.Sorted(maps.Keys(w.firing)) {
		if w.firing[code] > 0 {
			l.Firing = append(l.Firing, code)
		}
	}
	l.Rest, l.Held = w.governor.Resting()
	if w.part.worker != nil {
		for _, d := range w.part.worker.Snapshot().Jobs {
			l.Doing = append(l.Doing, monitor.Doing{Job: d.Job, Kind: d.Kind, Stage: d.Progress.Stage, Step: d.Progress.Step, Total: d.Progress.Total})
		}
		l.Refusing = w.part.worker.Refusing()
	}
	return l
}

// view is what Prometheus sees.
func (w *watch) view() metrics.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := metrics.View{Snapshot: w.last, Rules: w.engine.Rules(), Firing: w.firing}
	v.Rest, v.Held = w.governor.Resting()
	if w.part.worker != nil {
		s := w.part.worker.Snapshot()
		v.Worker = &metrics.Worker{Jobs: len(s.Jobs), Unpublished: s.Unpublished, Refusing: w.part.worker.Refusing()}
	}
	return v
}

// ready says why this process does not do its work, or "".
func (w *watch) ready() string {
	w.mu.Lock()
	last, servers := w.last, w.slow.Local.Servers
	w.mu.Unlock()
	if last == nil {
		return "starting"
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		if e := servers[name].Error; e != "" {
			return fmt.Sprintf("the %s does not answer: %s", name, e)
		}
	}
	if w.part.worker != nil {
		if why := w.part.worker.Refusing(); why != "" {
			return why
		}
	}
	for _, s := range last.Sessions {
		if !s.Up {
			return strings.TrimSuffix(s.Platform+" is not connected: "+s.Problem, ": ")
		}
	}
	return ""
}

// logFigures writes the figures that people know from nvidia-smi.
func logFigures(log *slog.Logger, s *rules.Snapshot, directories []string, governor *rules.Governor) {
	memory := "unknown"
	if m := s.Local.Memory; m.Known {
		memory = fmt.Sprintf("%.1f/%.1f GB", float64(m.Used)/1e9, float64(m.Total)/1e9)
	}
	var disks []any
	for _, dir := range directories {
		used := "unknown"
		if d := s.Local.Disks[dir]; d.Known {
			used = fmt.Sprintf("%.0f %%", 100*d.Fraction())
		}
		disks = append(disks, slog.String(dir, used))
	}
	args := []any{"load", known(s.Local.Load), "memory", memory, slog.Group("disk", disks...)}
	if share, held := governor.Resting(); held {
		args = append(args, "held", true)
	} else if share > 0 {
		args = append(args, "rest", math.Round(100*share)/100)
	}
	for i := range s.Cards {
		c := &s.Cards[i]
		if c.Lost != "" {
			args = append(args, slog.Group(fmt.Sprintf("gpu%d", c.Index), "lost", c.Lost))
			continue
		}
		args = append(args, slog.Group(fmt.Sprintf("gpu%d", c.Index),
			"temperature", figure(c.Temperature, 1), "margin", figure(c.SlowdownMargin, 1), "power", figure(c.Power, 1), "power_limit", figure(c.PowerLimit, 1),
			"memory_mib", figure(c.MemoryUsed, 1<<20), "memory_total_mib", figure(c.MemoryTotal, 1<<20), "utilisation", figure(c.Utilisation, 1),
			"clock_sm", figure(c.ClockSM, 1), "clock_memory", figure(c.ClockMemory, 1), "fan", figure(c.Fan, 1), "ecc", figure(c.ECCErrors, 1), "throttle", throttle(c)))
	}
	log.Info("metrics", args...)
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

func throttle(c *gpu.Sample) string {
	if !c.ThrottleKnown {
		return "unknown"
	}
	return strings.Join(c.Throttle, ", ")
}
