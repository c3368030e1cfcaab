package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// The services tell systemd's socket that they are ready, alive and stopping.
func TestServicesNotifySystemd(t *testing.T) {
	for _, args := range [][]string{{"bot"}, {"worker", "--device", "cpu"}, {"up"}} {
		t.Run(args[0], func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "notify")
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			cmd := child(t, []string{"DREAM_DATA=" + t.TempDir(), "DREAM_WEB_LISTEN=127.0.0.1:0", "NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=600000"}, args...)
			expect := func(want string) {
				t.Helper()
				_ = socket.SetReadDeadline(time.Now().Add(time.Minute))
				buffer := make([]byte, 256)
				for {
					n, err := socket.Read(buffer)
					if err != nil {
						t.Fatalf("no %s: %v", want, err)
					}
					if string(buffer[:n]) == want {
						return
					}
				}
			}
			expect("READY=1")
			expect("WATCHDOG=1")
			expect("WATCHDOG=1")
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			expect("STOPPING=1")
		})
	}
}

// The shipped units start commands that exist, with what dream doctor asks of units.
func TestUnits(t *testing.T) {
	files, err := filepath.Glob("../../docs/deploy/*.service")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		sections, err := unit.DeserializeSections(f)
		_ = f.Close()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		values := map[string]string{}
		for _, s := range sections {
			for _, e := range s.Entries {
				values[s.Section+" "+e.Name] = e.Value
			}
		}
		words := strings.Fields(values["Service ExecStart"])
		if len(words) < 2 || words[0] != "/usr/local/bin/dream" || unknownCommand(words[1:]) != "" {
			t.Errorf("%s starts %q", name, words)
		}
		for key, want := range map[string]string{"Service Type": "notify", "Service WatchdogSec": "60", "Service LimitNOFILE": "65536", "Install WantedBy": "multi-user.target"} {
			if values[key] != want {
				t.Errorf("%s: %s is %q, not %q", name, key, values[key], want)
			}
		}
		if !slices.Contains([]string{"2G", "24G"}, values["Service MemoryMax"]) {
			t.Errorf("%s: MemoryMax is %q", name, values["Service MemoryMax"])
		}
	}
}
