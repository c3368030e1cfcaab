package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Config are the queue's numbers; both backends take them. All processes of
// one service should agree on them.
type Config struct {
	Lease     time.Duration `yaml:"lease"`     // life of a lease without heartbeat
	Heartbeat time.Duration `yaml:"heartbeat"` // asked of workers; Lease ≥ 3 × Heartbeat
	TickEvery time.Duration `yaml:"tick"`      // rescue, promotion, pruning
	// SubmitBudget bounds a Submit; past it the caller hears CodeUnavailable.
	SubmitBudget time.Duration `yaml:"submit_budget"`

	MaxFailures int           `yaml:"max_failures"` // attempts that may end in an error
	BackoffBase time.Duration `yaml:"backoff_base"`
	BackoffMax  time.Duration `yaml:"backoff_max"`
	MaxCrashes  int           `yaml:"max_crashes"` // on at least two workers: quarantine

	QueuedPerUser  int `yaml:"queued_per_user"`  // 0: no limit; jobs of batches do not count
	RunningPerUser int `yaml:"running_per_user"` // 0: no limit
	QueuedTotal    int `yaml:"queued_total"`     // 0: no limit

	// HalfLife of a returning user's debt.
	HalfLife time.Duration `yaml:"half_life"`
	// BulkAfter and BulkEvery: when the oldest bulk job has waited BulkAfter,
	// every BulkEvery-th lease goes to bulk.
	BulkAfter time.Duration `yaml:"bulk_after"`
	BulkEvery int           `yaml:"bulk_every"`
	// YieldAfter: bulk is asked to yield when interactive work has waited that
	// long and no slot is expected within YieldHorizon; a job at most once in YieldGap.
	YieldAfter   time.Duration `yaml:"yield_after"`
	YieldHorizon time.Duration `yaml:"yield_horizon"`
	YieldGap     time.Duration `yaml:"yield_gap"`

	KeyLife    time.Duration `yaml:"key_life"`    // of idempotency keys
	KeepAge    time.Duration `yaml:"keep_age"`    // of terminal jobs
	KeepCount  int           `yaml:"keep_count"`  // of terminal jobs of each status
	KeepBatch  int           `yaml:"keep_batch"`  // terminal jobs kept of each batch
	KeepEvents int           `yaml:"keep_events"` // length of the outbox
	// EstimateViews and EstimateMesh are GPU-seconds until there are samples.
	EstimateViews float64 `yaml:"estimate_views"`
	EstimateMesh  float64 `yaml:"estimate_mesh"`

	Logger *slog.Logger `yaml:"-"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Lease: 30 * time.Second, Heartbeat: 10 * time.Second, TickEvery: 2 * time.Second,
		SubmitBudget: 1500 * time.Millisecond,
		MaxFailures:  3, BackoffBase: 5 * time.Second, BackoffMax: 5 * time.Minute, MaxCrashes: 3,
		QueuedPerUser: 50, QueuedTotal: 100_000,
		HalfLife: 6 * time.Hour, BulkAfter: 30 * time.Minute, BulkEvery: 5,
		YieldAfter: 2 * time.Second, YieldHorizon: 30 * time.Second, YieldGap: time.Minute,
		KeyLife: 7 * 24 * time.Hour, KeepAge: 30 * 24 * time.Hour, KeepCount: 20_000, KeepBatch: 200, KeepEvents: 100_000,
		EstimateViews: 10, EstimateMesh: 120,
	}
}

// Validate checks what must hold between the numbers.
func (c *Config) Validate() error {
	switch {
	case c.Lease <= 0 || c.Heartbeat <= 0 || c.TickEvery <= 0:
		return errors.New("queue: lease, heartbeat and tick must be positive")
	case c.Lease < 3*c.Heartbeat:
		return fmt.Errorf("queue: the lease (%v) must be at least three heartbeats (%v): a shorter one loses healthy jobs", c.Lease, c.Heartbeat)
	case c.MaxFailures < 1 || c.MaxCrashes < 1 || c.BulkEvery < 1:
		return errors.New("queue: max_failures, max_crashes and bulk_every must be at least 1")
	}
	return nil
}

// YieldWithin is how long a bulk job goes on at most once interactive work
// waits, if it has yielded just before.
func (c *Config) YieldWithin() time.Duration { return c.YieldGap + c.YieldAfter + c.Heartbeat }

// Backoff is the wait before the next attempt after the n-th failure (from 1):
// full jitter, uniform in (0, min(max, base·2ⁿ⁻¹)].
func (c *Config) Backoff(n int) time.Duration {
	d := c.BackoffBase
	for i := 1; i < n && d < c.BackoffMax; i++ {
		d *= 2
	}
	d = min(d, c.BackoffMax)
	if d <= 0 {
		return 0
	}
	return 1 + rand.N(d)
}

// Log returns the logger, never nil.
func (c *Config) Log() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// RunMaintenance calls m.Tick each interval until ctx ends. Errors are logged
// once per outage; the server being away is nothing to stop for.
func RunMaintenance(ctx context.Context, m Maintainer, every time.Duration, log *slog.Logger) error {
	t := time.NewTicker(every)
	defer t.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		n, err := m.Tick(ctx)
		switch {
		case err != nil && ctx.Err() == nil && !away:
			log.Warn("queue maintenance failed", "err", err)
			away = true
		case err == nil && away:
			log.Info("queue maintenance works again")
			away = false
		}
		if n.Rescued > 0 {
			log.Warn("rescued jobs whose worker was lost", "jobs", n.Rescued)
		}
	}
}
