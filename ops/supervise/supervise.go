// Package supervise runs a program as a child of itself, so that somebody is left
// who can tell how it ended: no process can record its own end by SIGKILL.
//
// The child has the parent's streams and terminal. Beside them it gets the end of a
// pipe that nobody writes to, which closes when the parent is gone, and two
// unlinked files: the end of its log, and what the Go runtime says of a crash. What
// lies in them outlives it.
package supervise

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// variable tells a process that it is a child; its value is the mark.
const variable = "DREAM_SUPERVISED"

// MaxLog bounds the log of an End, in bytes.
const MaxLog = 4 << 10

// End says how the child ended.
type End struct {
	PID int
	// Exit is a signal's name ("SIGKILL") or "exit status N".
	Exit string
	// Died: by no wish of its own or of an operator.
	Died bool
	// Log is the end of its log with the beginning of the runtime's report of a
	// crash, at most MaxLog bytes that begin with a line; only of one that died.
	Log string

	signal syscall.Signal // 0: none
	code   int
}

// Config says how a child is looked after.
type Config struct {
	// Mark is a word that reaches the child by [Attach].
	Mark string
	// Dir is a folder in which files can be made.
	Dir string
	// Clean takes secrets out of the runtime's report, which the child cannot do.
	Clean func(string) string
	// Impatient: the second interrupt ends both processes at once.
	Impatient bool
}

// Run runs this program again with the same arguments, passes interrupts on, and
// waits for its end.
func Run(c Config) (End, error) {
	path, err := os.Executable()
	if err != nil {
		return End{}, fmt.Errorf("find the own program: %w", err)
	}
	var files [3]*os.File // of the child, from number 3 on
	leashEnd, leash, err := os.Pipe()
	if err != nil {
		return End{}, fmt.Errorf("start the child: %w", err)
	}
	defer leash.Close()
	defer leashEnd.Close()
	files[0] = leashEnd
	for i := 1; i < len(files); i++ {
		if files[i], err = unlinked(c.Dir); err != nil {
			return End{}, fmt.Errorf("start the child: %w", err)
		}
		defer files[i].Close()
	}
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, files[:]
	cmd.Env = append(os.Environ(), variable+"="+c.Mark)
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		r, err := newRelay(socket)
		if err != nil {
			return End{}, fmt.Errorf("pass on what the child tells systemd: %w", err)
		}
		defer r.close()
		// The watchdog's process is this one: the child is to feed it all the same.
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+r.path, "WATCHDOG_PID=")
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGABRT)
	if err := cmd.Start(); err != nil {
		return End{}, fmt.Errorf("start the child: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var interrupted bool
	var last os.Signal // the one that ended both
	for {
		// That the child has ended meanwhile is no error of sending.
		select {
		case s := <-signals:
			switch {
			case s == syscall.SIGQUIT || s == syscall.SIGABRT: // from people, from systemd's watchdog: where does it hang?
				_ = cmd.Process.Signal(s)
			case !interrupted:
				interrupted = true
				_ = cmd.Process.Signal(syscall.SIGTERM)
			case c.Impatient:
				last = s
				_ = cmd.Process.Kill()
			}
		case err := <-ended:
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				return End{}, fmt.Errorf("wait for the child: %w", err)
			}
			if last != nil {
				return bySignal(cmd.ProcessState.Pid(), last.(syscall.Signal)), nil
			}
			return endOf(cmd.ProcessState, files[1], files[2], c.Clean), nil
		}
	}
}

func bySignal(pid int, s syscall.Signal) End {
	return End{PID: pid, Exit: cmp.Or(unix.SignalName(s), s.String()), signal: s}
}

// Pass ends this process as the child ended.
func (e End) Pass() {
	switch e.signal {
	case 0:
		os.Exit(e.code)
	case syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP:
		signal.Reset(e.signal)
		_ = syscall.Kill(syscall.Getpid(), e.signal)
		time.Sleep(time.Second)
	}
	// The first process of a container does not die of a signal, and others would
	// make the runtime report a crash of this process: the code that shells give.
	os.Exit(128 + int(e.signal))
}

// wishes are the signals by which people end a process.
var wishes = []string{"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"}

// named is how the runtime's report of a crash names the signal.
var named = regexp.MustCompile(`(?m)^(?:\[signal )?(SIG[A-Z0-9]+): `)

func endOf(state *os.ProcessState, log, report *os.File, clean func(string) string) End {
	status := state.Sys().(syscall.WaitStatus)
	e := End{PID: state.Pid()}
	// The report can be long; what it begins with says most.
	crash := clean(read(report, 0, 64<<10))
	if status.Signaled() {
		e = bySignal(e.PID, status.Signal())
	} else {
		e.code = status.ExitStatus()
		e.Exit = fmt.Sprintf("exit status %d", e.code)
	}
	// The runtime catches most signals, reports them and ends by itself.
	if m := named.FindStringSubmatch(crash); m != nil {
		e.Exit = m[1]
	}
	e.Died = (status.Signaled() || crash != "") && !slices.Contains(wishes, e.Exit)
	if !e.Died {
		return e
	}
	crash = crash[:min(len(crash), MaxLog/2)]
	size, _ := log.Seek(0, io.SeekEnd) // of a file in use: cannot fail
	e.Log = ending(read(log, max(size-2*MaxLog, 0), 2*MaxLog) + crash)
	return e
}

// ending is the end of a text, from the begin of a line on.
func ending(s string) string {
	if over := len(s) - MaxLog; over > 0 {
		s = s[over-1:]
		s = s[strings.IndexByte(s, '\n')+1:]
	}
	return strings.ToValidUTF8(s, "")
}

func read(f *os.File, from, most int64) string {
	b, _ := io.ReadAll(io.NewSectionReader(f, from, most)) // what can be read
	return strings.ToValidUTF8(string(b), "")
}

// unlinked is a file without a name.
func unlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".log-")
	if err == nil {
		err = os.Remove(f.Name())
	}
	return f, err
}
