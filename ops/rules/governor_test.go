package rules

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/monitor"
)

// model is a card as one heat capacity with one resistance to the air, and a chip that is warmer than it.
type model struct {
	air, resistance, constant float64 // °C, °C/W, seconds
	idle, busy                float64 // W
	celsius                   float64
	chip                      float64 // °C/W between chip and cooler; the chip follows within half a second
	warmer                    float64 // °C
}

func (m *model) advance(d time.Duration, working bool) {
	power := m.idle
	if working {
		power = m.busy
	}
	settled := m.air + m.resistance*power
	m.celsius = settled + (m.celsius-settled)*math.Exp(-d.Seconds()/m.constant)
	m.warmer = m.chip*power + (m.warmer-m.chip*power)*math.Exp(-d.Seconds()/0.5)
}

func (m *model) sensor() float64 { return m.celsius + m.warmer }

// course is a simulated hour of a card under a governor.
type course struct {
	celsius, rest []float64     // each ten seconds: highest temperature, share of rest
	highest       float64       // of all
	above         time.Duration // over the limit
	late          float64       // highest of the last ten minutes
	worked        float64       // share of them in which the worker worked
	held          bool          // a hold was asked for
}

// simulate runs a worker with the given step under a governor that looks so often.
func simulate(m model, step, every, total time.Duration, l Limits) (c course) {
	now := start
	g := NewGovernor(l, func(*gpu.Sample) bool { return true }, func() time.Time { return now }, nil)
	e := NewEngine(Default(l))
	const tick = 5 * time.Millisecond
	end, look := start.Add(total), start
	var busyUntil, wakeAt time.Time
	var work, all float64
	for ; now.Before(end); now = now.Add(tick) {
		if !now.Before(look) {
			if look.Sub(start)%(10*time.Second) == 0 {
				share, _ := g.Resting()
				c.celsius, c.rest = append(c.celsius, m.sensor()), append(c.rest, 100*share)
			}
			look = look.Add(every)
			s := &Snapshot{At: now, Host: "h", Cards: []gpu.Sample{{UUID: "GPU-1", Temperature: gpu.Of(math.Round(m.sensor()))}}}
			g.Observe(s, e.Evaluate(s))
		}
		// The worker: Pause before each step; long rests are asked again each second.
		if !now.Before(busyUntil) && !now.Before(wakeAt) {
			d := g.Pause()
			c.held = c.held || d >= 10*time.Second
			if wakeAt = now.Add(min(d, time.Second)); d <= tick {
				busyUntil, wakeAt = now.Add(step), now
			} else if d <= time.Second {
				busyUntil = wakeAt.Add(step)
			}
		}
		working := now.Before(busyUntil) && !now.Before(wakeAt)
		m.advance(tick, working)
		c.highest = max(c.highest, m.sensor())
		c.celsius[len(c.celsius)-1] = max(c.celsius[len(c.celsius)-1], m.sensor())
		if m.sensor() > l.GPUWarm {
			c.above += tick
		}
		if end.Sub(now) < 10*time.Minute {
			c.late = max(c.late, m.sensor())
			all++
			if working {
				work++
			}
		}
	}
	c.worked = work / all
	return c
}

