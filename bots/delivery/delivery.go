// Package delivery brings queue events to people: it edits the status message of
// a job while it runs, posts exactly one new message about its outcome, and
// carries alerts to the operators' channel.
//
// An outcome is written down as due before the event is acknowledged, as being
// sent before it is sent, and as sent afterwards. Whatever happens in between, a
// restart finds the record and, before it sends again, looks for the message by
// its nonce. Only where the platform does not let us look can a message appear
// twice; that is counted.
package delivery

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dreamcad/bots"
	"dreamcad/queue"
)

// Queue is what delivery needs of the queue.
type Queue interface {
	queue.Outbox
	queue.State
	queue.Locks
	queue.Alerts
	Job(ctx context.Context, id string) (queue.Job, error)
	Batch(ctx context.Context, id string) (queue.Batch, error)
}

// Config are delivery's numbers; Defaults returns them.
type Config struct {
	OpsChannel string // where alerts go; "" posts none

	EditEvery   time.Duration // least time between two edits of a status message
	SparseAfter time.Duration // age from which edits are sparse
	SparseEvery time.Duration
	StopAfter   time.Duration // age from which nothing is edited any more
	Poll        time.Duration // longest wait for events in one call
	RetryBase   time.Duration // backoff after temporary trouble
	RetryMax    time.Duration
	LockLife    time.Duration // of the lock that makes one process the deliverer
	SentLife    time.Duration // how long it is remembered that something was sent
	Parallel    int           // operations under way at once
}

// Defaults are the numbers for the real platforms.
func Defaults() Config {
	return Config{
		EditEvery: 5 * time.Second, SparseAfter: 10 * time.Minute, SparseEvery: time.Minute, StopAfter: 55 * time.Minute,
		Poll: 2 * time.Second, RetryBase: time.Second, RetryMax: time.Minute,
		LockLife: 15 * time.Second, SentLife: 30 * 24 * time.Hour, Parallel: 8,
	}
}

// Metrics count what delivery does. All are labelled by platform.
type Metrics struct {
	Sent      *prometheus.CounterVec // outcomes posted; label "place": origin, channel, direct
	Waiting   *prometheus.CounterVec // outcomes that nobody would take: they wait in /history
	Perhaps   *prometheus.CounterVec // sent again without being able to look: possible duplicates
	Edits     *prometheus.CounterVec
	Limited   *prometheus.CounterVec // refusals for going too fast
	Due       *prometheus.GaugeVec   // outcomes not yet sent
	Oldest    *prometheus.GaugeVec   // age of the oldest outcome that is not yet sent
	Delivered *prometheus.HistogramVec
	Acks      *prometheus.HistogramVec
}

// Acked counts the first answer to something that a person did, and how long
// it took from its arrival. Adapters call it.
func (m *Metrics) Acked(platform string, took time.Duration) {
	m.Acks.WithLabelValues(platform).Observe(took.Seconds())
}

// begin shows the platform's counters before anything is counted: what appears
// with its first event looks to Prometheus as if that had not happened.
func (m *Metrics) begin(platform string) {
	for _, c := range []*prometheus.CounterVec{m.Waiting, m.Perhaps, m.Edits, m.Limited} {
		c.WithLabelValues(platform)
	}
}

// rest takes back what another process tells from now on.
func (m *Metrics) rest(platform string) {
	m.Due.DeleteLabelValues(platform)
	m.Oldest.DeleteLabelValues(platform)
}

