package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreamcad/inference/models"
)

// terminal opens a pseudo-terminal with so many columns: what is written to the
// second file can be read from the first.
func terminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// A download shows as a bar on a terminal, and as lines on one that tells no width.
func TestPullProgressOnTerminals(t *testing.T) {
	for columns, want := range map[uint16]string{100: "[====", 0: "download a.pt: 1.0 MB of 2.0 MB, 50 %"} {
		screen, tty := terminal(t, columns)
		p := newFileProgress(tty, false)
		for _, done := range []int64{0, 1e6} {
			p.show(models.Progress{File: "a.pt", Phase: "download", Done: done, Total: 2e6})
			time.Sleep(2 * pace)
		}
		p.close()
		_ = tty.Close()
		text, _ := io.ReadAll(screen) // ends with an error once the terminal is closed
		if !strings.Contains(string(text), want) {
			t.Errorf("%d columns: %q without %q", columns, text, want)
		}
	}
}
