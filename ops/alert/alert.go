// Package alert brings the watch's messages to people: to the queue's alert
// stream (from which bots post to chat), to a webhook, to an Alertmanager, and to
// the log. Each way has its own line, so one that is away delays no other; what
// could not be delivered is kept, in order, and sent when the way is open again.
//
// The same condition is one message, however often and by however many processes
// it is put. What operators silenced is held back and told when the silence ends
// before the condition does; a condition that comes and goes is told again only
// after Config.Again.
package alert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"dreamcad/queue"
)

// Queue is what alert needs of the queue.
type Queue interface {
	Raise(ctx context.Context, a queue.Alert) error
	FiringAlerts(ctx context.Context) ([]queue.Alert, error)
	queue.State
	queue.Locks
}

// Config says where alerts go besides the stream and the log.
type Config struct {
	// Webhook is a URL that gets each alert as JSON by POST; empty: none.
	Webhook string
	// Header is added to the webhook's requests (Authorization).
	Header http.Header
	// Alertmanager is the base URL of a Prometheus Alertmanager; empty: none.
	Alertmanager string
	// AlertmanagerHeader is added to its requests.
	AlertmanagerHeader http.Header
	// Again is the least time between two episodes of one condition that
	// people are told about; 0: 5 minutes.
	Again time.Duration
	// Edit is the least time between two texts of one firing alert; 0: 1 minute.
	Edit time.Duration
	// Retry is the pause after a failed delivery; 0: 2 s.
	Retry time.Duration
	// Remind is how often Alertmanager hears again of what is firing; 0: 1 minute.
	Remind time.Duration
	// Defer tells that another process tells an alert for all; it is held meanwhile,
	// and told should it still hold afterwards. nil: never.
	Defer func(a *queue.Alert) bool
	// Keep bounds what waits on one way; the oldest go first. 0: 1000.
	Keep int
}

// id is what an alert is about: its code and key.
type id [2]string

func idOf(a *queue.Alert) id { return id{a.Code, a.Key} }

// Sender delivers alerts. Put never blocks.
type Sender struct {
	cfg   Config
	log   *slog.Logger
	queue Queue // may be nil
	ways  []*way

	mu     sync.Mutex
	last   map[id]queue.Alert // what fires
	intake []queue.Alert
	left   []func(code string) bool // what is no longer ours
	wake   chan struct{}

	// What follows belongs to the goroutine of judge.
	held      map[id]queue.Alert // not told for now
	next      map[id]time.Time   // when a new episode may be told
	silences  []queue.Silence
	refreshed time.Time
}

