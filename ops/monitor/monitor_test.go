package monitor

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
)

// states are both backends.
func states(t *testing.T) map[string]queue.State {
	ctx := context.Background()
	s, err := sqliteq.Open(ctx, filepath.Join(t.TempDir(), "q.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	o, err := redisq.ParseURL("redis://" + queuetest.StartRedis(t).Addr)
	if err != nil {
		t.Fatal(err)
	}
	r, err := redisq.Open(ctx, queue.DefaultConfig(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return map[string]queue.State{"sqlite": s, "redis": r}
}

// A day of figures survives restarts, and gaps stay gaps.
func TestHistory(t *testing.T) {
	for backend, state := range states(t) {
		t.Run(backend, func(t *testing.T) {
			ctx := context.Background()
			start := time.Now().Add(-90 * time.Minute).Truncate(span)
			h := NewHistory(state, "host7/gpu0")
			for s := 0; s < 3600; s += 5 {
				at := start.Add(time.Duration(s) * time.Second)
				if s == 1805 { // the process is replaced
					if err := h.Close(ctx); err != nil {
						t.Fatal(err)
					}
					h = NewHistory(state, "host7/gpu0")
				}
				f := map[string]float64{"t": float64(s / 10)}
				if s%10 == 5 {
					f["t"] = 0 // the higher one of a step stays
				}
				if s < 600 || s >= 1200 {
					f["gap"] = 1
				}
				if err := h.Add(ctx, at, f); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.Close(ctx); err != nil {
				t.Fatal(err)
			}
			got, err := Read(ctx, state, "host7/gpu0", start.Add(5*time.Minute), start.Add(time.Hour-time.Second))
			if err != nil {
				t.Fatal(err)
			}
			v, gap := got["t"], got["gap"]
			if len(got) != 2 || len(v.Values) != 330 || !v.Start.Equal(start.Add(5*time.Minute)) {
				t.Fatalf("%d series, %d values from %v", len(got), len(v.Values), v.Start)
			}
			for i, x := range v.Values {
				if x != float64(i+30) {
					t.Fatalf("value %d is %g", i, x)
				}
			}
			for i, x := range gap.Values {
				if second := 300 + 10*i; math.IsNaN(x) != (second >= 600 && second < 1200) {
					t.Fatalf("second %d of the gap is %g", second, x)
				}
			}
			for since, want := range map[time.Time]int{start.Add(30 * time.Minute): 1, start.Add(2 * time.Hour): 0} {
				if names, err := Recorded(ctx, state, since); err != nil || len(names) != want || want == 1 && names[0] != "host7/gpu0" {
					t.Errorf("recorded since %v: %q %v", since, names, err)
				}
			}
			if other, err := Read(ctx, state, "host8", start, start.Add(time.Hour)); err != nil || len(other) > 0 {
				t.Errorf("another process has %v, %v", other, err)
			}
		})
	}
}

// away is a state that fails until it is told otherwise.
type away struct {
	queue.State
	gone bool
}

func (a *away) Put(ctx context.Context, key string, value []byte, version string, life time.Duration) (queue.Record, error) {
	if a.gone {
		return queue.Record{}, errors.New("away")
	}
	return a.State.Put(ctx, key, value, version, life)
}

func TestHistoryOutlastsAnOutage(t *testing.T) {
	ctx := context.Background()
	a := &away{State: states(t)["sqlite"], gone: true}
	h := NewHistory(a, "x")
	start := time.Now().Truncate(span)
	failed := 0
	for s := 0; s < 300; s += 10 {
		a.gone = s < 200
		if h.Add(ctx, start.Add(time.Duration(s)*time.Second), map[string]float64{"v": 1}) != nil {
			failed++
		}
	}
	got, err := Read(ctx, a, "x", start, start.Add(4*time.Minute))
	if err != nil || failed == 0 {
		t.Fatalf("%v, %d failures", err, failed)
	}
	if lo, hi, _, ok := got["v"].Extent(); !ok || lo != 1 || hi != 1 || math.IsNaN(got["v"].Values[0]) {
		t.Errorf("what was seen during the outage is lost: %v", got["v"])
	}
}

func TestFleet(t *testing.T) {
	for backend, state := range states(t) {
		t.Run(backend, func(t *testing.T) {
			ctx := context.Background()
			load := 1.5
			l := &Live{Name: "host7/gpu0", Role: "worker", Host: "host7", At: time.Now().Round(0), Rest: 0.25,
				Cards: []gpu.Sample{{Index: 0, Temperature: gpu.Of(80), MemoryUsed: gpu.Of(1), MemoryTotal: gpu.Of(4)}},
				Local: host.Sample{Load: &load, Memory: host.Share{Used: 1, Total: 2, Known: true}, Disks: map[string]host.Share{"/d": {}},
					Servers: map[string]host.Reply{"queue": {Latency: 2 * time.Millisecond}, "storage": {Error: "away"}}}}
			if err := Tell(ctx, state, l); err != nil {
				t.Fatal(err)
			}
			got, marks, err := Fleet(ctx, state)
			if err != nil || len(got) != 1 {
				t.Fatalf("%v %v", got, err)
			}
			want := map[string]float64{"gpu0 temperature °C": 80, "gpu0 memory %": 25, "rest %": 25, "memory %": 50, "load": 1.5, "queue ms": 2}
			for name, v := range Figures(&got[0]) {
				if want[name] != v {
					t.Errorf("%s is %g", name, v)
				}
				delete(want, name)
			}
			if len(want) > 0 {
				t.Errorf("missing: %v", want)
			}
			if err := Tell(ctx, state, l); err != nil {
				t.Fatal(err)
			}
			if _, again, _ := Fleet(ctx, state); again[l.Name] == marks[l.Name] || marks[l.Name] == "" {
				t.Error("a sign of life leaves no mark")
			}
			if err := Goodbye(ctx, state, l.Name); err != nil {
				t.Fatal(err)
			}
			if got, _, err := Fleet(ctx, state); err != nil || len(got) != 0 {
				t.Errorf("after the goodbye: %v, %v", got, err)
			}
		})
	}
}

func TestPlots(t *testing.T) {
	nan := math.NaN()
	s := Series{Start: time.Now(), Values: []float64{0, 7, nan, 3.5}}
	if got := s.Sparkline(10); got != "▁█ ▅" {
		t.Errorf("%q", got)
	}
	if got := s.Sparkline(2); got != "█▁" {
		t.Errorf("shrunk: %q", got)
	}
	if got := (Series{Values: []float64{nan}}).Sparkline(5); got != "" {
		t.Errorf("nothing known: %q", got)
	}
	svg := SVG(`a <b> & "c"`, map[string]Series{"x": s, "flat": {Values: []float64{1, 1}}, "none": {Values: []float64{nan}}})
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	long := strings.Repeat("long ", 20)
	if wide := SVG("x", map[string]Series{long: s}); strings.Contains(wide, `<rect x="210"`) {
		t.Errorf("a long name runs into its plot: %s", wide)
	}
	if strings.Count(svg, "<path") != 2 || strings.Contains(svg, "NaN") {
		t.Errorf("%s", svg)
	}
}
