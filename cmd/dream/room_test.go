package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/device/cuda"
	"dreamcad/ops/gpu"
)

// testCard is the processor under the name and with the memory of a card.
type testCard struct {
	device.Device
	free, total int64
	asked       int
}

func (c *testCard) Info() device.Info {
	i := c.Device.Info()
	i.Kind, i.Name, i.Memory = "cuda", "Test Card", c.total
	return i
}

// FreeMemory of a card whose room is negative is that much, but none at first.
func (c *testCard) FreeMemory() (int64, error) {
	c.asked++
	if c.free < 0 && c.asked == 1 {
		return 0, nil
	}
	return max(c.free, -c.free), nil
}

// withCard makes this process see one card.
func withCard(t *testing.T, free, total int64) {
	t.Helper()
	before := openCard
	t.Cleanup(func() { openCard = before })
	openCard = func(int, cuda.Options) (device.Device, error) {
		d, err := cpu.New(cpu.Options{})
		return &testCard{Device: d, free: free, total: total}, err
	}
}

func testApp(t *testing.T, stderr io.Writer) *app {
	t.Helper()
	t.Setenv("DREAM_DATA", t.TempDir())
	c, err := loadConfig("", []string{"DREAM_DATA=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return &app{ctx: t.Context(), stdout: io.Discard, stderr: stderr, config: c, log: slog.New(slog.DiscardHandler)}
}

// The big model is the default where it was pulled and a card holds it; whatever
// does not fit is told in one sentence.
func TestDefaultModel(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		pulled      bool
		free, total int64
		flags       engineFlags
		model, kind string // empty: an error
		says        string
	}{
		"pulled, and it fits":     {true, 20 * gib, 24 * gib, engineFlags{}, bigModel, "cuda", ""},
		"pulled, and too large":   {true, -20 * gib, 24 * gib, engineFlags{}, builtin, "cuda", "Using the small model: the model mvdream-sd21 needs 0.2 GiB of memory on Test Card, and 0.0 GiB of 24.0 GiB are free"},
		"not pulled":              {false, 20 * gib, 24 * gib, engineFlags{}, builtin, "cuda", ""},
		"pulled, on a processor":  {true, 20 * gib, 24 * gib, engineFlags{Device: "cpu"}, builtin, "cpu", ""},
		"the small one is wanted": {true, 20 * gib, 24 * gib, engineFlags{Model: builtin}, builtin, "cuda", ""},
		"a card without room":     {true, 1 << 20, 24 * gib, engineFlags{}, builtin, "cpu", "Using the processor: the model mini needs 0.2 GiB of memory on Test Card, and 0.0 GiB of 24.0 GiB are free: other programs hold the rest."},
		"the same, named":         {true, 1 << 20, 24 * gib, engineFlags{Device: "cuda:0", Model: bigModel}, "", "", "the model mvdream-sd21 needs 0.2 GiB of memory on Test Card, and 0.0 GiB of 24.0 GiB are free"},
		"too small a card":        {true, 1 << 20, 64 << 20, engineFlags{Device: "cuda:0", Model: bigModel}, "", "", "Test Card is too small for the model mvdream-sd21, which needs 0.2 GiB of memory: it has 0.1 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			withCard(t, c.free, c.total)
			var stderr bytes.Buffer
			a := testApp(t, &stderr)
			if c.pulled {
				brokenBundle(t, a.config.Data, bigModel, "", nil)
			}
			m, done, err := a.openModel(c.flags)
			if err != nil {
				if c.model != "" || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("error %v, want model %q and %q", err, c.model, c.says)
				}
				return
			}
			defer done()
			if m.Bundle.Name != c.model || m.Device().Info().Kind != c.kind || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("model %s on %s, saying %q; want %s on %s, saying %q", m.Bundle.Name, m.Device().Info().Kind, stderr.String(), c.model, c.kind, c.says)
			}
		})
	}
}

func TestNoRoomNamesWhoHasIt(t *testing.T) {
	e := &noRoom{model: bigModel, card: "Test Card", need: 3 << 30, free: 1 << 30, total: 2 << 30}
	if got := e.Error(); got != "Test Card is too small for the model mvdream-sd21, which needs 3.0 GiB of memory: it has 2.0 GiB (--model mini needs little, --device cpu none)" {
		t.Error(got)
	}
	e.total, e.holders = 24<<30, holders([]gpu.Process{{PID: 7, Name: "trainer", Memory: gpu.Of(2 << 30)}, {PID: 8, Memory: gpu.Of(20 << 30)}, {PID: 9}})
	if got := e.Error(); got != "the model mvdream-sd21 needs 3.0 GiB of memory on Test Card, and 1.0 GiB of 24.0 GiB are free: a program (process 8) holds 20.0 GiB, trainer (process 7) holds 2.0 GiB, a program (process 9)" {
		t.Error(got)
	}
}

func TestTogether(t *testing.T) {
	a := testApp(t, io.Discard)
	for name, c := range map[string]struct {
		free  int64
		flags engineFlags
		set   int
		want  int
	}{
		"room for four":    {8 << 30, engineFlags{Device: "cuda:0"}, 0, 4},
		"deterministic":    {8 << 30, engineFlags{Device: "cuda:0", Deterministic: true}, 3, 1},
		"as set":           {8 << 30, engineFlags{Device: "cuda:0"}, 7, 7},
		"a processor":      {8 << 30, engineFlags{Device: "cpu"}, 0, 1},
		"hardly any room":  {240 << 20, engineFlags{Device: "cuda:0"}, 0, 1},
		"a processor, set": {8 << 30, engineFlags{Device: "cpu"}, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			withCard(t, c.free, 8<<30)
			a.config.Worker.Batch = c.set
			c.flags.Model = builtin
			m, done, err := a.openModel(c.flags)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			if got := a.together(m, c.flags); got != c.want {
				one, _ := m.Footprint(1)
				t.Errorf("%d jobs at once, want %d (one needs %d)", got, c.want, one)
			}
		})
	}
}
