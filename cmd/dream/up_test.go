package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/internal/testout"
)

// service is a running `dream up` as a child process.
type service struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	output *testout.Buffer
	done   chan error
}

// startUp starts the service on a free port and waits until it says where it is.
func startUp(t *testing.T, data string) *service {
	t.Helper()
	s := &service{t: t, output: &testout.Buffer{}, done: make(chan error, 1)}
	s.cmd = exec.Command("dream", "up", "--listen", "127.0.0.1:0", "--data", data)
	s.cmd.Stderr = s.output
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			_, _ = fmt.Fprintln(s.output, lines.Text())
			if _, url, ok := strings.Cut(lines.Text(), "http://"); ok {
				select {
				case ready <- "http://" + strings.Fields(url)[0]:
				default:
				}
			}
		}
		s.done <- s.cmd.Wait()
	}()
	select {
	case s.url = <-ready:
	case err := <-s.done:
		t.Fatalf("dream up ended before it was ready: %v\n%s", err, s.output)
	case <-time.After(time.Minute):
		t.Fatalf("dream up was not ready after a minute:\n%s", s.output)
	}
	return s
}

func (s *service) kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		select {
		case <-s.done:
		case <-time.After(10 * time.Second):
		}
	}
}

// say runs one command line through the API and returns the reply.
func (s *service) say(line string) (reply struct {
	Text  string
	Error bool
	Job   *apiJob
}) {
	s.t.Helper()
	body, _ := json.Marshal(map[string]string{"line": line})
	response, err := http.Post(s.url+"/api/command", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatalf("%q: %v\n%s", line, err, s.output)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
		s.t.Fatalf("%q: %v", line, err)
	}
	return reply
}

type apiJob struct {
	ID, Short, Prompt, State, Stage, Error string
	Notices                                []string
	Final                                  bool
	Files                                  []struct {
		Role, Name, URL string
		Bytes           int64
	}
}

// job reads a job; wait polls it until the condition holds.
func (s *service) job(id string) (j apiJob) {
	s.t.Helper()
	response, err := http.Get(s.url + "/api/jobs/" + id)
	if err != nil {
		s.t.Fatalf("job %s: %v\n%s", id, err, s.output)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&j); err != nil {
		s.t.Fatalf("job %s: %v", id, err)
	}
	return j
}

func (s *service) wait(id, what string, holds func(apiJob) bool) apiJob {
	s.t.Helper()
	var j apiJob
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if j = s.job(id); holds(j) {
			return j
		}
		if j.State == "failed" {
			break
		}
	}
	s.t.Fatalf("job %s never was %s: %+v\n%s", id, what, j, s.output)
	return j
}

func (s *service) download(path string) []byte {
	s.t.Helper()
	response, err := http.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("download %s: %v, %s", path, err, response.Status)
	}
	return data
}

// TestKillAndGoOn kills the service in the middle of a job; started again, the
// job is there and finishes. An interrupt then ends the service in peace.
func TestKillAndGoOn(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := startUp(t, data)
	reply := s.say("/dream a red chair --seed 3")
	if reply.Error || reply.Job == nil {
		t.Fatalf("refused: %s", reply.Text)
	}
	id := reply.Job.ID
	s.wait(id, "shaping", func(j apiJob) bool { return j.Stage == "optimise" })
	s.kill()

	s = startUp(t, data)
	j := s.wait(id, "done", func(j apiJob) bool { return j.Final })
	if j.State != "done" {
		t.Fatalf("the job ended as %s: %s", j.State, j.Error)
	}
	for _, f := range j.Files {
		if got := int64(len(s.download(f.URL))); got != f.Bytes {
			t.Errorf("%s has %d bytes, the manifest says %d", f.Name, got, f.Bytes)
		}
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("an interrupted service ended with %v\n%s", err, s.output)
		}
	case <-time.After(time.Minute):
		t.Errorf("an interrupted service did not end:\n%s", s.output)
	}
}

// TestConsoleRefusals: bad input gets one sentence, and nothing is queued; the monitor is there.
func TestConsoleRefusals(t *testing.T) {
	s := startUp(t, filepath.Join(t.TempDir(), "data"))
	for _, line := range []string{"", "   ", "/dream", "/dream   ", "/dream " + strings.Repeat("x", 10_000),
		"/dream a \xff mug", "/dream a \x07 mug", "/dream a mug --colour red", "/dream a mug --seed banana",
		"/dream a mug --quality best", "/nothing", "/jobs cancel ZZZZZZ"} {
		reply := s.say(line)
		if line == "/dream" || strings.Contains(line, "\xff") {
			// A bare /dream may explain itself; JSON has replaced invalid bytes.
			continue
		}
		if !reply.Error || reply.Job != nil || strings.Contains(reply.Text, "goroutine") || len(reply.Text) > 400 || reply.Text == "" {
			t.Errorf("%.40q was answered with %.200q", line, reply.Text)
		}
	}
	if reply := s.say("/help"); reply.Error || !strings.Contains(reply.Text, "/dream") {
		t.Errorf("/help says %q", reply.Text)
	}
	if page := string(s.download("/")); !strings.Contains(page, `href="/monitor"`) {
		t.Errorf("the console leads to no monitor:\n%s", page)
	}
	await(t, "the monitor shows the service", time.Minute, func() bool {
		return strings.Contains(string(s.download("/monitor")), "(up on ")
	})
	// The port is in use now.
	out, err := exec.Command("dream", "up", "--listen", strings.TrimPrefix(strings.Replace(s.url, "localhost", "127.0.0.1", 1), "http://"),
		"--data", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another program may use the port") {
		t.Errorf("a port in use was answered with %v: %s", err, out)
	}
}

func checkGLB(data []byte) error {
	if len(data) < 20 || string(data[:4]) != "glTF" || int(binary.LittleEndian.Uint32(data[8:])) != len(data) {
		return fmt.Errorf("not a GLB of %d bytes", len(data))
	}
	var doc struct {
		Meshes    []any
		Accessors []struct{ Count int }
		Images    []any
	}
	n := binary.LittleEndian.Uint32(data[12:])
	if err := json.Unmarshal(data[20:20+n], &doc); err != nil {
		return err
	}
	if len(doc.Meshes) != 1 || len(doc.Images) != 1 || len(doc.Accessors) == 0 || doc.Accessors[0].Count < 100 {
		return fmt.Errorf("unexpected content: %+v", doc)
	}
	return nil
}

func checkOBJ(data []byte) error {
	count := map[string]int{}
	for line := range strings.Lines(string(data)) {
		word, _, _ := strings.Cut(line, " ")
		count[word]++
	}
	if count["v"] < 100 || count["vt"] < 100 || count["f"] < 200 {
		return fmt.Errorf("too little in it: %v", count)
	}
	return nil
}
