//go:build cgo && linux

package gpu

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"dreamcad/ops/gpu/gputest"
)

// The test program started again with a scripted library prints what it reads,
// each 100 ms, for as long as it is told and at least twice.
func TestMain(m *testing.M) {
	if text := os.Getenv("GPU_TEST_READ"); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil {
			panic(err)
		}
		s, err := Open()
		if err != nil {
			panic(err)
		}
		out := json.NewEncoder(os.Stdout)
		end := time.Now().Add(limit)
		for looks := 0; looks < 2 || time.Now().Before(end); looks++ {
			if err := out.Encode(s.Read()); err != nil {
				panic(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err := s.Close(); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play reads scripted cards for a while and returns what was seen.
func play(t *testing.T, script, during string, flags ...string) (all [][]Sample) {
	t.Helper()
	err := read(t, gputest.Build(t, script, flags...), during, func(s []Sample) bool { all = append(all, s); return true })
	if err != nil {
		t.Fatalf("reading ended with %v", err)
	}
	return all
}

// read shows each look to see, for a while or until it has seen enough.
func read(t *testing.T, l *gputest.Library, during string, see func([]Sample) (more bool)) error {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), l.Env()...), "GPU_TEST_READ="+during)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	for in := json.NewDecoder(out); in.More(); {
		var s []Sample
		if err := in.Decode(&s); err != nil {
			t.Fatal(err)
		}
		if !see(s) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
			return nil
		}
	}
	return cmd.Wait()
}

const everything = `
0 temperature 61
0 margin 22
0 memory_used 1000
0 memory_total 4000
0 utilisation 97
0 power 280.5
0 power_limit 300
0 clock_sm 1700
0 clock_memory 5000
0 fan 55
0 ecc 3
0 pcie_gen 4
0 pcie_width 16
0 pcie_read 10
0 pcie_write 20
0 throttle 64
0 process 900
0 xid 79
0 xid 48
`

func TestEverySensor(t *testing.T) {
	all := play(t, everything, "200ms")
	s := all[0][0]
	for name, x := range map[string]struct {
		got  Value
		want float64
	}{
		"temperature": {s.Temperature, 61}, "margin": {s.SlowdownMargin, 22}, "memory used": {s.MemoryUsed, 1000}, "memory total": {s.MemoryTotal, 4000},
		"utilisation": {s.Utilisation, 97}, "power": {s.Power, 280.5}, "power limit": {s.PowerLimit, 300}, "sm clock": {s.ClockSM, 1700},
		"memory clock": {s.ClockMemory, 5000}, "fan": {s.Fan, 55}, "ecc": {s.ECCErrors, 3}, "pcie generation": {s.PCIeGen, 4}, "pcie width": {s.PCIeWidth, 16},
		"pcie read": {s.PCIeRead, 10 * 1024}, "pcie write": {s.PCIeWrite, 20 * 1024}, "memory share": {s.MemoryShare(), 0.25},
	} {
		if x.got != Of(x.want) {
			t.Errorf("%s is %+v, want %g", name, x.got, x.want)
		}
	}
	if s.Name != "Scripted Card 0" || s.UUID != "GPU-script-0" || s.Lost != "" {
		t.Errorf("card %q %q, lost %q", s.Name, s.UUID, s.Lost)
	}
	if !s.ThrottleKnown || len(s.Throttle) != 1 || s.Throttle[0] != "thermal (hardware)" {
		t.Errorf("throttled: %v", s.Throttle)
	}
	if len(s.Processes) != 1 || s.Processes[0].Name != "gpu.test" || s.Processes[0].Memory != Of(900) {
		t.Errorf("processes %+v", s.Processes)
	}
	if len(s.Xids) != 2 || s.Xids[0] != 79 || len(all[1][0].Xids) != 0 {
		t.Errorf("xids %v, then %v", s.Xids, all[1][0].Xids)
	}
}

