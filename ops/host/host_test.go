package host

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	s := &Sensors{Directories: []string{dir, filepath.Join(dir, "missing")}, ProbeLimit: 100 * time.Millisecond, Probes: map[string]Probe{
		"good":    func(context.Context) error { return nil },
		"refuses": func(context.Context) error { return errors.New("no") },
		"hangs":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	}}
	got := s.Read(context.Background())
	if !got.Memory.Known || got.Memory.Used == 0 || got.Memory.Used >= got.Memory.Total || got.Load == nil {
		t.Errorf("memory %+v, load %v", got.Memory, got.Load)
	}
	if d := got.Disks[dir]; !d.Known || d.Used == 0 || d.Used > d.Total {
		t.Errorf("disk %+v", d)
	}
	if d := got.Disks[filepath.Join(dir, "missing")]; d.Known {
		t.Errorf("a missing directory has a disk: %+v", d)
	}
	if a := got.Servers["good"]; a.Error != "" || a.Latency <= 0 {
		t.Errorf("good: %+v", a)
	}
	if got.Servers["refuses"].Error != "no" || got.Servers["hangs"].Error == "" {
		t.Errorf("servers: %+v", got.Servers)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back Sample
	if err := json.Unmarshal(text, &back); err != nil || back.Memory != got.Memory || back.Disks[dir] != got.Disks[dir] || back.Disks[filepath.Join(dir, "missing")].Known {
		t.Errorf("%s becomes %+v (%v)", text, back, err)
	}
}

func TestDistinct(t *testing.T) {
	dir := t.TempDir()
	other := "/dev/shm" // another file system on Linux
	if _, err := os.Stat(other); err != nil {
		t.Skip(err)
	}
	got := Distinct([]string{filepath.Join(dir, "not", "yet"), "", dir, other, os.TempDir()})
	if want := []string{dir, other}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
