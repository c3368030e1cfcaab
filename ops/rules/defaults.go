package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/queue"
)

// Default is the rule set with the given limits.
func Default(l Limits) []Rule {
	const s = time.Second
	return []Rule{
		{Code: "gpu_warm", Title: "A GPU is hot", Severity: queue.Warning, Fire: l.GPUWarm, Clear: l.GPUWarm - warmClear, Unit: "°C",
			Hold: 0, ClearHold: 10 * s, Action: Slow, read: cards(func(c *gpu.Sample) gpu.Value { return c.Temperature })},
		{Code: "gpu_hot", Title: "A GPU is too hot", Severity: queue.Critical, Fire: l.GPUHot, Clear: l.GPUWarm - warmClear, Unit: "°C",
			Hold: 0, ClearHold: 10 * s, Action: Hold, read: cards(func(c *gpu.Sample) gpu.Value { return c.Temperature })},
		{Code: "gpu_margin", Title: "A GPU is about to slow itself down", Severity: queue.Critical, Below: true, Fire: l.GPUMargin, Clear: l.GPUMargin + 5, Unit: "°C of margin",
			Hold: 0, ClearHold: 10 * s, Action: Hold, read: cards(func(c *gpu.Sample) gpu.Value { return c.SlowdownMargin })},
		{Code: "gpu_memory", Title: "A GPU's memory is nearly full", Severity: queue.Warning, Fire: l.VRAM, Clear: under(l.VRAM, 5), Unit: "%",
			Hold: 5 * s, ClearHold: 10 * s, Action: Refuse, read: cards(func(c *gpu.Sample) gpu.Value { return percent(c.MemoryShare()) })},
		{Code: "gpu_throttled", Title: "A GPU is held back", Severity: queue.Warning, Fire: 0.5, Clear: 0.5,
			Hold: 10 * s, ClearHold: 30 * s, Action: Tell, read: throttled},
		{Code: "gpu_ecc", Title: "A GPU's memory has uncorrected errors", Severity: queue.Critical, Fire: 0, Clear: 0, Unit: "errors",
			Hold: 0, ClearHold: 10 * s, Action: Tell, read: cards(func(c *gpu.Sample) gpu.Value { return c.ECCErrors })},
		{Code: "gpu_xid", Title: "The driver reported an error of a GPU", Severity: queue.Critical, Fire: 0.5, Clear: 0.5,
			Hold: 0, ClearHold: 5 * time.Minute, Action: Tell, read: xids},
		{Code: "gpu_lost", Title: "A GPU cannot be reached", Severity: queue.Critical, Fire: 0.5, Clear: 0.5,
			Hold: 3 * s, ClearHold: 10 * s, Action: Refuse, read: lost},
		{Code: "memory", Title: "Memory is nearly full", Severity: queue.Warning, Fire: l.Memory, Clear: under(l.Memory, 3), Unit: "%",
			Hold: 10 * s, ClearHold: 10 * s, Action: Tell, read: memory},
		{Code: "disk", Title: "A disk is filling up", Severity: queue.Warning, Fire: l.Disk, Clear: under(l.Disk, 2), Unit: "%",
			Hold: 10 * s, ClearHold: 10 * s, Action: Tell, read: disks},
		{Code: "disk_full", Title: "A disk is nearly full", Severity: queue.Critical, Fire: l.DiskRefuse, Clear: under(l.DiskRefuse, 1), Unit: "%",
			Hold: 0, ClearHold: 10 * s, Action: Refuse, read: disks},
		{Code: "gpu_overloaded", Title: "Resting does not cool a GPU", Severity: queue.Critical, Fire: 0.5, Clear: 0.5,
			Hold: 0, ClearHold: 0, Action: Hold, read: overloaded},
		{Code: "server_down", Title: "A server does not answer", Severity: queue.Critical, Fire: 0.5, Clear: 0.5,
			Hold: 15 * s, ClearHold: 5 * s, Action: Tell, Common: true, read: unreachable},
		{Code: "server_slow", Title: "A server answers slowly", Severity: queue.Warning, Fire: ms(l.ServerSlow), Clear: ms(l.ServerSlow) / 2, Unit: "ms",
			Hold: 30 * s, ClearHold: 30 * s, Action: Tell, Common: true, read: slow},
		{Code: "worker_lost", Title: "A worker is lost", Severity: queue.Critical, Fire: l.WorkerLost.Seconds(), Clear: 0, Unit: "s of silence",
			Hold: 0, ClearHold: 0, Action: Tell, Shared: true, read: workers},
		{Code: "no_progress", Title: "A job stands still", Severity: queue.Warning, Fire: l.NoProgress.Seconds(), Clear: 0, Unit: "s without a step",
			Hold: 0, ClearHold: 0, Action: Tell, read: stalled},
		{Code: "failure_rate", Title: "Many jobs fail", Severity: queue.Critical, Fire: l.FailureRate, Clear: l.FailureRate / 2, Unit: "% of the jobs",
			Hold: 0, ClearHold: 30 * s, Action: Tell, Shared: true, read: failures},
		{Code: "quarantine", Title: "An input that crashes workers was set aside", Severity: queue.Warning, Fire: 0.5, Clear: 0.5,
			Hold: 0, ClearHold: 0, Action: Tell, Shared: true, read: poison},
		{Code: "queue_age", Title: "Jobs wait long", Severity: queue.Warning, Fire: l.QueueAge.Seconds(), Clear: l.QueueAge.Seconds() / 2, Unit: "s",
			Hold: 0, ClearHold: 30 * s, Action: Tell, Shared: true, read: queueAge},
		{Code: "outbox", Title: "Messages pile up", Severity: queue.Warning, Fire: l.OutboxDepth, Clear: l.OutboxDepth / 2, Unit: "events",
			Hold: 60 * s, ClearHold: 10 * s, Action: Tell, Shared: true, read: outbox},
		{Code: "outbox_age", Title: "Messages wait long to be sent", Severity: queue.Warning, Fire: l.OutboxAge.Seconds(), Clear: l.OutboxAge.Seconds() / 2, Unit: "s",
			Hold: 0, ClearHold: 10 * s, Action: Tell, Shared: true, read: unread},
		{Code: "chat_down", Title: "A chat platform is not connected", Severity: queue.Critical, Fire: 0.5, Clear: 0.5,
			Hold: 30 * s, ClearHold: 5 * s, Action: Tell, read: sessions},
	}
}

