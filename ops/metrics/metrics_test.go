package metrics

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"dreamcad/bots/delivery"
	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/rules"
	"dreamcad/queue"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// full is a view with something of everything.
var full = View{Rules: rules.Default(rules.DefaultLimits()), Firing: map[string]int{"gpu_warm": 2}, Rest: 0.25, Worker: &Worker{Jobs: 1, Refusing: "full"},
	Snapshot: &rules.Snapshot{
		Cards: []gpu.Sample{{Index: 1, UUID: "GPU-1", Name: "Card", Temperature: gpu.Of(84), Processes: []gpu.Process{{PID: 7, Name: "dream", Memory: gpu.Of(5)}, {PID: 8}}},
			{Index: 2, UUID: "GPU-2", Name: "Card", Lost: "GPU is lost"},
			{Index: 3, UUID: "GPU-3", Name: "Card", SlowdownMargin: gpu.Of(9), Power: gpu.Of(200), PowerLimit: gpu.Of(300), MemoryUsed: gpu.Of(1), MemoryTotal: gpu.Of(2), Utilisation: gpu.Of(50), ClockSM: gpu.Of(1500)}},
		Local: host.Sample{Memory: host.Share{Used: 1, Total: 2, Known: true}, Disks: map[string]host.Share{"/d": {Used: 1, Total: 4, Known: true}, "/unknown": {}},
			Servers: map[string]host.Reply{"queue": {Latency: 2 * time.Millisecond}, "storage": {Error: "away"}}},
		Queue: &queue.Stats{Queued: map[queue.Class]int64{queue.Bulk: 9}, Oldest: map[queue.Class]queue.Age{queue.Bulk: 60},
			Ended: map[queue.Status]int64{queue.Failed: 3}, Counters: map[string]int64{"refused_lost": 2, "lost": 4},
			Outbox: map[string]int64{"bots/discord": 6}, Durations: map[string]queue.DurationFit{"mini/mesh draft": {Samples: 3, P50: 10, P90: 20}}, Leased: 5},
		Unread: map[string]float64{"bots/discord": 30}, Workers: []rules.Quiet{{Name: "host7/gpu0", For: time.Minute}, {Name: "gone", Gone: true}},
		Sessions: []rules.Session{{Platform: "Discord", Up: true}},
	}}

