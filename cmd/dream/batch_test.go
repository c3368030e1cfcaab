package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A batch from file to pictures with real processes: a worker, an ingest that
// waits, the results; then an ingest whose pipe is silent is interrupted.
func TestBatchOfFiles(t *testing.T) {
	dir := t.TempDir()
	env := []string{"DREAM_DATA=" + filepath.Join(dir, "data")}
	file := filepath.Join(dir, "things.txt")
	if err := os.WriteFile(file, []byte("a red mug\n# none\na green chair --seed 7\n\x00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	child(t, env, "worker", "--device", "cpu")
	command := func(args ...string) *exec.Cmd {
		c := exec.Command("dream", args...)
		c.Env = append(os.Environ(), env...)
		return c
	}
	run := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		c := command(args...)
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); err != nil {
			t.Fatalf("dream %s: %v\n%s", strings.Join(args, " "), err, &errs)
		}
		return out.String()
	}
	rejects := filepath.Join(dir, "rejects.jsonl")
	out := run("ingest", file, "--kind", "views", "--batch", "things", "--rejects", rejects, "--wait")
	if !strings.Contains(out, `2 prompts of "things.txt" queued`) {
		t.Errorf("ingest says %q", out)
	}
	if b, err := os.ReadFile(rejects); err != nil || !strings.Contains(string(b), `"line":4`) {
		t.Errorf("rejects %q %v", b, err)
	}
	var first struct {
		Prompt, Status string
		Seed           int64
	}
	lines := strings.Split(strings.TrimSpace(run("batch", "results", "things")), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &first); err != nil || len(lines) != 2 || first.Prompt != "a green chair" || first.Seed != 7 || first.Status != "done" {
		t.Errorf("results %q: %v", lines, err)
	}
	var errs bytes.Buffer
	c := command("batch", "results", "things")
	c.Stderr = &errs
	if err := c.Run(); err != nil || !strings.Contains(errs.String(), "No result has links") {
		t.Errorf("a folder has no links, and nobody says so: %v %q", err, &errs)
	}
	if out := run("batch", "watch", "things", "--json"); !strings.Contains(out, `"state": "ended"`) {
		t.Errorf("watch says %q", out)
	}
	var jobs, stuck []struct{ ID, Status string }
	if err := json.Unmarshal([]byte(run("jobs", "list", "--json")), &jobs); err != nil || len(jobs) != 2 {
		t.Fatalf("%+v %v", jobs, err)
	}
	if out := run("jobs", "show", jobs[0].ID[len(jobs[0].ID)-6:], "--json"); !strings.Contains(out, `"status": "done"`) || strings.Contains(out, "place") {
		t.Errorf("show says %q", out)
	}
	if err := os.WriteFile(file, []byte("a boat\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("ingest", file, "--model", "nosuch", "--batch", "elsewhere")
	for end := time.Now().Add(30 * time.Second); len(stuck) == 0; time.Sleep(100 * time.Millisecond) {
		if err := json.Unmarshal([]byte(run("jobs", "list", "--json", "--status", "queued")), &stuck); err != nil || time.Now().After(end) {
			t.Fatalf("no job of the second batch: %v", err)
		}
	}
	if out := run("jobs", "show", stuck[0].ID); !strings.Contains(out, "no running worker can make it") {
		t.Errorf("show says %q of a job for a model that nobody has", out)
	}
	run("jobs", "cancel", stuck[0].ID)

	run("queue", "pause")
	again := strings.Fields(run("jobs", "retry", jobs[0].ID))
	if out := run("jobs", "show", again[len(again)-1], "--json"); !strings.Contains(out, `"position": 1`) || !strings.Contains(out, `"paused"`) {
		t.Errorf("show says %q of a job that waits", out)
	}

	silent := command("ingest", "-", "--format", "txt")
	in, err := silent.StdinPipe()
	if err == nil {
		err = silent.Start()
	}
	if err == nil { // more than a pipe holds: when it is written, the program reads
		_, err = io.WriteString(in, strings.Repeat("a boat\n", 50_000))
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- silent.Wait() }()
	if err := silent.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the interrupt was not heeded while the pipe was silent")
	}
	if code := silent.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
	if out := run("batch", "list"); strings.Contains(out, "standard input") {
		t.Errorf("an interrupted ingest left a batch: %s", out)
	}
}