func TestTemperatureSettlesUnderTheLimit(t *testing.T) {
	l := DefaultLimits()
	plot := map[string]monitor.Series{} // to look at: DREAM_PLOT=FILE
	for name, x := range map[string]struct {
		model model
		step  time.Duration
	}{
		"slow card, short steps":                  {model{air: 25, resistance: 0.25, constant: 60, idle: 50, busy: 300, celsius: 30}, 100 * time.Millisecond},
		"slow card, long steps":                   {model{air: 25, resistance: 0.25, constant: 60, idle: 50, busy: 300, celsius: 30}, 2 * time.Second},
		"fast card":                               {model{air: 25, resistance: 0.25, constant: 15, idle: 50, busy: 300, celsius: 30}, 300 * time.Millisecond},
		"hot room, small cooler":                  {model{air: 35, resistance: 0.35, constant: 40, idle: 40, busy: 250, celsius: 40}, 200 * time.Millisecond},
		"chip that follows at once, as an H200's": {model{air: 60, resistance: 0.02, constant: 60, idle: 80, busy: 600, celsius: 62, chip: 0.05}, 20 * time.Millisecond},
		"chip that follows at once, long steps":   {model{air: 50, resistance: 0.05, constant: 30, idle: 80, busy: 600, celsius: 55, chip: 0.03}, 500 * time.Millisecond},
		"already above the limit":                 {model{air: 25, resistance: 0.25, constant: 60, idle: 50, busy: 300, celsius: 88}, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			full := x.model.air + (x.model.resistance+x.model.chip)*x.model.busy
			c := simulate(x.model, x.step, time.Second, 30*time.Minute, l)
			t.Logf("full load settles at %.0f °C; governed: at most %.1f °C, %v above the limit; in the end at most %.1f °C, working %.0f %% of the time",
				full, c.highest, c.above.Round(time.Second), c.late, 100*c.worked)
			plot["temperature °C, "+name] = monitor.Series{Start: start, Values: c.celsius}
			plot["rest %, "+name] = monitor.Series{Start: start, Values: c.rest}
			if full <= l.GPUWarm {
				t.Fatal("this card needs no governor")
			}
			if c.late > l.GPUWarm {
				t.Errorf("%.1f °C in the last ten minutes, the limit is %g", c.late, l.GPUWarm)
			}
			// What a chip does before the first look that sees it warm is nobody's fault.
			if x.model.celsius < l.GPUWarm && (c.highest > l.GPUWarm+2 && c.above > time.Second || c.above > 30*time.Second) {
				t.Errorf("on the way: %.1f °C and %v above the limit", c.highest, c.above)
			}
			if c.late < l.GPUWarm-10 || c.worked < 0.3 {
				t.Errorf("far too careful: at most %.1f °C, working %.2f of the time", c.late, c.worked)
			}
			if c.held {
				t.Error("a hold was asked for although pauses are enough")
			}
		})
	}
	if file := os.Getenv("DREAM_PLOT"); file != "" {
		if err := os.WriteFile(file, []byte(monitor.SVG("A governed card, simulated: limit 83 °C, target 80 °C", plot)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCoolCardIsNotSlowed(t *testing.T) {
	c := simulate(model{air: 25, resistance: 0.15, constant: 60, idle: 50, busy: 300, celsius: 30}, 200*time.Millisecond, time.Second, 20*time.Minute, DefaultLimits())
	if c.worked < 0.999 || c.held {
		t.Fatalf("worked %.3f of the time, held %v", c.worked, c.held)
	}
}

// How often the governor looks is a setting; what it does with a card is not.
func TestLooksMoreOrLessOften(t *testing.T) {
	m, l := model{air: 25, resistance: 0.25, constant: 60, idle: 50, busy: 300, celsius: 30}, DefaultLimits()
	want := simulate(m, 200*time.Millisecond, time.Second, 10*time.Minute, l)
	for _, every := range []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, 2 * time.Second, 5 * time.Second} {
		got := simulate(m, 200*time.Millisecond, every, 10*time.Minute, l)
		apart := 0.0
		for i := range want.rest {
			apart = max(apart, math.Abs(got.rest[i]-want.rest[i]))
		}
		t.Logf("a look each %v: at most %.1f °C, rests at most %.1f points apart", every, got.highest, apart)
		if math.Abs(got.highest-want.highest) > 0.5 || apart > 10 {
			t.Errorf("a look each %v: %.1f °C and rests %.0f points apart; each second: %.1f °C", every, got.highest, apart, want.highest)
		}
	}
}

func TestHoldAndGoOn(t *testing.T) {
	now := start
	g := NewGovernor(DefaultLimits(), func(*gpu.Sample) bool { return true }, func() time.Time { return now }, nil)
	see := func(second int, celsius float64) { now = at(second); g.Observe(cardAt(second, celsius), nil) }
	see(0, 91)
	if g.Pause() < 10*time.Second || g.Admit() == nil {
		t.Fatal("no hold above the hot limit")
	}
	see(1, -1) // the sensor is lost: the hold stays
	see(2, 85)
	if g.Pause() < 10*time.Second || g.Admit() == nil {
		t.Fatal("the hold ended while the card is hot")
	}
	see(3, 70)
	if g.Pause() >= 10*time.Second || g.Admit() != nil {
		t.Fatal("the hold did not end")
	}
}

func TestMarginOnlyCard(t *testing.T) {
	g := NewGovernor(DefaultLimits(), func(*gpu.Sample) bool { return true }, nil, nil)
	see := func(second int, margin float64) {
		g.Observe(&Snapshot{At: at(second), Cards: []gpu.Sample{{SlowdownMargin: gpu.Of(margin)}}}, nil)
	}
	see(0, 40)
	if g.Admit() != nil {
		t.Fatal("refused at a margin of 40")
	}
	see(1, 2)
	if g.Admit() == nil {
		t.Fatal("no hold at a margin of 2")
	}
	see(2, 20)
	if err := g.Admit(); err != nil {
		t.Fatal(err)
	}
}

func TestRefuseAndUndo(t *testing.T) {
	l := DefaultLimits()
	e := NewEngine(Default(l))
	g := NewGovernor(l, func(c *gpu.Sample) bool { return c.Index == 0 }, nil, nil)
	see := func(second int, card int, vram float64, disk uint64) {
		s := &Snapshot{At: at(second), Host: "h",
			Cards: []gpu.Sample{{Index: card, MemoryUsed: gpu.Of(vram), MemoryTotal: gpu.Of(100)}},
			Local: host.Sample{Disks: map[string]host.Share{"/data": {Used: disk, Total: 100, Known: true}}}}
		g.Observe(s, e.Evaluate(s))
	}
	for s := range 20 {
		see(s, 0, 95, 10)
	}
	if err := g.Admit(); err == nil || !strings.Contains(err.Error(), "memory is nearly full") {
		t.Fatalf("full card: %v", err)
	}
	for s := 20; s < 40; s++ {
		see(s, 0, 50, 99)
	}
	if err := g.Admit(); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Fatalf("full disk: %v", err)
	}
	for s := 40; s < 60; s++ {
		see(s, 0, 50, 50)
	}
	if err := g.Admit(); err != nil {
		t.Fatal(err)
	}
	for s := 60; s < 80; s++ {
		see(s, 1, 99, 50) // another card is none of ours
	}
	if err := g.Admit(); err != nil {
		t.Fatal(err)
	}
}
