package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dreamcad/inference/worker"
)

// A process whose device is lost starts again by itself, but not for ever.
const (
	restartsVariable = "DREAM_RESTARTED"
	mostRestarts     = 3
	restartWindow    = 10 * time.Minute
)

// spent tells that this process cannot use its device any more.
func spent(err error) bool {
	return errors.Is(err, worker.ErrDevice) || errors.Is(err, worker.ErrStuck)
}

// startAgain replaces the process by a new one with the same arguments, in which the
// device is opened anew; it returns only when that is not to be. Jobs have been given
// back by now. Under systemd the process ends, and systemd starts the next.
func startAgain(a *app, why error) error {
	if !spent(why) {
		return why
	}
	now := time.Now()
	times := recent(os.Getenv(restartsVariable), now)
	if os.Getenv("NOTIFY_SOCKET") != "" {
		return why
	}
	if len(times) >= mostRestarts {
		return fmt.Errorf("started again %d times within %v: %w", len(times), restartWindow, why)
	}
	path, err := os.Executable()
	if err != nil {
		return why
	}
	a.log.Warn("starting again", "why", why)
	environment := append(os.Environ(), restartsVariable+"="+strings.Join(append(times, strconv.FormatInt(now.Unix(), 10)), ","))
	if a.child != nil {
		environment = append(environment, a.child.Environment())
	}
	return errors.Join(why, syscall.Exec(path, os.Args, environment))
}

// recent are the entries of the list of restarts that still count.
func recent(list string, now time.Time) []string {
	var out []string
	for _, s := range strings.Split(list, ",") {
		if at, err := strconv.ParseInt(s, 10, 64); err == nil && now.Sub(time.Unix(at, 0)) < restartWindow {
			out = append(out, s)
		}
	}
	return out
}