// NewMetrics registers the metrics; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "dream", Subsystem: "chat", Name: name, Help: help}, append([]string{"platform"}, labels...))
	}
	m := &Metrics{
		Sent:    counter("outcomes_sent_total", "Outcome messages posted.", "place"),
		Waiting: counter("outcomes_undeliverable_total", "Outcomes that could only be left in /history."),
		Perhaps: counter("duplicates_possible_total", "Messages sent again where the platform did not let us look for the first."),
		Edits:   counter("edits_total", "Status messages edited."),
		Limited: counter("rate_limited_total", "Refusals for going too fast."),
		Due:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "dream", Subsystem: "chat", Name: "outcomes_due", Help: "Outcomes not yet sent."}, []string{"platform"}),
		Delivered: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "dream", Subsystem: "chat", Name: "outcome_delay_seconds",
			Help: "Time from the event to the message.", Buckets: []float64{.1, .5, 1, 2, 5, 10, 30, 60, 300, 1800}}, []string{"platform"}),
		Oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "dream", Subsystem: "chat", Name: "outbox_age_seconds", Help: "Age of the oldest outcome not yet sent; 0: none."}, []string{"platform"}),
		Acks: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "dream", Subsystem: "chat", Name: "ack_seconds",
			Help: "Time from an interaction's arrival to its first answer; the platforms allow 3 s.", Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 1.5, 2, 2.5, 3}}, []string{"platform"}),
	}
	if r != nil {
		r.MustRegister(m.Sent, m.Waiting, m.Perhaps, m.Edits, m.Limited, m.Due, m.Oldest, m.Delivered, m.Acks)
	}
	return m
}

// Delivery serves one platform. Make it with New, run it with Run.
type Delivery struct {
	config   Config
	q        Queue
	chat     bots.Chat
	render   *bots.Renderer
	out      *Outbound
	metrics  *Metrics
	log      *slog.Logger
	platform string
	consumer string

	mu      sync.Mutex
	tracks  map[string]*track
	running map[string]bool      // dues that a goroutine works on
	ages    map[string]time.Time // of the events of those
	shut    map[string]time.Time // channels that refused us, and until when they are left alone
	due     chan string

	// step is called between the steps of a delivery; tests stop there.
	step func(string)
}

// New makes the delivery of one platform. The pacer tells the platform's limits.
func New(c Config, q Queue, chat bots.Chat, pacer Pacer, r *bots.Renderer, m *Metrics, log *slog.Logger) *Delivery {
	d := &Delivery{
		config: c, q: q, chat: chat, render: r, out: NewOutbound(pacer, c.Parallel), metrics: m,
		platform: chat.Platform(), consumer: "bots/" + chat.Platform(),
		tracks: map[string]*track{}, running: map[string]bool{}, ages: map[string]time.Time{}, shut: map[string]time.Time{}, due: make(chan string, 1024),
		step: func(string) {},
	}
	d.log = log.With("platform", d.platform)
	m.begin(d.platform)
	d.out.limited = func() { d.metrics.Limited.WithLabelValues(d.platform).Inc() }
	return d
}

// Outbound is the queue of operations, for adapters that learn limits.
func (d *Delivery) Outbound() *Outbound { return d.out }

// Run delivers until ctx ends. Of several processes one at a time works; the
// others wait for its lock.
func (d *Delivery) Run(ctx context.Context) error {
	// Adapters post through the outbound queue too, with or without the lock.
	var out sync.WaitGroup
	out.Go(func() { d.out.Run(ctx) })
	defer out.Wait()
	return Exclusive(ctx, d.q, "delivery/"+d.platform, d.config.LockLife, d.log, func(ctx context.Context) {
		var parts sync.WaitGroup
		parts.Go(func() { d.workDues(ctx) })
		parts.Go(func() { d.readEvents(ctx) })
		if d.config.OpsChannel != "" {
			parts.Go(func() { d.readAlerts(ctx) })
		}
		parts.Wait()
		d.metrics.rest(d.platform)
	})
}

