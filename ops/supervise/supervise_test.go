package supervise

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test program is the parent, and what it runs as its child.
func TestMain(m *testing.M) {
	act := os.Getenv("SUPERVISE_ACT")
	if act == "" {
		os.Exit(m.Run())
	}
	child, err := Attach()
	if err != nil {
		panic(err)
	}
	if child != nil {
		do(child, act)
	}
	end, err := Run(Config{Mark: "marked", Dir: os.TempDir(), Impatient: os.Getenv("SUPERVISE_PATIENT") == "",
		Clean: func(s string) string { return strings.ReplaceAll(s, "hunter22", "[redacted]") }})
	if err != nil {
		panic(err)
	}
	text, err := json.Marshal(end)
	if err != nil {
		panic(err)
	}
	_ = os.WriteFile(os.Getenv("SUPERVISE_END"), text, 0o600)
	end.Pass()
}

// do is what the child does.
func do(c *Child, act string) {
	terms := make(chan os.Signal, 4)
	signal.Notify(terms, syscall.SIGTERM, os.Interrupt)
	for i := range 5000 { // 100 kB: more than is kept
		fmt.Fprintf(c.Log, "line %d of %s\n", i, c.Mark)
	}
	self := os.Getpid()
	fmt.Println("runs", self)
	switch act {
	case "kill":
		_ = syscall.Kill(self, syscall.SIGKILL)
	case "segv":
		_ = syscall.Kill(self, syscall.SIGSEGV)
	case "fault":
		var p *int
		*p = 1
	case "panic":
		go func() { panic("the key hunter22 " + strings.Repeat("x", 3000)) }()
	case "exec":
		runtime.GC()
		runtime.GC()
		_ = os.Setenv("SUPERVISE_ACT", "kill")
		_ = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), c.Environment()))
	case "code":
		os.Exit(3)
	case "drain":
		<-terms
		fmt.Println("drains")
		select {
		case <-terms:
			fmt.Println("twice")
			os.Exit(1)
		case <-time.After(300 * time.Millisecond):
			os.Exit(0)
		}
	case "stay":
		<-terms
		fmt.Println("drains")
	case "core":
		debug.SetTraceback("crash")
		_ = syscall.Kill(self, syscall.SIGSEGV)
	case "notify":
		s, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			panic(err)
		}
		_, _ = s.Write([]byte("READY=1"))
		_, _ = s.Write([]byte("STOPPING=1"))
		os.Exit(0)
	}
	select {}
}

// start starts a supervised child and returns the parent, the child's output and
// where the parent will say how it ended.
func start(t *testing.T, act string, env ...string) (*exec.Cmd, *bufio.Scanner, func() End) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "end")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "SUPERVISE_ACT="+act, "SUPERVISE_END="+out), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, bufio.NewScanner(stdout), func() (e End) {
		t.Helper()
		text, err := os.ReadFile(out)
		if err == nil {
			err = json.Unmarshal(text, &e)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		return e
	}
}

// child waits until the child runs.
func pidOf(t *testing.T, out *bufio.Scanner) int {
	t.Helper()
	if !out.Scan() {
		t.Fatal("the child does not run")
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(out.Text(), "runs "))
	if err != nil {
		t.Fatal(out.Text())
	}
	return pid
}