// under is where a percentage is over that fires above fire: by points lower, but
// never where no percentage gets.
func under(fire, by float64) float64 { return max(fire-by, fire/2) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func percent(v gpu.Value) gpu.Value { v.V *= 100; return v }

// card begins a reading about a card. The UUID makes the key the same for every
// worker of the host.
func card(s *Snapshot, c *gpu.Sample) Reading {
	id := c.UUID
	if id == "" {
		id = fmt.Sprintf("gpu%d", c.Index)
	}
	return Reading{Key: s.Host + "/" + id, Subject: fmt.Sprintf("GPU %d (%s) of %s", c.Index, c.Name, s.Host), Card: c.Index}
}

func cards(value func(*gpu.Sample) gpu.Value) func(*Snapshot) []Reading {
	return eachCard(func(c *gpu.Sample, r *Reading) { r.Value = value(c) })
}

func eachCard(fill func(*gpu.Sample, *Reading)) func(*Snapshot) []Reading {
	return func(s *Snapshot) []Reading {
		out := make([]Reading, len(s.Cards))
		for i := range s.Cards {
			out[i] = card(s, &s.Cards[i])
			fill(&s.Cards[i], &out[i])
		}
		return out
	}
}

// yes is 1 for true and 0 for false.
func yes(b bool) gpu.Value {
	if b {
		return gpu.Of(1)
	}
	return gpu.Of(0)
}

// throttled leaves the power cap out: a card under full load is at it all the time.
var throttled = eachCard(func(c *gpu.Sample, r *Reading) {
	if !c.ThrottleKnown {
		return
	}
	var reasons []string
	for _, t := range c.Throttle {
		if t != gpu.PowerCap {
			reasons = append(reasons, t)
		}
	}
	r.Value = yes(len(reasons) > 0)
	if len(reasons) > 0 {
		r.Detail = "Reason: " + strings.Join(reasons, ", ") + "."
	}
})

var xids = eachCard(func(c *gpu.Sample, r *Reading) {
	if c.Lost != "" && len(c.Xids) == 0 {
		return
	}
	r.Value = yes(len(c.Xids) > 0)
	if len(c.Xids) > 0 {
		r.Detail = "Xid " + strings.Trim(fmt.Sprint(c.Xids), "[]") + "."
	}
})

var lost = eachCard(func(c *gpu.Sample, r *Reading) {
	r.Value = yes(c.Lost != "")
	if c.Lost != "" {
		r.Detail = "NVML says: " + c.Lost + "."
	}
})

func memory(s *Snapshot) []Reading {
	m := s.Local.Memory
	return []Reading{{Key: s.Host, Subject: "the memory of " + s.Host, Value: gpu.Value{V: 100 * m.Fraction(), Known: m.Known}, Card: NoCard}}
}

func disks(s *Snapshot) []Reading {
	var out []Reading
	for _, dir := range slices.Sorted(maps.Keys(s.Local.Disks)) {
		d := s.Local.Disks[dir]
		r := Reading{Key: s.Host + ":" + dir, Subject: fmt.Sprintf("the disk of %s on %s", dir, s.Host), Value: gpu.Value{V: 100 * d.Fraction(), Known: d.Known}, Card: NoCard}
		if d.Known {
			r.Detail = fmt.Sprintf("%.1f GB are free.", float64(d.Total-d.Used)/1e9)
		}
		out = append(out, r)
	}
	return out
}

// unreachable has one key a server, whoever asks: many workers, one alert.
func unreachable(s *Snapshot) []Reading {
	var out []Reading
	for _, name := range slices.Sorted(maps.Keys(s.Local.Servers)) {
		e := s.Local.Servers[name].Error
		r := Reading{Key: name, Subject: "the " + name, Value: yes(e != ""), Card: NoCard}
		if e != "" {
			r.Detail = "Seen from " + s.Host + ": " + e + "."
		}
		out = append(out, r)
	}
	return out
}

func slow(s *Snapshot) []Reading {
	var out []Reading
	for _, name := range slices.Sorted(maps.Keys(s.Local.Servers)) {
		a := s.Local.Servers[name]
		out = append(out, Reading{Key: name, Subject: "the " + name, Value: gpu.Value{V: ms(a.Latency), Known: a.Error == ""}, Card: NoCard})
	}
	return out
}

func queueAge(s *Snapshot) []Reading {
	if s.Queue == nil {
		return nil
	}
	return []Reading{{Key: "queue", Subject: "the oldest interactive job", Value: gpu.Of(float64(s.Queue.Oldest[queue.Interactive])), Card: NoCard}}
}

func outbox(s *Snapshot) []Reading {
	if s.Queue == nil {
		return nil
	}
	depth := make(map[string]float64, len(s.Queue.Outbox))
	for name, n := range s.Queue.Outbox {
		depth[name] = float64(n)
	}
	return consumers(s, depth, "the outbox of ")
}

// consumers reads a figure of each consumer; of the retired ones nothing is expected.
func consumers(s *Snapshot, figures map[string]float64, subject string) []Reading {
	var out []Reading
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		if !s.Retired[name] {
			out = append(out, Reading{Key: name, Subject: subject + name, Value: gpu.Of(figures[name]), Card: NoCard})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Retired)) {
		out = append(out, Reading{Key: name, Subject: subject + name, Value: gpu.Of(0), Card: NoCard,
			Ended: "No bot serves it any more; nothing is expected of it."})
	}
	return out
}

