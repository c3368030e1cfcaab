package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/device/cuda"
	"dreamcad/internal/testout"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

// failing is a card that is lost at the n-th program.
type failing struct {
	testCard
	left atomic.Int32
}

func (f *failing) Compile(p *device.Program) (device.Exec, error) {
	e, err := f.testCard.Compile(p)
	return &failingExec{e, f}, err
}

type failingExec struct {
	device.Exec
	f *failing
}

func (e *failingExec) Run() error {
	if e.f.left.Add(-1) < 0 {
		return fmt.Errorf("%w: an illegal address", device.ErrLost)
	}
	return e.Exec.Run()
}

// failingCards gives the program that runs as "dream" in tests such a card, as often
// as the variable says; a process that was started again has a sound one.
func failingCards() {
	if os.Getenv("DREAM_TEST_CARD") == "" {
		return
	}
	openCard = func(int, cuda.Options) (device.Device, error) {
		d, err := cpu.New(cpu.Options{})
		f := &failing{testCard: testCard{Device: d, free: 8 << 30, total: 8 << 30}}
		f.left.Store(12)
		if os.Getenv(restartsVariable) != "" && os.Getenv("DREAM_TEST_CARD") == "once" {
			f.left.Store(1 << 30)
		}
		return f, err
	}
}

// A worker whose card is lost gives the job back, starts again by itself as the same
// process, makes the job and drains.
func TestWorkerStartsAgainAfterALostCard(t *testing.T) {
	data := t.TempDir()
	q, err := sqliteq.Open(t.Context(), filepath.Join(data, "queue.db"), patientQueue(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	rc, err := q.Submit(t.Context(), queue.Request{Prompt: "a mug", Kind: queue.Views, Requester: queue.Requester{Platform: "test", ID: "u"}, Origin: queue.Origin{Platform: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	var output testout.Buffer
	cmd := exec.Command("dream", "worker", "--device", "cuda:0", "--model", "mini")
	cmd.Env = append(os.Environ(), "DREAM_DATA="+data, "DREAM_TEST_CARD=once", "DREAM_LOG_FORMAT=text")
	cmd.Stderr = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var j queue.Job
	for end := time.Now().Add(2 * time.Minute); j.Status != queue.Done; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-done:
			t.Fatalf("the worker ended: %v\n%s", err, output.String())
		default:
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			t.Fatalf("the job is %s\n%s", j.Status, output.String())
		}
		if j, err = q.Job(t.Context(), rc.ID); err != nil {
			t.Fatal(err)
		}
	}
	if j.Crashes != 1 || j.Failures != 0 || j.Attempt != 2 {
		t.Errorf("attempt %d, %d crashes, %d failures", j.Attempt, j.Crashes, j.Failures)
	}
	if n := strings.Count(output.String(), "starting again"); n != 1 {
		t.Errorf("it started again %d times\n%s", n, output.String())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the drained worker ended with %v\n%s", err, output.String())
	}
}

// One that is lost again and again ends, with code 1 and one sentence; under systemd
// at once.
func TestWorkerGivesUpALostCard(t *testing.T) {
	now := fmt.Sprint(time.Now().Unix())
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	for name, c := range map[string]struct{ env, says string }{
		"too often": {restartsVariable + "=" + now + "," + now + "," + now, "started again 3 times within 10m0s"},
		"systemd":   {"NOTIFY_SOCKET=" + systemd.LocalAddr().String(), "the device is lost"},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			q, err := sqliteq.Open(t.Context(), filepath.Join(data, "queue.db"), patientQueue(), sqliteq.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			rc, err := q.Submit(t.Context(), queue.Request{Prompt: "a mug", Kind: queue.Views, Requester: queue.Requester{Platform: "test", ID: "u"}, Origin: queue.Origin{Platform: "test"}})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("dream", "worker", "--device", "cuda:0", "--model", "mini")
			cmd.Env = append(os.Environ(), "DREAM_DATA="+data, "DREAM_TEST_CARD=always", c.env)
			var output testout.Buffer
			cmd.Stderr = &output
			err = cmd.Run()
			if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(output.String(), c.says) || strings.Contains(output.String(), "goroutine") {
				t.Errorf("%v\n%s", err, output.String())
			}
			// The process outlived the card: it told the queue itself, with its log.
			j, err := q.Job(t.Context(), rc.ID)
			if err != nil || len(j.CrashedBy) != 1 || j.CrashedBy[0].Kind != queue.FailCrash || j.CrashedBy[0].Exit != "" {
				t.Fatalf("%+v %v", j.CrashedBy, err)
			}
			if log := j.Failure.Log; !strings.Contains(log, "job begins") || !strings.Contains(log, "the device is lost") {
				t.Errorf("the record has the log\n%s", log)
			}
		})
	}
}
