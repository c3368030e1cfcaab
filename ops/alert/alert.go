// Package alert brings the watch's messages to people: to the queue's alert
// stream (from which bots post to chat), to a webhook, and to the log. Each way
// has its own line, so one that is away delays no other; what could not be
// delivered is kept, in order, and sent when the way is open again.
package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"dreamcad/queue"
)

// Stream is what alert needs of the queue.
type Stream interface {
	Raise(ctx context.Context, a queue.Alert) error
	FiringAlerts(ctx context.Context) ([]queue.Alert, error)
}

// Config says where alerts go besides the stream and the log.
type Config struct {
	// Webhook is a URL that gets each alert as JSON by POST; empty: none.
	Webhook string
	// Header is added to the webhook's requests (Authorization).
	Header http.Header
	// Retry is the pause after a failed delivery; 0: 2 s.
	Retry time.Duration
	// Keep bounds what waits on one way; the oldest go first. 0: 1000.
	Keep int
}

// Sender delivers alerts. Put never blocks.
type Sender struct {
	cfg   Config
	log   *slog.Logger
	ways  []*way
	mu    sync.Mutex
	state map[[2]string]queue.AlertState // what was put last
}

// way is one destination with what waits for it.
type way struct {
	name    string
	deliver func(ctx context.Context, a *queue.Alert) error

	mu      sync.Mutex
	waiting []queue.Alert
	wake    chan struct{}
}

// New makes a sender; stream may be nil.
func New(cfg Config, stream Stream, log *slog.Logger) *Sender {
	if cfg.Retry == 0 {
		cfg.Retry = 2 * time.Second
	}
	if cfg.Keep == 0 {
		cfg.Keep = 1000
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{cfg: cfg, log: log, state: map[[2]string]queue.AlertState{}}
	if stream != nil {
		s.ways = append(s.ways, &way{name: "queue", deliver: raise(stream)})
	}
	if cfg.Webhook != "" {
		s.ways = append(s.ways, &way{name: "webhook", deliver: s.post})
	}
	for _, w := range s.ways {
		w.wake = make(chan struct{}, 1)
	}
	return s
}

// Put takes an alert. The same state of the same code and key again is dropped.
func (s *Sender) Put(a queue.Alert) {
	id := [2]string{a.Code, a.Key}
	s.mu.Lock()
	last := s.state[id]
	s.state[id] = a.State
	s.mu.Unlock()
	if last == a.State {
		return
	}
	level := slog.LevelInfo
	if a.State == queue.Firing && a.Severity != queue.Info {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "alert "+string(a.State), "code", a.Code, "key", a.Key, "severity", a.Severity, "text", a.Text)
	for _, w := range s.ways {
		w.put(a, s.cfg.Keep)
	}
}

// Send delivers one alert at once and returns what failed: for commands, which
// cannot wait for better times.
func Send(ctx context.Context, cfg Config, stream Stream, a queue.Alert) error {
	s := New(cfg, stream, nil)
	var errs []error
	for _, w := range s.ways {
		w.put(a, s.cfg.Keep)
		if err := w.flush(ctx); err != nil {
			errs = append(errs, fmt.Errorf("send the alert to the %s: %w", w.name, err))
		}
	}
	return errors.Join(errs...)
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

// Run delivers until ctx ends, and then tries once more what waits.
func (s *Sender) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, w := range s.ways {
		group.Go(func() { s.run(ctx, w) })
	}
	group.Wait()
	return nil
}

// deliverLimit bounds one delivery.
const deliverLimit = 5 * time.Second

func (s *Sender) run(ctx context.Context, w *way) {
	away := false
	for {
		err := w.flush(ctx)
		switch {
		case err != nil && ctx.Err() == nil && !away:
			away = true
			s.log.Warn("alerts wait: "+w.name+" is away", "err", err)
		case err == nil && away:
			away = false
			s.log.Info("alerts go out again", "to", w.name)
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(s.cfg.Retry)
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliverLimit)
			defer cancel()
			if err := w.flush(last); err != nil {
				s.log.Warn("alerts were not delivered", "to", w.name, "err", err)
			}
			return
		case <-w.wake:
		case <-again:
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
		err := w.deliver(limited, &a)
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

// raise appends to the queue's stream unless another worker has said the same.
// Two that look at the same moment may both write: readers hold one message a
// code and key.
func raise(stream Stream) func(ctx context.Context, a *queue.Alert) error {
	return func(ctx context.Context, a *queue.Alert) error {
		firing, err := stream.FiringAlerts(ctx)
		if err != nil {
			return err
		}
		known := false
		for i := range firing {
			known = known || firing[i].Code == a.Code && firing[i].Key == a.Key
		}
		if known == (a.State == queue.Firing) {
			return nil
		}
		return stream.Raise(ctx, *a)
	}
}

// post sends one alert to the webhook.
func (s *Sender) post(ctx context.Context, a *queue.Alert) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode the alert: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.Webhook, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("prepare the webhook: %w", err)
	}
	for k, v := range s.cfg.Header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("post to the webhook: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("post to the webhook: it answered %s", resp.Status)
	}
	return nil
}
