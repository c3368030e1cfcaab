package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreamcad/internal/testout"
	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
)

// poisoned is a queue with one job, and workers of it that the test kills.
type poisoned struct {
	t   *testing.T
	q   queue.Queue
	id  string
	env []string
}

// patientQueue are settings with which a submit waits for a slow disk.
func patientQueue() queue.Config {
	c := queue.DefaultConfig()
	c.SubmitBudget = time.Minute
	return c
}

func newPoisoned(t *testing.T, backend string) *poisoned {
	p := &poisoned{t: t, env: append(os.Environ(), "DREAM_DATA="+t.TempDir(), "DREAM_LOG_FORMAT=text", "DREAM_LOG_FILE="+filepath.Join(t.TempDir(), "dream.log"), "DREAM_OPS_WEBHOOK_TOKEN=hunter22secret", "DREAM_OPS_SERVERS_EVERY=300ms")}
	var err error
	if backend == "redis" {
		url := "redis://" + queuetest.StartRedis(t).Addr
		o, perr := redisq.ParseURL(url)
		if perr != nil {
			t.Fatal(perr)
		}
		p.env = append(p.env, "DREAM_QUEUE_URL="+url)
		p.q, err = redisq.Open(t.Context(), patientQueue(), o)
	} else {
		path := filepath.Join(t.TempDir(), "queue.db")
		p.env = append(p.env, "DREAM_QUEUE_URL=sqlite://"+path)
		p.q, err = sqliteq.Open(t.Context(), path, patientQueue(), sqliteq.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.q.Close() })
	rc, err := p.q.Submit(t.Context(), queue.Request{Prompt: "a mug", Kind: queue.Mesh, Requester: queue.Requester{Platform: "test", ID: "u"}, Origin: queue.Origin{Platform: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	p.id = rc.ID
	return p
}

func (p *poisoned) job() queue.Job {
	p.t.Helper()
	j, err := p.q.Job(p.t.Context(), p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	return j
}

func (p *poisoned) worker() (*exec.Cmd, *testout.Buffer) {
	p.t.Helper()
	cmd, output := exec.Command("dream", "worker", "--device", "cpu", "--model", "mini", "--name", "gpu0-hunter22secret"), &testout.Buffer{}
	cmd.Env, cmd.Stderr = p.env, output
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, output
}

// kill starts a worker, sends the signal to its child while it has the job, and
// returns how the worker ended, and how long after the signal.
func (p *poisoned) kill(s syscall.Signal) (syscall.WaitStatus, time.Duration) {
	p.t.Helper()
	cmd, output := p.worker()
	for end := time.Now().Add(2 * time.Minute); p.job().Status != queue.Leased || p.job().Progress == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("the worker does not take the job\n%s", output.String())
		}
	}
	process := strings.Split(p.job().Worker, "/")
	pid, err := strconv.Atoi(process[1])
	if err != nil || pid == cmd.Process.Pid {
		p.t.Fatalf("worker %q, supervisor %d: %v", process, cmd.Process.Pid, err)
	}
	if err := syscall.Kill(pid, s); err != nil {
		p.t.Fatal(err)
	}
	begun := time.Now()
	_ = cmd.Wait() // its status is returned
	return cmd.ProcessState.Sys().(syscall.WaitStatus), time.Since(begun)
}

// A job that takes the worker's process with it goes on at once; the second time it
// is set aside, with signals, workers and the end of the log, free of secrets.
func TestDeathsAreTold(t *testing.T) {
	for _, backend := range []string{"sqlite", "redis"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			p := newPoisoned(t, backend)
			status, took := p.kill(syscall.SIGKILL)
			if !status.Signaled() || status.Signal() != syscall.SIGKILL {
				t.Errorf("the supervisor ended with %v", status)
			}
			t.Logf("killed, told and ended in %v", took)
			logs := exec.Command("dream", "logs", p.id)
			logs.Env = p.env
			if out, err := logs.CombinedOutput(); err != nil || !strings.Contains(string(out), "a job lost its worker") || !strings.Contains(string(out), `"exit":"SIGKILL"`) {
				t.Errorf("dream logs: %v\n%s", err, out)
			}
			j := p.job()
			if j.Status != queue.Queued || j.Crashes != 1 || j.Failures != 0 || len(j.CrashedBy) != 1 {
				t.Fatalf("%s after %d crashes, %d failures: %+v", j.Status, j.Crashes, j.Failures, j.CrashedBy)
			}
			if status, _ = p.kill(syscall.SIGSEGV); status.ExitStatus() != 2 {
				t.Errorf("the supervisor ended with %v", status)
			}
			j = p.job()
			var exits []string
			for _, c := range j.CrashedBy {
				exits = append(exits, string(c.Kind)+" "+c.Exit)
			}
			if want := []string{"died SIGKILL", "died SIGSEGV"}; j.Status != queue.Quarantined || !slices.Equal(exits, want) || j.CrashedBy[0].Worker == j.CrashedBy[1].Worker {
				t.Fatalf("%s: %+v", j.Status, j.CrashedBy)
			}
			f := j.Failure
			if f.Exit != "SIGSEGV" || f.Worker != j.CrashedBy[1].Worker || len(f.Log) > queue.MaxErrorText {
				t.Errorf("%+v", f)
			}
			for _, want := range []string{"job begins", p.id, "SIGSEGV: segmentation violation", "worker=gpu0-[redacted]"} {
				if !strings.Contains(f.Log, want) {
					t.Errorf("the log lacks %q:\n%s", want, f.Log)
				}
			}
			if strings.Contains(f.Log, "hunter22secret") {
				t.Errorf("a secret is in the log:\n%s", f.Log)
			}
			list := p.dream("queue", "quarantine")
			show := p.dream("queue", "quarantine", p.id[len(p.id)-8:])
			for _, want := range []string{p.id, "SIGSEGV", f.Worker} {
				if !strings.Contains(list, want) || !strings.Contains(show, want) {
					t.Errorf("no %q in\n%s\n%s", want, list, show)
				}
			}
			if !strings.Contains(show, "SIGKILL") || !strings.Contains(show, "  SIGSEGV: segmentation violation\n") {
				t.Error(show)
			}
			var listed []queue.Job
			if err := json.Unmarshal([]byte(p.dream("queue", "quarantine", "--json")), &listed); err != nil || len(listed) != 1 || listed[0].Failure.Log != f.Log || len(listed[0].CrashedBy) != 2 {
				t.Errorf("%v %+v", err, listed)
			}
			// The operators hear of it from whoever judges.
			cmd, output := p.worker()
			await(t, "the alert", time.Minute, func() bool {
				firing, err := p.q.FiringAlerts(t.Context())
				return err == nil && slices.ContainsFunc(firing, func(a queue.Alert) bool {
					return a.Code == "quarantine" && strings.Contains(a.Text, p.id) && strings.Contains(a.Text, "died SIGKILL on ") && strings.Contains(a.Text, "died SIGSEGV on "+f.Worker)
				})
			})
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("the drained worker ended with %v\n%s", err, output.String())
			}
		})
	}
}

func (p *poisoned) dream(args ...string) string {
	p.t.Helper()
	cmd := exec.Command("dream", args...)
	cmd.Env = p.env
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("dream %v: %v", args, err)
	}
	return string(out)
}

// The setting gives one process back.
func TestUnsupervised(t *testing.T) {
	p := newPoisoned(t, "sqlite")
	cmd := exec.Command("dream", "worker", "--device", "cpu", "--model", "mini")
	cmd.Env = append(p.env, "DREAM_WORKER_SUPERVISE=false")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	for end := time.Now().Add(2 * time.Minute); p.job().Worker == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the worker does not take the job")
		}
	}
	if process := strings.Split(p.job().Worker, "/"); process[1] != strconv.Itoa(cmd.Process.Pid) {
		t.Errorf("process %d is called %q", cmd.Process.Pid, process)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
