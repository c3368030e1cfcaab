// Package gputest makes cards out of scripts, for tests on machines without one.
// It compiles a libnvidia-ml.so.1 from its own C source; a program that finds it
// through LD_LIBRARY_PATH, unchanged, sees cards whose sensors follow the script.
//
// A script is lines of text. "SECONDS FIELD VALUE" is a point of a sensor's curve,
// straight between its points, from the moment the library is opened; the value
// "none" makes the sensor unreadable from there on. Fields: temperature, margin,
// threshold (°C); memory_used, memory_total, process (bytes; process -1: the memory
// of the one program is not known); utilisation, fan (percent); power, power_limit
// (watts); clock_sm, clock_memory (MHz); ecc; pcie_gen, pcie_width, pcie_read,
// pcie_write (KiB/s); throttle (NVML's bits); xid (an error event at that moment);
// lost (1: the card has fallen off the bus). A field without a point is not
// supported. "card N" begins the lines of another card. "model AIR FULL TAU START"
// gives the card a temperature of its own: from START it goes to FULL while this
// process computes and to AIR while it rests, with a time constant of TAU seconds.
// A changed file is read again.
package gputest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata/nvml.c
var source []byte

// Library is a compiled libnvidia-ml.so.1 with the script that it plays.
type Library struct {
	t      testing.TB
	dir    string
	script string
}

// Build compiles the library, with flags such as -DOLD_DRIVER.
func Build(t testing.TB, script string, flags ...string) *Library {
	t.Helper()
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		t.Fatalf("find nvml.h: %v", err)
	}
	l := &Library{t: t, dir: t.TempDir()}
	l.script = filepath.Join(l.dir, "script")
	l.Play(script)
	file := filepath.Join(l.dir, "nvml.c")
	if err := os.WriteFile(file, source, 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-shared", "-fPIC", "-O1", "-w", "-DNVML_NO_UNVERSIONED_FUNC_DEFS", "-I", filepath.Join(strings.TrimSpace(string(module)), "pkg", "nvml"),
		"-o", filepath.Join(l.dir, "libnvidia-ml.so.1"), file, "-lm", "-lpthread"}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile the scripted card: %v\n%s", err, out)
	}
	return l
}

// Play replaces the script.
func (l *Library) Play(script string) {
	l.t.Helper()
	next := l.script + ".next" // so that no half of it is read
	if err := os.WriteFile(next, []byte(script), 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(next, l.script); err != nil {
		l.t.Fatal(err)
	}
}

// Env are the variables with which a program finds the library and its script.
func (l *Library) Env() []string {
	return []string{"LD_LIBRARY_PATH=" + l.dir, "NVML_SCRIPT=" + l.script}
}
