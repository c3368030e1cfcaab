// Package host reads the figures of this machine: memory, load, the disks below
// the directories in use, and how fast the servers it depends on answer.
package host

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
)

// Share is used of total in bytes. Known is false when it could not be read.
type Share struct {
	Used  uint64
	Total uint64
	Known bool
}

// Fraction is used over total, 0 to 1.
func (s Share) Fraction() float64 {
	if !s.Known || s.Total == 0 {
		return 0
	}
	return float64(s.Used) / float64(s.Total)
}

// MarshalJSON writes {"used": …, "total": …}, or null when unknown.
func (s Share) MarshalJSON() ([]byte, error) {
	if !s.Known {
		return []byte("null"), nil
	}
	return json.Marshal(map[string]uint64{"used": s.Used, "total": s.Total})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Share) UnmarshalJSON(text []byte) error {
	var v *struct{ Used, Total uint64 }
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*s = Share{}
	if v != nil {
		*s = Share{Used: v.Used, Total: v.Total, Known: true}
	}
	return nil
}

// Sample is one look at the machine.
type Sample struct {
	At      time.Time        `json:"at"`
	Memory  Share            `json:"memory"`
	Load    *float64         `json:"load"`  // of one minute; nil: unknown
	Disks   map[string]Share `json:"disks"` // by directory
	Servers map[string]Reply `json:"servers,omitempty"`
}

// Reply is how a server answered a probe.
type Reply struct {
	Latency time.Duration
	Error   string // "": it answered
}

// replyJSON is a reply in JSON.
type replyJSON struct {
	Latency float64 `json:"latency_seconds"`
	Error   string  `json:"error,omitempty"`
}

// MarshalJSON writes {"latency_seconds": …, "error": …}.
func (r Reply) MarshalJSON() ([]byte, error) {
	return json.Marshal(replyJSON{r.Latency.Seconds(), r.Error})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Reply) UnmarshalJSON(text []byte) error {
	var v replyJSON
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*r = Reply{Latency: time.Duration(math.Round(v.Latency * float64(time.Second))), Error: v.Error}
	return nil
}

// Probe asks a server something cheap.
type Probe func(ctx context.Context) error

// Sensors reads this host.
type Sensors struct {
	Directories []string
	Probes      map[string]Probe // "queue", "storage"
	// ProbeLimit bounds one probe; 0 is 2 s.
	ProbeLimit time.Duration
}

// Read looks once. What cannot be read is unknown; it never fails as a whole.
func (s *Sensors) Read(ctx context.Context) Sample {
	out := Sample{At: time.Now(), Disks: map[string]Share{}, Servers: map[string]Reply{}}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil && m.Total > 0 {
		// Available counts what the kernel can free at once; "used" in the
		// narrow sense would alarm about a full page cache.
		out.Memory = Share{Used: m.Total - m.Available, Total: m.Total, Known: true}
	}
	if l, err := load.AvgWithContext(ctx); err == nil {
		out.Load = &l.Load1
	}
	for _, dir := range s.Directories {
		if u, err := disk.UsageWithContext(ctx, dir); err == nil && u.Used+u.Free > 0 {
			// Free is what an ordinary process may still write; as df does, what
			// is kept back for root or by a quota counts neither way.
			out.Disks[dir] = Share{Used: u.Used, Total: u.Used + u.Free, Known: true}
		} else {
			out.Disks[dir] = Share{}
		}
	}
	limit := s.ProbeLimit
	if limit == 0 {
		limit = 2 * time.Second
	}
	for name, probe := range s.Probes {
		out.Servers[name] = ask(ctx, probe, limit)
	}
	return out
}

func ask(ctx context.Context, probe Probe, limit time.Duration) Reply {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	err := probe(ctx)
	r := Reply{Latency: time.Since(start)}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
