package rules

import (
	"strings"
	"testing"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/queue"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }

// cardAt is a snapshot with one card at the temperature; a negative one is unknown.
func cardAt(second int, celsius float64) *Snapshot {
	c := gpu.Sample{Index: 0, UUID: "GPU-1", Name: "Test"}
	if celsius >= 0 {
		c.Temperature = gpu.Of(celsius)
	}
	return &Snapshot{At: at(second), Host: "h", Cards: []gpu.Sample{c}}
}

func states(ts []Transition) string {
	var out []string
	for _, t := range ts {
		out = append(out, t.Rule.Code+" "+string(t.State))
	}
	return strings.Join(out, ", ")
}

func TestTemperature(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	const unknown = -1
	for _, x := range []struct {
		second  int
		celsius float64
		want    string
	}{
		{0, 83, ""}, // the limit itself is fine
		{1, 84, "gpu_warm firing"},
		{2, 84, ""}, // once
		{3, 82, ""}, // inside the hysteresis
		{4, 81, ""}, // cool, but not for long enough
		{5, unknown, ""},
		{10, 82, ""}, // the hold time begins again
		{11, 80, ""},
		{20, 80, ""},
		{30, unknown, ""}, // unknown does not resolve
		{31, 80, "gpu_warm resolved"},
		{40, 91, "gpu_warm firing, gpu_hot firing"},
		{41, 60, ""},
		{60, unknown, ""},
		{61, 60, "gpu_warm resolved, gpu_hot resolved"},
	} {
		if got := states(e.Evaluate(cardAt(x.second, x.celsius))); got != x.want {
			t.Errorf("second %d at %v °C: %q, want %q", x.second, x.celsius, got, x.want)
		}
	}
}

func TestUnknownFiresNothing(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	for second := range 100 {
		s := &Snapshot{At: at(second), Host: "h", Cards: []gpu.Sample{{Index: 0}},
			Local: host.Sample{Disks: map[string]host.Share{"/": {}}}}
		if got := states(e.Evaluate(s)); got != "" {
			t.Fatal(got)
		}
	}
}

// However low a threshold of a share is, the rule can end.
func TestLowSharesEnd(t *testing.T) {
	l := DefaultLimits()
	l.VRAM, l.Memory, l.Disk, l.DiskRefuse = 0.5, 0.5, 0.5, 0.5
	e := NewEngine(Default(l))
	look := func(second int, used float64) string {
		m := host.Share{Used: uint64(1000 * used), Total: 1e5, Known: true}
		return states(e.Evaluate(&Snapshot{At: at(second), Host: "h", Cards: []gpu.Sample{{Index: 0, MemoryUsed: gpu.Of(used), MemoryTotal: gpu.Of(100)}},
			Local: host.Sample{Memory: m, Disks: map[string]host.Share{"/d": m}}}))
	}
	var begun, ended int
	for second := range 30 {
		begun += strings.Count(look(second, 1), "firing")
	}
	for second := range 30 {
		ended += strings.Count(look(30+second, 0.1), "resolved")
	}
	if begun != 4 || ended != 4 {
		t.Errorf("%d began and %d ended", begun, ended)
	}
}

// A lost card's last word is told; later its silence neither raises nor ends anything.
func TestXidOfALostCard(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	look := func(second int, xids ...uint64) string {
		return states(e.Evaluate(&Snapshot{At: at(second), Host: "h", Cards: []gpu.Sample{{Index: 0, UUID: "GPU-1", Lost: "GPU is lost", Xids: xids}}}))
	}
	if got := look(0, 79); !strings.Contains(got, "gpu_xid firing") {
		t.Errorf("%q", got)
	}
	for second := 1; second < 1000; second++ {
		if got := look(second); strings.Contains(got, "gpu_xid") {
			t.Fatalf("after %d s: %q", second, got)
		}
	}
}

func TestDefaultsFireAndResolve(t *testing.T) {
	full := host.Share{Used: 99, Total: 100, Known: true}
	empty := host.Share{Used: 1, Total: 100, Known: true}
	bad := func(second int) *Snapshot {
		c := gpu.Sample{Index: 1, UUID: "GPU-2", Temperature: gpu.Of(99), SlowdownMargin: gpu.Of(1), MemoryUsed: gpu.Of(95), MemoryTotal: gpu.Of(100),
			ECCErrors: gpu.Of(2), ThrottleKnown: true, Throttle: []string{"thermal (driver)", "power cap"}, Xids: []uint64{79}}
		return &Snapshot{At: at(second), Host: "h", Cards: []gpu.Sample{c, {Index: 2, Lost: "GPU is lost"}},
			Local: host.Sample{Memory: full, Disks: map[string]host.Share{"/data": full},
				Servers: map[string]host.Reply{"queue": {Error: "refused"}, "storage": {Latency: time.Second}}},
			Queue:   &queue.Stats{Now: at(second), Oldest: map[queue.Class]queue.Age{queue.Interactive: 1e6}, Outbox: map[string]int64{"discord": 5000}},
			Workers: []Quiet{{Name: "host9", For: time.Hour}}, Jobs: []Quiet{{Name: "01J", For: time.Hour}}, Unread: map[string]float64{"bots/discord": 1e4},
			Failures: &Rate{Ended: 10, Bad: 5}, Poison: &Poison{Jobs: 2, Newest: "job 01J"}, Sessions: []Session{{Platform: "discord", Problem: "refused"}}, Overloaded: map[int]bool{1: true}}
	}
	good := func(second int) *Snapshot {
		c := gpu.Sample{Index: 1, UUID: "GPU-2", Temperature: gpu.Of(40), SlowdownMargin: gpu.Of(50), MemoryUsed: gpu.Of(5), MemoryTotal: gpu.Of(100),
			ECCErrors: gpu.Of(0), ThrottleKnown: true, Throttle: []string{"power cap"}}
		return &Snapshot{At: at(second), Host: "h", Cards: []gpu.Sample{c, {Index: 2}},
			Local: host.Sample{Memory: empty, Disks: map[string]host.Share{"/data": empty},
				Servers: map[string]host.Reply{"queue": {}, "storage": {Latency: time.Millisecond}}},
			Queue:   &queue.Stats{Now: at(second), Oldest: map[queue.Class]queue.Age{}, Outbox: map[string]int64{"discord": 0}},
			Workers: []Quiet{{Name: "host9"}}, Jobs: []Quiet{{Name: "01J"}}, Unread: map[string]float64{"bots/discord": 0},
			Failures: &Rate{Ended: 10}, Poison: &Poison{}, Sessions: []Session{{Platform: "discord", Up: true}}, Overloaded: map[int]bool{}}
	}
	rules := Default(DefaultLimits())
	e := NewEngine(rules)
	fired, resolved := map[string]bool{}, map[string]bool{}
	for second := range 100 {
		for _, x := range e.Evaluate(bad(second)) {
			if x.State != queue.Firing || fired[x.Rule.Code] {
				t.Errorf("%s %s", x.Rule.Code, x.State)
			}
			fired[x.Rule.Code] = true
			if !strings.HasPrefix(x.Text, x.Rule.Title) || x.Key == "" {
				t.Errorf("text %q, key %q", x.Text, x.Key)
			}
		}
	}
	for second := 100; second < 600; second++ {
		for _, x := range e.Evaluate(good(second)) {
			resolved[x.Rule.Code] = x.State == queue.Resolved
		}
	}
	for _, r := range rules {
		if !fired[r.Code] || !resolved[r.Code] {
			t.Errorf("%s: fired %v, resolved %v", r.Code, fired[r.Code], resolved[r.Code])
		}
	}
}

func TestAdoptedConditionResolves(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	e.Adopt("gpu_warm", "h/GPU-1", at(-100))
	if got := states(e.Evaluate(cardAt(0, 50))); got != "" {
		t.Fatal(got)
	}
	ts := e.Evaluate(cardAt(20, 50))
	if states(ts) != "gpu_warm resolved" || !ts[0].Since.Equal(at(-100)) {
		t.Fatalf("%+v", ts)
	}
}

// A firing condition has news once its text differs and the pause is over.
func TestNews(t *testing.T) {
	e := NewEngine(Default(DefaultLimits()))
	begin := time.Unix(1700000000, 0)
	look := func(second int, temperature float64) []Transition {
		at := begin.Add(time.Duration(second) * time.Second)
		e.Evaluate(&Snapshot{At: at, Host: "h", Cards: []gpu.Sample{{UUID: "GPU-1", Temperature: gpu.Of(temperature)}}})
		return e.News(at, 10*time.Second)
	}
	if n := look(0, 85); n != nil {
		t.Errorf("the first message is no news: %+v", n)
	}
	if n := look(5, 87); n != nil {
		t.Errorf("news after 5 s: %+v", n)
	}
	n := look(10, 88)
	if len(n) != 1 || n[0].Rule.Code != "gpu_warm" || n[0].State != queue.Firing || n[0].Value != 88 || !n[0].Since.Equal(begin) || !strings.Contains(n[0].Text, "88") {
		t.Errorf("%+v", n)
	}
	if n := look(25, 88); n != nil {
		t.Errorf("news without any: %+v", n)
	}
	look(30, 60)
	look(41, 60)
	if n := look(60, 60); n != nil {
		t.Errorf("news of what is over: %+v", n)
	}
}
