package alert

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"dreamcad/queue"
)

// target is where a way leads.
type target interface {
	deliver(ctx context.Context, a *queue.Alert) error
}

// reminded is a target that wants to hear again of what is firing.
type reminded interface {
	every() time.Duration
	remind(ctx context.Context) error
}

// way is one target with what waits for it.
type way struct {
	name string
	to   target

	mu      sync.Mutex
	waiting []queue.Alert
	wake    chan struct{}
}

func newWay(name string, to target) *way {
	return &way{name: name, to: to, wake: make(chan struct{}, 1)}
}

func (w *way) put(a queue.Alert, keep int) {
	w.mu.Lock()
	w.waiting = append(w.waiting, a)
	w.waiting = w.waiting[max(0, len(w.waiting)-keep):]
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// deliverLimit bounds one delivery.
const deliverLimit = 5 * time.Second

// run delivers until ctx ends, and then tries once more.
func (w *way) run(ctx context.Context, retry time.Duration, log *slog.Logger) {
	var remind <-chan time.Time
	r, hears := w.to.(reminded)
	if hears {
		t := time.NewTicker(r.every())
		defer t.Stop()
		remind = t.C
	}
	away := false
	for {
		err := w.flush(ctx)
		switch {
		case err != nil && ctx.Err() == nil && !away:
			away = true
			log.Warn("alerts wait: the "+w.name+" is away", "err", err)
		case err == nil && away:
			away = false
			log.Info("alerts go out again", "to", w.name)
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliverLimit)
			defer cancel()
			if err := w.flush(last); err != nil {
				log.Warn("alerts were not delivered", "to", w.name, "err", err)
			}
			return
		case <-w.wake:
		case <-again:
		case <-remind:
			if err := r.remind(ctx); err != nil {
				log.Debug("reminding failed", "to", w.name, "err", err)
			}
		}
	}
}

// flush delivers what waits, in order, up to the first failure.
func (w *way) flush(ctx context.Context) error {
	for {
		w.mu.Lock()
		if len(w.waiting) == 0 {
			w.mu.Unlock()
			return nil
		}
		a := w.waiting[0]
		w.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, deliverLimit)
		sent := a // the target may change it
		err := w.to.deliver(limited, &sent)
		cancel()
		if err != nil {
			return err
		}
		w.mu.Lock()
		if len(w.waiting) > 0 && w.waiting[0] == a { // it may have been dropped meanwhile
			w.waiting = w.waiting[1:]
		}
		w.mu.Unlock()
	}
}