// New makes a sender; q may be nil.
func New(cfg Config, q Queue, log *slog.Logger) *Sender {
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{{&cfg.Again, 5 * time.Minute}, {&cfg.Edit, time.Minute}, {&cfg.Retry, 2 * time.Second}, {&cfg.Remind, time.Minute}} {
		if *d.field == 0 {
			*d.field = d.standard
		}
	}
	if cfg.Keep == 0 {
		cfg.Keep = 1000
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{cfg: cfg, log: log, queue: q, last: map[id]queue.Alert{}, wake: make(chan struct{}, 1), held: map[id]queue.Alert{}, next: map[id]time.Time{}}
	if q != nil {
		s.ways = append(s.ways, newWay("queue", &stream{q, cfg.Edit}))
	}
	if cfg.Webhook != "" {
		s.ways = append(s.ways, newWay("webhook", newWebhook(cfg.Webhook, cfg.Header, q)))
	}
	if cfg.Alertmanager != "" {
		s.ways = append(s.ways, newWay("Alertmanager", newAlertmanager(cfg.Alertmanager, cfg.AlertmanagerHeader, cfg.Remind)))
	}
	return s
}

// Put takes an alert. The same state of the same code and key again is dropped,
// unless its text is a new one: then messages that can be edited are.
func (s *Sender) Put(a queue.Alert) {
	if a.At.IsZero() {
		a.At = time.Now().UTC()
	}
	s.mu.Lock()
	last := s.last[idOf(&a)]
	if last.State == a.State && last.Text == a.Text {
		s.mu.Unlock()
		return
	}
	if a.State == queue.Firing {
		s.last[idOf(&a)] = a
	} else {
		delete(s.last, idOf(&a))
	}
	s.intake = append(s.intake, a)
	s.mu.Unlock()
	if last.State != a.State {
		level := slog.LevelInfo
		if a.State == queue.Firing && a.Severity != queue.Info {
			level = slog.LevelWarn
		}
		s.log.Log(context.Background(), level, "alert "+string(a.State), "code", a.Code, "key", a.Key, "severity", a.Severity, "text", a.Text)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Release forgets the alerts with such codes without telling their end: another
// process goes on with them.
func (s *Sender) Release(codes func(code string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.last, func(k id, _ queue.Alert) bool { return codes(k[0]) })
	s.left = append(s.left, codes)
}

// Send delivers one alert at once, silenced or not, and returns what failed: for
// commands, which cannot wait for better times.
func Send(ctx context.Context, cfg Config, q Queue, a queue.Alert) error {
	s := New(cfg, q, nil)
	var errs []error
	for _, w := range s.ways {
		w.put(a, s.cfg.Keep)
		if err := w.flush(ctx); err != nil {
			errs = append(errs, fmt.Errorf("send the alert to the %s: %w", w.name, err))
		}
	}
	return errors.Join(errs...)
}

// Run delivers until ctx ends, and then tries once more what waits.
func (s *Sender) Run(ctx context.Context) error {
	var ways, judge sync.WaitGroup
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, w := range s.ways {
		ways.Go(func() { w.run(inner, s.cfg.Retry, s.log) })
	}
	judge.Go(func() { s.judgeAll(ctx) })
	judge.Wait()
	stop()
	ways.Wait()
	return nil
}

// judgeAll decides about what was put, and each second about what is held.
func (s *Sender) judgeAll(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for ctx.Err() == nil {
		s.take(ctx)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-t.C:
		}
	}
	s.take(ctx)
}

func (s *Sender) take(ctx context.Context) {
	s.mu.Lock()
	intake := s.intake
	s.intake = nil
	left := s.left
	s.left = nil
	s.mu.Unlock()
	for _, codes := range left {
		maps.DeleteFunc(s.held, func(k id, _ queue.Alert) bool { return codes(k[0]) })
	}
	for i := range intake {
		s.judge(ctx, &intake[i])
	}
	for k, until := range s.next {
		if time.Now().After(until) {
			delete(s.next, k)
		}
	}
	for k, a := range s.held {
		if s.mayTell(ctx, &a) {
			delete(s.held, k)
			s.tell(&a)
		}
	}
}

// judge tells about the alert or holds it.
func (s *Sender) judge(ctx context.Context, a *queue.Alert) {
	held, isHeld := s.held[idOf(a)]
	switch {
	case a.State == queue.Resolved && isHeld: // nobody was told that it began
		delete(s.held, idOf(a))
		s.log.Debug("an alert came and went untold", "code", held.Code, "key", held.Key)
	case a.State == queue.Resolved:
		s.next[idOf(a)] = time.Now().Add(s.cfg.Again)
		s.tell(a)
	case isHeld || !s.mayTell(ctx, a):
		s.held[idOf(a)] = *a
	default:
		s.tell(a)
	}
}

func (s *Sender) tell(a *queue.Alert) {
	for _, w := range s.ways {
		w.put(*a, s.cfg.Keep)
	}
}

// Silences are read again after refreshAfter, and waited for no longer than refreshLimit.
const (
	refreshAfter = 2 * time.Second
	refreshLimit = time.Second
)

// mayTell tells whether neither a silence nor the pause between episodes nor
// another process that tells it holds the alert back. While the queue is away the silences that were read last count.
func (s *Sender) mayTell(ctx context.Context, a *queue.Alert) bool {
	if time.Now().Before(s.next[idOf(a)]) {
		return false
	}
	if s.cfg.Defer != nil && s.cfg.Defer(a) {
		return false
	}
	if s.queue != nil && time.Since(s.refreshed) > refreshAfter {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshLimit)
		list, err := queue.Silences(limited, s.queue)
		cancel()
		if err == nil {
			s.silences = list
		}
		s.refreshed = time.Now()
	}
	for i := range s.silences {
		if s.silences[i].Until.After(time.Now()) && s.silences[i].Matches(a.Code, a.Key) {
			return false
		}
	}
	return true
}
