// Package metrics shows to Prometheus what the watch sees: sensors, the states of
// the rules, the governor and the queue's figures. Values are those of the last
// look; what is not known is absent, never zero.
package metrics

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/rules"
	"dreamcad/queue"
)

// View is what the watch saw last.
type View struct {
	Snapshot *rules.Snapshot // nil: nothing yet
	Rules    []rules.Rule
	Firing   map[string]int // by code: conditions that hold
	Rest     float64        // share of the time that the governor lets the worker rest
	Held     bool
	Worker   *Worker // nil: no worker runs here
}

// Worker is what a worker does.
type Worker struct {
	Jobs        int
	Unpublished int
	Refusing    string
}

// NewRegistry makes a registry with the figures of this process and, from view,
// those of the watch.
func NewRegistry(version string, view func() View) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dream_build_info", Help: "1, with the version as label.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info, collector(view))
	return r
}

// Handler answers /metrics, /healthz (the process lives) and /readyz (ready
// returns why it does not work, or "").
func Handler(r *prometheus.Registry, ready func() string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := ready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Stages measures how long the stages of jobs take.
type Stages struct{ seconds *prometheus.HistogramVec }

// NewStages registers the histogram.
func NewStages(r prometheus.Registerer) *Stages {
	s := &Stages{prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dream_stage_seconds", Help: "Device time of the stages of finished jobs.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800, 7200}}, []string{"kind", "stage"})}
	r.MustRegister(s.seconds)
	return s
}

// Finished notes the timings of a job, in seconds by stage.
func (s *Stages) Finished(kind queue.Kind, timings map[string]float64) {
	for stage, sec := range timings {
		s.seconds.WithLabelValues(string(kind), stage).Observe(sec)
	}
}

// collector turns a view into metrics at each scrape.
type collector func() View

// Describe sends nothing: which metrics there are depends on what can be read.
func (collector) Describe(chan<- *prometheus.Desc) {}

// emit writes one metric; labels are name and value in turn.
type emit func(kind prometheus.ValueType, name, help string, v float64, labels ...string)