// overloaded is about every card, so that it ends when the governor lets go.
func overloaded(s *Snapshot) []Reading {
	if s.Overloaded == nil {
		return nil
	}
	out := make([]Reading, len(s.Cards))
	for i := range s.Cards {
		out[i] = card(s, &s.Cards[i])
		out[i].Value = yes(s.Overloaded[s.Cards[i].Index])
	}
	return out
}

func quietest(qs []Quiet, subject string) []Reading {
	out := make([]Reading, len(qs))
	for i, q := range qs {
		out[i] = Reading{Key: q.Name, Subject: subject + " " + q.Name, Value: gpu.Of(q.For.Seconds()), Card: NoCard}
	}
	return out
}

func workers(s *Snapshot) []Reading {
	out := quietest(s.Workers, "worker")
	for i, q := range s.Workers {
		switch {
		case q.Gone && q.Was == 0:
			out[i].Ended = "It is no longer expected."
		case q.Gone:
			out[i].Ended = fmt.Sprintf("It was silent for %v and is no longer expected.", q.Was.Round(time.Second))
		case q.For == 0:
			out[i].Ended = "It gives signs of life again."
		}
	}
	return out
}

func stalled(s *Snapshot) []Reading { return quietest(s.Jobs, "job") }

func failures(s *Snapshot) []Reading {
	if s.Failures == nil {
		return nil
	}
	r := Reading{Key: "queue", Subject: "the share of failures", Card: NoCard}
	switch f := s.Failures; {
	case f.Ended >= fewestJobs:
		r.Value = gpu.Of(100 * float64(f.Bad) / float64(f.Ended))
		r.Detail = fmt.Sprintf("%d of the last %d jobs failed, bad input not counted.", f.Bad, f.Ended)
	case f.Bad == 0:
		r.Value = gpu.Of(0)
	}
	return []Reading{r}
}

func poison(s *Snapshot) []Reading {
	p := s.Poison
	if p == nil {
		return nil
	}
	r := Reading{Key: "queue", Subject: cmp.Or(p.Newest, "none is kept"), Value: yes(p.Jobs > 0), Card: NoCard,
		Ended: fmt.Sprintf("There was no other for %v.", p.Window)}
	if p.Jobs > 1 {
		r.Detail = fmt.Sprintf("It is the newest of %d within %v.", p.Jobs, p.Window)
	}
	return []Reading{r}
}

func unread(s *Snapshot) []Reading { return consumers(s, s.Unread, "the oldest message for ") }

func sessions(s *Snapshot) []Reading {
	var out []Reading
	for _, x := range s.Sessions {
		r := Reading{Key: s.Host + "/" + x.Platform, Subject: x.Platform + " seen from " + s.Host, Value: yes(!x.Up), Card: NoCard}
		if !x.Up && x.Problem != "" {
			r.Detail = "It says: " + strings.TrimSuffix(x.Problem, ".") + "."
		}
		out = append(out, r)
	}
	return out
}
