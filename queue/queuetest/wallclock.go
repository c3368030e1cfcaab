package queuetest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clockEnv sets the wall clock of a program of [BuildWithClock]: how far it is
// off, and from when on after its start.
const clockEnv = "DREAM_WALL_CLOCK"

// clockSource is added to package time in such a program. A library that is
// loaded into the process cannot do it: Go asks the kernel's own page.
const clockSource = `package time

import "syscall"

var wallOff, wallFrom = func() (off, from Duration) {
	s, _ := syscall.Getenv("` + clockEnv + `")
	for i := range len(s) {
		if s[i] == '@' {
			off, _ = ParseDuration(s[:i])
			from, _ = ParseDuration(s[i+1:])
		}
	}
	return
}()

func wrongNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if mono-startNano >= int64(wallFrom) {
		sec += int64(wallOff / Second)
	}
	return
}
`

// ClockEnv is what the environment of a program of [BuildWithClock] must hold
// for its wall clock to be off by that much from a moment after its start.
func ClockEnv(off, from time.Duration) string {
	return clockEnv + "=" + off.String() + "@" + from.String()
}

// BuildWithClock builds the test program of the package in the working
// directory, with a standard library whose wall clock [ClockEnv] moves. All of
// the program sees that clock: the queue's client, the worker and the libraries.
func BuildWithClock(t testing.TB) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	std := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const was = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()"
	if !strings.Contains(string(source), was) {
		t.Fatalf("time.Now of this Go release reads differently: look at %s", filepath.Join(std, "time.go"))
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for name, text := range map[string]string{
		"time.go":      strings.Replace(string(source), was, strings.Replace(was, "runtimeNow", "wrongNow", 1), 1),
		"wallclock.go": clockSource,
	} {
		replace[filepath.Join(std, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program.test")
	if out, err := exec.Command("go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with a wrong clock: %v\n%s", err, out)
	}
	return program
}
