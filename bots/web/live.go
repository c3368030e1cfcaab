package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"dreamcad/queue"
)

// live reads the outbox once for all open pages and wakes those that show the
// job of an event. It keeps no cursor: pages read the present state themselves.
type live struct {
	jobs Jobs
	log  *slog.Logger
	mu   sync.Mutex
	wake map[string]map[chan struct{}]struct{} // job id → open pages
}

func newLive(jobs Jobs, log *slog.Logger) *live {
	return &live{jobs: jobs, log: log, wake: map[string]map[chan struct{}]struct{}{}}
}

// subscribe returns a channel that gets a token after each event of the job.
// Tokens merge when the page is slow.
func (l *live) subscribe(job string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake[job] == nil {
		l.wake[job] = map[chan struct{}]struct{}{}
	}
	l.wake[job][c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.wake[job], c)
		if len(l.wake[job]) == 0 {
			delete(l.wake, job)
		}
	}
}

func (l *live) publish(job string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.wake[job] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// run follows the outbox until ctx ends. While the queue is away it waits; the
// pages still look by themselves every few seconds.
func (l *live) run(ctx context.Context) {
	cursor, known := "", false
	for ctx.Err() == nil {
		var err error
		if !known {
			cursor, err = l.jobs.End(ctx)
			known = err == nil
		}
		var events []queue.Event
		if err == nil {
			events, err = l.jobs.Events(ctx, cursor, 500, time.Second)
		}
		if err != nil {
			if ctx.Err() == nil {
				l.log.Warn("live pages: the queue does not answer", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
			continue
		}
		for _, e := range events {
			cursor = e.ID
			l.publish(e.Job)
		}
	}
}

// jobEvents streams the job as server-sent events: its state at once, then each
// change, until it is over.
func (s *Server) jobEvents(w http.ResponseWriter, r *http.Request) {
	first, err := s.find(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	events, stop := s.live.subscribe(first.ID)
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)

	var sent []byte
	show := func(v jobView) error {
		text, err := json.Marshal(v)
		if err != nil || bytes.Equal(text, sent) {
			return err
		}
		sent = text
		if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil {
			return err
		}
		return out.Flush()
	}
	if show(first) != nil || first.Final {
		return
	}
	// Events can be missed while the queue is away, and a place in line moves
	// without any: look again now and then.
	look := time.NewTicker(3 * time.Second)
	defer look.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-events:
		case <-look.C:
		}
		v, err := s.load(r, first.ID)
		if err != nil {
			if queue.CodeOf(err) == queue.CodeNotFound || r.Context().Err() != nil {
				return
			}
			continue
		}
		if show(v) != nil || v.Final {
			return
		}
	}
}
