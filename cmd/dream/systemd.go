package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifySystemd says that the service is ready, feeds the watchdog and says when it
// stops. Outside of systemd it does nothing.
func notifySystemd(ctx context.Context) error {
	sent, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	if err != nil {
		return fmt.Errorf("tell systemd that the service is ready: %w", err)
	}
	if !sent {
		return nil
	}
	var feed <-chan time.Time
	if every, err := daemon.SdWatchdogEnabled(false); err != nil {
		return fmt.Errorf("read systemd's watchdog: %w", err)
	} else if every > 0 {
		t := time.NewTicker(every / 3)
		defer t.Stop()
		feed = t.C
	}
	for {
		select {
		case <-ctx.Done():
			_, err := daemon.SdNotify(false, daemon.SdNotifyStopping)
			return err
		case <-feed:
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				return fmt.Errorf("feed systemd's watchdog: %w", err)
			}
		}
	}
}