func TestDeaths(t *testing.T) {
	for _, c := range []struct {
		act, exit string
		died      bool
		says      []string
		signal    syscall.Signal // by which the parent ends; 0: with the code
		code      int
	}{
		{"kill", "SIGKILL", true, []string{"line 4999 of marked\n"}, syscall.SIGKILL, 0},
		{"segv", "SIGSEGV", true, []string{"line 4999 of marked\n", "SIGSEGV: segmentation violation"}, 0, 2},
		{"fault", "SIGSEGV", true, []string{"line 4999 of marked\n", "invalid memory address"}, 0, 2},
		{"core", "SIGSEGV", true, []string{"line 4999 of marked\n", "SIGSEGV: segmentation violation"}, 0, 128 + 6},
		{"panic", "exit status 2", true, []string{"line 4999 of marked\n", "panic: the key [redacted]"}, 0, 2},
		{"exec", "SIGKILL", true, []string{"line 4999 of marked\n"}, syscall.SIGKILL, 0},
		{"code", "exit status 3", false, nil, 0, 3},
	} {
		t.Run(c.act, func(t *testing.T) {
			cmd, out, end := start(t, c.act)
			pid := pidOf(t, out)
			for out.Scan() {
			}
			_ = cmd.Wait() // its status is looked at below
			e := end()
			if e.PID != pid || e.Exit != c.exit || e.Died != c.died {
				t.Errorf("%+v", e)
			}
			for _, s := range c.says {
				if !strings.Contains(e.Log, s) {
					t.Errorf("the log lacks %q:\n%s", s, e.Log)
				}
			}
			if len(e.Log) > MaxLog || c.died && (len(e.Log) < MaxLog/4 || !strings.HasPrefix(e.Log, "line ")) || !c.died && e.Log != "" || strings.Contains(e.Log, "hunter22") {
				t.Errorf("%d bytes of log:\n%s", len(e.Log), e.Log)
			}
			if s := cmd.ProcessState.Sys().(syscall.WaitStatus); c.signal != 0 && s.Signal() != c.signal || c.signal == 0 && s.ExitStatus() != c.code {
				t.Errorf("the parent ended with %v", cmd.ProcessState)
			}
		})
	}
}

// An interrupt of the whole group, as by a terminal or systemd, is one to the child;
// the second one ends both.
func TestInterrupts(t *testing.T) {
	cmd, out, end := start(t, "drain")
	pidOf(t, out)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if out.Scan(); out.Text() != "drains" {
		t.Fatal(out.Text())
	}
	for out.Scan() {
		t.Error(out.Text())
	}
	if err := cmd.Wait(); err != nil || end().Died || end().Exit != "exit status 0" {
		t.Errorf("%v %+v", err, end())
	}

	cmd, out, end = start(t, "drain", "SUPERVISE_PATIENT=1")
	pidOf(t, out)
	for range 3 {
		_ = cmd.Process.Signal(os.Interrupt)
	}
	for out.Scan() {
		if out.Text() != "drains" {
			t.Error(out.Text())
		}
	}
	if err := cmd.Wait(); err != nil || end().Died {
		t.Errorf("%v %+v", err, end())
	}

	// What hangs says where, and that is no death when people asked for it.
	cmd, out, end = start(t, "stay")
	pidOf(t, out)
	_ = cmd.Process.Signal(syscall.SIGQUIT)
	_ = cmd.Wait() // its code is looked at
	if end().Died || end().Exit != "SIGQUIT" || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("%v %+v", cmd.ProcessState, end())
	}

	cmd, out, end = start(t, "stay")
	pid := pidOf(t, out)
	_ = cmd.Process.Signal(os.Interrupt)
	if out.Scan(); out.Text() != "drains" {
		t.Fatal(out.Text())
	}
	_ = cmd.Process.Signal(os.Interrupt)
	for out.Scan() {
	}
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT || end().Died {
		t.Errorf("%v %+v", err, end())
	}
	gone(t, pid)
}

// Nobody works on unnoticed when the parent is killed.
func TestKilledParent(t *testing.T) {
	cmd, out, _ := start(t, "stay")
	pid := pidOf(t, out)
	_ = cmd.Process.Kill()
	for out.Scan() {
		t.Error(out.Text())
	}
	_ = cmd.Wait() // killed
	gone(t, pid)
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && !zombie(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child is still there")
		}
	}
}

// zombie: nobody has waited for it yet, where the first process does not.
func zombie(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(state, "Z")
}

// systemd hears the child's words from the parent.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cmd, out, _ := start(t, "notify", "NOTIFY_SOCKET="+path)
	pidOf(t, out)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		b := make([]byte, 64)
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := s.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%q %v", b[:n], err)
		}
	}
}
