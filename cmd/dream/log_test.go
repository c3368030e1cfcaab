package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dreamcad/ops/logfile"
)

// Times stand in the log as people read them, on every way.
func TestLogShowsTimes(t *testing.T) {
	c := &loadedConfig{settings: defaults()}
	c.Log.File = filepath.Join(t.TempDir(), "dream.log")
	var out, tail bytes.Buffer
	log, done, err := newLogger(c, &out, &tail)
	if err != nil {
		t.Fatal(err)
	}
	log.With("job", "01J000000000").WithGroup("g").Info("x", "took", 1500*time.Millisecond)
	done()
	var file bytes.Buffer
	if _, err := logfile.Job(&file, []string{c.Log.File}, "01J000000000"); err != nil {
		t.Fatal(err)
	}
	for way, got := range map[string]string{`"took":"1.5s"`: out.String(), `"g":{"took":"1.5s"}`: file.String(), "g.took=1.5s": tail.String()} {
		if !strings.Contains(got, way) {
			t.Errorf("no %s in %q", way, got)
		}
	}
}
