// Package queuetest holds what every backend of the queue must pass: the
// conformance suite, the model test and the tools for faults (a redis-server
// of one's own, a proxy that misbehaves, a worker process that dies on command).
package queuetest

import (
	"context"
	"testing"
	"time"

	"dreamcad/queue"
)

// Run runs the conformance suite against the backend.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		cfg  func(*queue.Config)
		f    func(*bench)
	}{
		{"life of a job", nil, lifeOfAJob},
		{"submit is idempotent", nil, idempotentSubmit},
		{"submit many", nil, submitMany},
		{"limits", func(c *queue.Config) { c.QueuedPerUser, c.QueuedTotal = 2, 3 }, limits},
		{"running limit", func(c *queue.Config) { c.RunningPerUser = 1 }, runningLimit},
		{"quotas", nil, quotas},
		{"capabilities", nil, capabilities},
		{"classes", nil, classes},
		{"fair order", nil, fairOrder},
		{"weights", nil, weights},
		{"no credit from absence", nil, noCredit},
		{"debt and a clock that goes back", nil, debtAndClock},
		{"bulk does not starve", func(c *queue.Config) { c.BulkEvery = 3 }, bulkAges},
		{"fence", nil, fence},
		{"rescue", nil, rescue},
		{"retries", func(c *queue.Config) { c.MaxFailures = 2 }, retries},
		{"bad input", nil, badInput},
		{"quarantine", nil, quarantine},
		{"evidence", nil, evidence},
		{"cancel", nil, cancel},
		{"give back", nil, giveBack},
		{"yield", nil, yield},
		{"drain", nil, drain},
		{"switches", nil, switches},
		{"requeue", nil, requeue},
		{"waiting lease", nil, waitingLease},
		{"lease given back on cancel", nil, leaseCancelled},
		{"outbox", nil, outbox},
		{"place", nil, place},
		{"list and resolve", nil, listResolve},
		{"stats", nil, stats},
		{"oldest waiting job", nil, oldestWaiting},
		{"keep limits", func(c *queue.Config) { c.KeepCount, c.KeepEvents = 3, 100 }, keepLimits},
		{"forget", nil, forget},
		{"batches", func(c *queue.Config) { c.MaxFailures, c.KeepBatch = 1, 2 }, batches},
		{"batch pause and cancel", nil, batchPause},
		{"records", nil, records},
		{"counters", nil, counters},
		{"locks", nil, locks},
		{"alerts", nil, alerts},
		{"check", nil, check},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config()
			if c.cfg != nil {
				c.cfg(&cfg)
			}
			s := open(t, cfg)
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
			defer stop()
			b := &bench{Subject: s, t: t, ctx: ctx, q: s.Queue}
			c.f(b)
			b.audit()
		})
	}
}
