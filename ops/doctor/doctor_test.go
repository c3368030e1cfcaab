package doctor

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

func TestVerdicts(t *testing.T) {
	known := func(used, total float64) host.Share {
		return host.Share{Used: uint64(used), Total: uint64(total), Known: true}
	}
	for name, x := range map[string]struct {
		got  Result
		want Verdict
	}{
		"memory unknown": {memory(host.Share{}), Unknown},
		"16 GB":          {memory(known(1e9, 16e9)), Warn},
		"64 GB":          {memory(known(1e9, 64e9)), Pass},
		"disk unknown":   {disk("/x", host.Share{}), Unknown},
		"disk full":      {disk("/x", known(99.5e9, 100e9)), Fail},
		"disk filling":   {disk("/x", known(90e9, 100e9)), Warn},
		"disk free":      {disk("/x", known(10e9, 100e9)), Pass},
		"no driver":      {driver(gpu.Driver{}), Unknown},
		"old driver":     {driver(gpu.Driver{Version: "470.82.01"}), Fail},
		"driver":         {driver(gpu.Driver{Version: "550.54.15", CUDA: "12.4"}), Pass},
		"lost card":      {card(&gpu.Sample{Lost: "GPU is lost"}), Fail},
		"ecc":            {card(&gpu.Sample{ECCErrors: gpu.Of(1)}), Fail},
		"hot card":       {card(&gpu.Sample{SlowdownMargin: gpu.Of(3)}), Warn},
		"card":           {card(&gpu.Sample{Temperature: gpu.Of(40)}), Pass},
	} {
		if x.got.Verdict != x.want || x.got.Text == "" {
			t.Errorf("%s: %+v, want %s", name, x.got, x.want)
		}
	}
	if s := card(&gpu.Sample{Name: "X"}).Text; !strings.Contains(s, "unknown °C") {
		t.Errorf("a sensor that cannot be read shows as %q", s)
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	q, err := sqliteq.Open(t.Context(), filepath.Join(dir, "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	rs := Run(t.Context(), Deps{Directories: []string{dir, filepath.Join(dir, "absent")}, Queue: q, StoreError: errors.New("no such host")})
	found := map[string]Verdict{}
	for _, r := range rs {
		found[r.Title] = r.Verdict
	}
	if found["Storage"] != Fail || found["Disk of "+filepath.Join(dir, "absent")] != Unknown || found["Operating system"] == "" || Worst(rs) != Fail {
		t.Errorf("%v", found)
	}
	var out bytes.Buffer
	if err := Print(&out, rs, false); err != nil || strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "no such host") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