func TestMetrics(t *testing.T) {
	v := full
	r := NewRegistry("1.2.3", func() View { return v })
	NewStages(r).Finished(queue.Mesh, map[string]float64{"optimise": 20})
	why := ""
	s := httptest.NewServer(Handler(r, func() string { return why }))
	defer s.Close()
	code, text := get(t, s.URL+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	for _, want := range []string{
		`dream_build_info{version="1.2.3"} 1`,
		`dream_rule_firing{code="gpu_warm",severity="warning"} 2`,
		`dream_rule_firing{code="gpu_hot",severity="critical"} 0`,
		`dream_governor_rest_ratio 0.25`,
		`dream_worker_takes_work 0`,
		`dream_gpu_temperature_celsius{gpu="1",name="Card",uuid="GPU-1"} 84`,
		`dream_gpu_process_memory_bytes{gpu="1",pid="7",process="dream",uuid="GPU-1"} 5`,
		`dream_gpu_lost{gpu="2",name="Card",uuid="GPU-2"} 1`,
		`dream_disk_used_bytes{directory="/d"} 1`,
		`dream_server_up{server="storage"} 0`,
		`dream_server_latency_seconds{server="queue"} 0.002`,
		`dream_queue_depth{class="bulk"} 9`,
		`dream_queue_oldest_seconds{class="bulk"} 60`,
		`dream_queue_leased 5`,
		`dream_queue_kept{status="failed"} 3`,
		`dream_queue_events_total{event="refused_lost"} 2`,
		`dream_queue_events_total{event="lost"} 4`,
		`dream_queue_events_total{event="quarantined"} 0`,
		`dream_outbox_depth{consumer="bots/discord"} 6`,
		`dream_outbox_age_seconds{consumer="bots/discord"} 30`,
		`dream_job_median_seconds{kind="mesh",model="mini",quality="draft"} 10`,
		`dream_job_p90_seconds{kind="mesh",model="mini",quality="draft"} 20`,
		`dream_worker_silence_seconds{worker="host7/gpu0"} 60`,
		`dream_chat_connected{platform="Discord"} 1`,
		`dream_stage_seconds_sum{kind="mesh",stage="optimise"} 20`,
		`go_goroutines `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
	// What is not known is absent, never zero.
	for _, absent := range []string{`dream_gpu_power_watts{gpu="1"`, `gpu="2",name="Card",uuid="GPU-2"} 0`, `directory="/unknown"`, `pid="8"`, `dream_server_latency_seconds{server="storage"}`, "dream_gpu_throttled"} {
		if strings.Contains(text, absent) {
			t.Errorf("%s is told without being known", absent)
		}
	}
	if strings.Contains(text, `worker="gone"`) {
		t.Error("a worker of whom nothing is expected is told to be silent for no time")
	}
	if code, _ := get(t, s.URL+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	if code, _ := get(t, s.URL+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d", code)
	}
	why = "the queue does not answer"
	if code, text := get(t, s.URL+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, why) {
		t.Errorf("readyz while down: %d %s", code, text)
	}
	v.Snapshot = nil // nothing seen yet
	if code, text := get(t, s.URL+"/metrics"); code != http.StatusOK || strings.Contains(text, "dream_gpu_") {
		t.Errorf("before the first look: %d", code)
	}
}

// What other programs are called, and a process that the driver lists twice, do
// not cost the whole scrape.
func TestOddities(t *testing.T) {
	v := View{Snapshot: &rules.Snapshot{
		Cards: []gpu.Sample{{UUID: "GPU-1", ThrottleKnown: true, Throttle: []string{gpu.PowerCap},
			Processes: []gpu.Process{{PID: 7, Name: "\xffodd", Memory: gpu.Of(5)}, {PID: 7, Name: "\xffodd", Memory: gpu.Of(6)}}}},
		Local: host.Sample{Disks: map[string]host.Share{"/\xfe": {Used: 1, Total: 4, Known: true}}},
	}}
	s := httptest.NewServer(Handler(NewRegistry("1", func() View { return v }), func() string { return "" }))
	defer s.Close()
	code, text := get(t, s.URL+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %.300s", code, text)
	}
	for _, want := range []string{
		`dream_gpu_process_memory_bytes{gpu="0",pid="7",process="\uFFFDodd",uuid="GPU-1"} 11`,
		"dream_disk_used_bytes{directory=\"/\uFFFD\"} 1",
		`dream_gpu_throttled{gpu="0",name="",reason="power cap",uuid="GPU-1"} 1`,
		`dream_gpu_throttled{gpu="0",name="",reason="power brake",uuid="GPU-1"} 0`,
	} {
		if !strings.Contains(text, strings.ReplaceAll(want, `\uFFFD`, "\uFFFD")) {
			t.Errorf("%s is missing", want)
		}
	}
}

// Every metric that the dashboard and the runbook name exists.
func TestDashboard(t *testing.T) {
	known := map[string]bool{"go_goroutines": true}
	r := NewRegistry("test", func() View { return full })
	delivery.NewMetrics(r)
	NewStages(r).Finished(queue.Mesh, map[string]float64{"optimise": 20})
	s := httptest.NewServer(Handler(r, func() string { return "" }))
	defer s.Close()
	_, text := get(t, s.URL+"/metrics")
	for _, name := range regexp.MustCompile(`(?m)^dream_\w+`).FindAllString(text, -1) {
		known[name] = true
	}
	source, err := os.ReadFile("../../bots/delivery/delivery.go") // vectors without a value yet show nothing
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:counter\(|Name: )"(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			known["dream_chat_"+m[1]+suffix] = true
		}
	}
	for _, file := range []string{"../../docs/deploy/grafana.json", "../../docs/runbook.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(text) {
			t.Errorf("%s is not JSON", file)
		}
		found := regexp.MustCompile(`\bdream_\w+`).FindAllString(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range found {
			if !known[name] {
				t.Errorf("%s names %s, which does not exist", file, name)
			}
		}
	}
}