// Exclusive runs work while it holds the lock, again and again until ctx ends.
// When the lock is lost, work's context ends before anybody else's begins, up to
// the time that its last call needs.
func Exclusive(ctx context.Context, locks queue.Locks, name string, life time.Duration, log *slog.Logger, work func(context.Context)) error {
	for waiting := false; ctx.Err() == nil; {
		lock, err := locks.Lock(ctx, name, life)
		if err != nil {
			if !waiting && ctx.Err() == nil {
				log.Info("waiting for the lock: another process may be active", "lock", name, "err", err)
				waiting = true
			}
			sleep(ctx, life/3)
			continue
		}
		waiting = false
		held, lose := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { work(held); close(done) }()
		renew(held, locks, lock, life, log)
		lose()
		<-done
		if ctx.Err() != nil {
			free, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			_ = locks.Unlock(free, lock) // it ends by itself otherwise
			cancel()
		}
	}
	return nil
}

// renew keeps the lock until it is lost, could not be renewed for two thirds of
// its life, or ctx ends.
func renew(ctx context.Context, locks queue.Locks, lock queue.Lock, life time.Duration, log *slog.Logger) {
	last := time.Now()
	for {
		sleep(ctx, life/6)
		if ctx.Err() != nil {
			return
		}
		once, cancel := context.WithTimeout(ctx, life/6)
		err := locks.Renew(once, lock, life)
		cancel()
		switch {
		case err == nil:
			last = time.Now()
		case queue.CodeOf(err) == queue.CodeLost || time.Since(last) > life*2/3:
			if ctx.Err() == nil {
				log.Warn("lost the lock", "lock", lock.Name, "err", err)
			}
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// backoff is a wait that doubles with each try, with jitter.
func (d *Delivery) backoff(try int) time.Duration {
	wait := d.config.RetryBase << min(try, 16)
	wait = min(wait, d.config.RetryMax)
	return wait/2 + rand.N(wait/2+1)
}

// readEvents takes events from the outbox: outcomes are written down as due,
// everything else goes to the status messages. Then the cursor moves on.
func (d *Delivery) readEvents(ctx context.Context) {
	cursor, try := "", 0
	known := false
	for ctx.Err() == nil {
		var err error
		if !known {
			cursor, err = d.q.Cursor(ctx, d.consumer)
			known = err == nil
		}
		var events []queue.Event
		if err == nil {
			events, err = d.q.Events(ctx, cursor, 256, d.config.Poll)
		}
		for i := range events {
			if err = d.take(ctx, &events[i]); err != nil {
				break
			}
			cursor = events[i].ID
		}
		if err == nil && len(events) > 0 {
			d.step("before ack")
			err = d.q.Ack(ctx, d.consumer, cursor)
		}
		if err == nil {
			try = 0
			continue
		}
		if ctx.Err() == nil && try == 0 {
			d.log.Warn("reading events failed; trying again", "err", err)
		}
		sleep(ctx, d.backoff(try))
		try++
	}
}

func (d *Delivery) take(ctx context.Context, e *queue.Event) error {
	if e.Origin.Platform != d.platform {
		return nil
	}
	if e.Kind.Outcome() {
		d.forgetTrack(e.Job)
		return d.noteDue(ctx, e)
	}
	switch e.Kind {
	case queue.EventStarted, queue.EventProgress, queue.EventViews, queue.EventWaiting:
		return d.status(ctx, e)
	}
	return nil
}

// statusKey is the record of the message that shows a job.
func statusKey(job string) string { return "bots/msg/" + job }

// statusLife is longer than anything edits a message.
const statusLife = 7 * 24 * time.Hour

// SaveStatus remembers which message shows a job; adapters call it when the
// acknowledgement is posted.
func SaveStatus(ctx context.Context, s queue.State, job string, p bots.Posted) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = s.Put(ctx, statusKey(job), text, queue.AnyVersion, statusLife)
	return err
}

func (d *Delivery) statusMessage(ctx context.Context, job string) (bots.Posted, bool, error) {
	var p bots.Posted
	r, err := d.q.Get(ctx, statusKey(job))
	if queue.CodeOf(err) == queue.CodeNotFound {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	return p, true, json.Unmarshal(r.Value, &p)
}