// Collect implements [prometheus.Collector].
func (c collector) Collect(out chan<- prometheus.Metric) {
	put := func(kind prometheus.ValueType, name, help string, v float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			// Names of programs and paths may be anything; Prometheus takes UTF-8 only.
			names, values = append(names, labels[i]), append(values, strings.ToValidUTF8(labels[i+1], "\uFFFD"))
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("dream_"+name, help, names, nil), kind, v, values...)
	}
	v := c()
	for i := range v.Rules {
		r := &v.Rules[i]
		put(prometheus.GaugeValue, "rule_firing", "Conditions of the rule that hold now.", float64(v.Firing[r.Code]), "code", r.Code, "severity", string(r.Severity))
	}
	if w := v.Worker; w != nil {
		put(prometheus.GaugeValue, "governor_rest_ratio", "Share of the time that the worker rests to spare its card.", v.Rest)
		put(prometheus.GaugeValue, "governor_held", "1 while the work is saved and waits for a card to cool.", one(v.Held))
		put(prometheus.GaugeValue, "worker_jobs", "Jobs in the worker's hands.", float64(w.Jobs))
		put(prometheus.GaugeValue, "worker_unpublished", "Results that wait for the storage.", float64(w.Unpublished))
		put(prometheus.GaugeValue, "worker_takes_work", "1 while the worker takes new work.", one(w.Refusing == ""))
	}
	s := v.Snapshot
	if s == nil {
		return
	}
	for i := range s.Cards {
		ofCard(put, &s.Cards[i])
	}
	ofHost(put, &s.Local)
	if s.Queue != nil {
		ofQueue(put, s.Queue, s.Retired)
	}
	for consumer, age := range s.Unread {
		if s.Retired[consumer] {
			continue
		}
		put(prometheus.GaugeValue, "outbox_age_seconds", "Wait of the oldest message that a consumer has not sent.", age, "consumer", consumer)
	}
	for _, w := range s.Workers {
		if w.Gone {
			continue
		}
		put(prometheus.GaugeValue, "worker_silence_seconds", "Time without a sign of life of a worker.", w.For.Seconds(), "worker", w.Name)
	}
	for _, x := range s.Sessions {
		put(prometheus.GaugeValue, "chat_connected", "1 while the platform is connected.", one(x.Up), "platform", x.Platform)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func ofCard(put emit, c *gpu.Sample) {
	labels := slices.Clip([]string{"gpu", strconv.Itoa(c.Index), "uuid", c.UUID, "name", c.Name})
	gauge := func(name, help string, v gpu.Value) {
		if v.Known {
			put(prometheus.GaugeValue, "gpu_"+name, help, v.V, labels...)
		}
	}
	put(prometheus.GaugeValue, "gpu_lost", "1 while the card cannot be reached.", one(c.Lost != ""), labels...)
	gauge("temperature_celsius", "Temperature.", c.Temperature)
	gauge("slowdown_margin_celsius", "What is left until the card slows itself down.", c.SlowdownMargin)
	gauge("memory_used_bytes", "Memory in use.", c.MemoryUsed)
	gauge("memory_total_bytes", "Memory of the card.", c.MemoryTotal)
	gauge("utilisation_percent", "Time with a kernel running.", c.Utilisation)
	gauge("power_watts", "Power drawn.", c.Power)
	gauge("power_limit_watts", "Power limit.", c.PowerLimit)
	gauge("clock_sm_mhz", "Clock of the processors.", c.ClockSM)
	gauge("clock_memory_mhz", "Clock of the memory.", c.ClockMemory)
	gauge("fan_percent", "Speed of the fan.", c.Fan)
	gauge("ecc_errors", "Uncorrected memory errors since the driver was loaded.", c.ECCErrors)
	gauge("pcie_generation", "Generation of the link.", c.PCIeGen)
	gauge("pcie_lanes", "Width of the link.", c.PCIeWidth)
	gauge("pcie_read_bytes_per_second", "Host to card.", c.PCIeRead)
	gauge("pcie_write_bytes_per_second", "Card to host.", c.PCIeWrite)
	if c.ThrottleKnown {
		for _, reason := range gpu.ThrottleReasons() {
			put(prometheus.GaugeValue, "gpu_throttled", "1 while the card is held back for that reason; power cap is the ordinary one under load.", one(slices.Contains(c.Throttle, reason)), append(labels, "reason", reason)...)
		}
	}
	type program struct {
		pid  int
		name string
	}
	held := map[program]float64{} // a program with several contexts is listed several times
	for _, p := range c.Processes {
		if p.Memory.Known {
			held[program{p.PID, p.Name}] += p.Memory.V
		}
	}
	for p, bytes := range held {
		put(prometheus.GaugeValue, "gpu_process_memory_bytes", "Memory of the card by process.", bytes,
			"gpu", strconv.Itoa(c.Index), "uuid", c.UUID, "pid", strconv.Itoa(p.pid), "process", p.name)
	}
}

func ofHost(put emit, s *host.Sample) {
	if s.Memory.Known {
		put(prometheus.GaugeValue, "host_memory_used_bytes", "Memory in use that the kernel cannot free at once.", float64(s.Memory.Used))
		put(prometheus.GaugeValue, "host_memory_total_bytes", "Memory of the machine.", float64(s.Memory.Total))
	}
	if s.Load != nil {
		put(prometheus.GaugeValue, "host_load1", "Load of one minute.", *s.Load)
	}
	for dir, d := range s.Disks {
		if d.Known {
			put(prometheus.GaugeValue, "disk_used_bytes", "Used of the disk below a directory in use.", float64(d.Used), "directory", dir)
			put(prometheus.GaugeValue, "disk_total_bytes", "Size of the disk below a directory in use.", float64(d.Total), "directory", dir)
		}
	}
	for name, r := range s.Servers {
		put(prometheus.GaugeValue, "server_up", "1 while the server answers.", one(r.Error == ""), "server", name)
		if r.Error == "" {
			put(prometheus.GaugeValue, "server_latency_seconds", "Time of the last answer.", r.Latency.Seconds(), "server", name)
		}
	}
}

// counted are the events that are told before the first: a counter that appears
// with 1 looks to Prometheus as if that one had not happened.
var counted = []string{"submitted", "done", "failed", "failed_input", "cancelled", "quarantined", "crashes", "lost"}

func ofQueue(put emit, s *queue.Stats, retired map[string]bool) {
	for class, n := range s.Queued {
		put(prometheus.GaugeValue, "queue_depth", "Jobs that wait.", float64(n), "class", string(class))
		put(prometheus.GaugeValue, "queue_oldest_seconds", "Wait of the oldest job.", float64(s.Oldest[class]), "class", string(class))
		put(prometheus.GaugeValue, "queue_users", "Users with jobs that wait.", float64(s.Users[class]), "class", string(class))
	}
	put(prometheus.GaugeValue, "queue_scheduled", "Jobs that wait for another try.", float64(s.Scheduled))
	put(prometheus.GaugeValue, "queue_leased", "Jobs in workers' hands.", float64(s.Leased))
	put(prometheus.GaugeValue, "queue_overdue", "Leases past their deadline.", float64(s.Overdue))
	put(prometheus.GaugeValue, "queue_workers", "Workers that the queue has heard of lately.", float64(len(s.Workers)))
	put(prometheus.GaugeValue, "queue_switches", "Pauses in force.", float64(len(s.Switches)))
	for status, n := range s.Ended {
		put(prometheus.GaugeValue, "queue_kept", "Jobs that are over and kept; failed and quarantined are the dead ones.", float64(n), "status", string(status))
	}
	events := map[string]int64{}
	for _, name := range counted {
		events[name] = 0
	}
	maps.Copy(events, s.Counters)
	for name, n := range events {
		put(prometheus.CounterValue, "queue_events_total", "Since the beginning: submitted, done, failed, failed_input (of those for bad input), crashes, lost (leases), refused_… (completions and the like), given_back_….", float64(n), "event", name)
	}
	for consumer, n := range s.Outbox {
		if retired[consumer] {
			continue
		}
		put(prometheus.GaugeValue, "outbox_depth", "Events that a consumer has not read.", float64(n), "consumer", consumer)
	}
	for sort, d := range s.Durations {
		if d.Samples == 0 {
			continue
		}
		pool, quality, _ := strings.Cut(sort, " ")
		at := strings.LastIndexByte(pool, '/')
		labels := []string{"model", pool[:max(at, 0)], "kind", pool[at+1:], "quality", quality}
		put(prometheus.GaugeValue, "job_median_seconds", "Median of the recent run times of jobs; an empty label is what the service chose.", d.P50, labels...)
		put(prometheus.GaugeValue, "job_p90_seconds", "What nine tenths of the recent run times of jobs do not exceed.", d.P90, labels...)
	}
}