// A card that says why it falls off the bus is heard, though it answers nothing more.
func TestLastXidOfALostCard(t *testing.T) {
	s := play(t, "0 temperature 50\n0 xid 79\n0 lost 1\ncard 1\n0 temperature 40\n", "0s")[0]
	if len(s) != 2 || s[0].Lost == "" || len(s[0].Xids) != 1 || s[0].Xids[0] != 79 || len(s[1].Xids) != 0 {
		t.Errorf("%+v", s)
	}
}

// What the card or its driver cannot tell is unknown, never zero.
func TestUnreadableIsUnknown(t *testing.T) {
	unknown := func(t *testing.T, s *Sample) {
		t.Helper()
		for i, v := range []Value{s.SlowdownMargin, s.MemoryUsed, s.MemoryTotal, s.Utilisation, s.Power, s.PowerLimit, s.ClockSM, s.ClockMemory, s.Fan,
			s.ECCErrors, s.PCIeGen, s.PCIeWidth, s.PCIeRead, s.PCIeWrite, s.MemoryShare()} {
			if v.Known || v.V != 0 {
				t.Errorf("sensor %d says %+v", i, v)
			}
		}
		if s.ThrottleKnown || len(s.Processes) > 0 {
			t.Errorf("throttle %v, processes %v", s.ThrottleKnown, s.Processes)
		}
	}
	t.Run("sensors", func(t *testing.T) {
		s := play(t, "0 temperature 50\n", "0s")[0][0]
		if s.Temperature != Of(50) {
			t.Errorf("temperature %+v", s.Temperature)
		}
		unknown(t, &s)
	})
	t.Run("process", func(t *testing.T) {
		s := play(t, "0 process -1\n", "0s")[0][0]
		if len(s.Processes) != 1 || s.Processes[0].Memory.Known {
			t.Errorf("processes %+v", s.Processes)
		}
	})
	t.Run("old driver", func(t *testing.T) {
		s := play(t, everything+"0 threshold 90\n", "0s", "-DOLD_DRIVER")[0][0]
		if s.Temperature != Of(61) || s.SlowdownMargin != Of(29) || s.Fan != Of(55) {
			t.Errorf("temperature %+v, margin %+v, fan %+v", s.Temperature, s.SlowdownMargin, s.Fan)
		}
		if s.PowerLimit.Known || s.PCIeRead.Known || len(s.Processes) > 0 {
			t.Errorf("an old driver tells %+v", s)
		}
	})
	t.Run("margin only", func(t *testing.T) {
		s := play(t, "0 margin 30\n", "0s")[0][0]
		if s.Temperature.Known || s.SlowdownMargin != Of(30) {
			t.Errorf("temperature %+v, margin %+v", s.Temperature, s.SlowdownMargin)
		}
	})
}

// Sensors and cards go and come back; other cards are read on.
func TestLostAndFound(t *testing.T) {
	acts := []struct {
		script string
		seen   func(a, b *Sample) bool
	}{
		{"0 temperature 40\ncard 1\n0 temperature 30\n", func(a, b *Sample) bool { return a.Temperature == Of(40) && b.Temperature == Of(30) }},
		{"0 temperature none\ncard 1\n0 temperature 30\n0 lost 1\n", func(a, b *Sample) bool { return !a.Temperature.Known && b.Lost == "GPU is lost" }},
		{"0 temperature 60\ncard 1\n0 temperature 30\n", func(a, b *Sample) bool { return a.Temperature == Of(60) && b.Temperature == Of(30) }},
	}
	l, act, looks := gputest.Build(t, acts[0].script), 0, 0
	err := read(t, l, "1m", func(look []Sample) bool {
		a, b := &look[0], &look[1]
		if a.Lost != "" || !b.Temperature.Known && b.Lost == "" || b.Lost != "" && b.Temperature.Known {
			t.Fatalf("look %d: %+v", looks, look)
		}
		looks++
		if acts[act].seen(a, b) {
			if act++; act < len(acts) {
				l.Play(acts[act].script)
			}
		}
		return act < len(acts)
	})
	if err != nil || act < len(acts) {
		t.Fatalf("act %d was not seen in %d looks: %v", act, looks, err)
	}
}
