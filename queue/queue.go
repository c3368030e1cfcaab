package queue

import (
	"context"
	"io"
	"time"
)

// Submitter takes requests. When Submit returns without error the request is
// durable and will end in exactly one outcome.
type Submitter interface {
	// Submit normalises r and enqueues it, reserving the quotas in the same
	// atomic step. A known Key or ID answers with the first job and reserves
	// nothing. Errors: CodeInvalid, CodeTooLarge, CodeLimit, CodeQuota,
	// CodeQuarantined, CodeUnavailable, CodeFull.
	Submit(ctx context.Context, r Request, quotas ...Quota) (Receipt, error)
	// SubmitMany enqueues many requests in few round trips. The receipts and
	// errors correspond to rs by index.
	SubmitMany(ctx context.Context, rs []Request) ([]Receipt, []error)
	// Cancel ends a job in any live state. Of a job that is over it returns
	// the status with CodeConflict; cancelling twice is no error.
	Cancel(ctx context.Context, id string) (Status, error)
}

// Receipt acknowledges a request.
type Receipt struct {
	ID     string // the job
	New    bool   // false: the key or id was known
	Status Status
}

// Reader looks at jobs. Jobs that are over are kept by age and count (Config.Keep…).
type Reader interface {
	Job(ctx context.Context, id string) (Job, error)
	// Resolve finds the id with a unique ending of ≥ MinEnding characters (or the whole id).
	Resolve(ctx context.Context, ending string) (string, error)
	List(ctx context.Context, f Filter) ([]Job, error)
	Place(ctx context.Context, id string) (Place, error)
	Stats(ctx context.Context) (Stats, error)
}

// Filter selects jobs. Of User and Batch at most one is set.
type Filter struct {
	User   string
	Batch  string
	Status []Status // none: all
	Limit  int      // 0: 50; at most 1000
	Offset int
}

// Leaser is the worker's side.
type Leaser interface {
	// Lease returns the next job in fair order, or CodeEmpty when none came
	// within c.Wait. If ctx ends while an answer is on its way, the job is
	// given back, not dropped.
	Lease(ctx context.Context, c Capabilities) (*Lease, error)
	// Heartbeat renews the lease and carries progress up and the directive down.
	// A lost or cancelled lease is a Directive, not an error.
	Heartbeat(ctx context.Context, ref Ref, b Beat) (Answer, error)
	// Complete ends the job as done. CodeLost or CodeCancelled: refused.
	Complete(ctx context.Context, ref Ref, r Result) error
	// Fail ends the attempt; the answer is the job's new status
	// (scheduled, queued, failed or quarantined).
	Fail(ctx context.Context, ref Ref, f Failure) (Status, error)
	// GiveBack returns the job undone to the head of its user's line.
	GiveBack(ctx context.Context, ref Ref, o GiveBackOptions) error
}

// Outbox delivers events, in order, at least once, to durable consumers.
type Outbox interface {
	// Events returns up to max events after the cursor, waiting up to wait
	// for the first. The empty cursor is the oldest event that is kept.
	Events(ctx context.Context, after string, max int, wait time.Duration) ([]Event, error)
	// Cursor returns the consumer's cursor; for a new consumer it registers
	// the end of the stream as it is now.
	Cursor(ctx context.Context, consumer string) (string, error)
	// Ack moves the consumer's cursor forward to that event (never back).
	Ack(ctx context.Context, consumer, cursor string) error
	// Retire forgets the consumer and its cursor. Should it come back, it begins
	// at the end of the stream like a new one.
	Retire(ctx context.Context, consumer string) error
	// End returns the cursor of the newest event, for those who want only new ones.
	End(ctx context.Context) (string, error)
}

// Operator is for people who run the service.
type Operator interface {
	// Pause holds back what the switch names, across restarts; Resume lifts
	// it and leaves the order as it was. Both may be repeated.
	Pause(ctx context.Context, s Scope, name, why string) error
	Resume(ctx context.Context, s Scope, name string) error
	// Requeue puts a failed, cancelled or quarantined job back into its line
	// with its counts at zero; a quarantined input is released with it.
	Requeue(ctx context.Context, id string) error
	// Release lets a quarantined input be submitted again, by the job that
	// was quarantined.
	Release(ctx context.Context, id string) error
	// Forget deletes the terminal jobs of a user, their records and shares,
	// and returns the ids of the deleted jobs (at most 1000 a call).
	Forget(ctx context.Context, user string) ([]string, error)
	// SetWeight sets a user's share (default 1).
	SetWeight(ctx context.Context, user string, weight float64) error
}

// Maintainer is called each Config.Tick by every process that can
// ([RunMaintenance] does so); several at once do no harm.
type Maintainer interface {
	// Tick rescues lost leases, moves scheduled jobs whose time has come, and
	// drops what is older than the keep limits. Each call does a bounded amount.
	Tick(ctx context.Context) (Ticked, error)
}

// Ticked counts what a tick did.
type Ticked struct{ Rescued, Promoted, Dropped, Repaired int }

// Batches holds the records of prompt files (package ingest feeds them).
type Batches interface {
	// CreateBatch stores b unless its id is known; it returns the record and whether it is new.
	CreateBatch(ctx context.Context, b Batch) (Batch, bool, error)
	Batch(ctx context.Context, id string) (Batch, error)
	// Batches lists records, newest first; owner "" means all.
	Batches(ctx context.Context, owner string) ([]Batch, error)
	// Feed enqueues the requests and moves the cursor from → to in one step.
	// CodeConflict: the cursor is not at from, or the batch is not running.
	Feed(ctx context.Context, f Feeding) error
	// CancelBatch cancels its live jobs and enqueues no more.
	CancelBatch(ctx context.Context, id string) error
	// RetryBatch lets failed lines run again.
	RetryBatch(ctx context.Context, id string) (int64, error)
	// Outcomes reads n lines' outcomes from line first on.
	Outcomes(ctx context.Context, id string, first int64, n int) ([]Outcome, error)
	// NextRedo returns up to n lines from line `from` on that are to run again.
	NextRedo(ctx context.Context, id string, from int64, n int) ([]int64, error)
}

// Feeding is one step of a batch's feeder.
type Feeding struct {
	Batch    string
	From, To int64     // the cursor (Batch.Cursor, or Batch.Redo when Redo)
	Redo     bool      // a re-run of failed lines
	Requests []Request // ≤ 500, with ID = LineID(Batch, Line)
}

// State keeps small records of other rooms next to the jobs: sessions of
// chat adapters, silences, sent messages.
type State interface {
	// Get returns a record; CodeNotFound after its life ended.
	Get(ctx context.Context, key string) (Record, error)
	// Put stores value if the record's version is still `version` ("" : it
	// must not exist; AnyVersion: whatever is there). CodeConflict otherwise.
	// life 0 means for ever.
	Put(ctx context.Context, key string, value []byte, version string, life time.Duration) (Record, error)
	// Delete removes the record under the same condition; a missing record is no error.
	Delete(ctx context.Context, key, version string) error
	// Keys lists up to 1000 keys with the prefix, sorted, after the given key.
	Keys(ctx context.Context, prefix, after string) ([]string, error)
	// Add adds delta to a counter (created with the given life) and returns
	// the sum. With limit > 0 the sum may not exceed it: CodeQuota.
	Add(ctx context.Context, key string, delta, limit int64, life time.Duration) (int64, error)
}

// AnyVersion makes Put and Delete unconditional.
const AnyVersion = "*"

// Record is one value of [State].
type Record struct {
	Value   []byte
	Version string // changes with each Put
}

// Locks are leases on names, with fences.
type Locks interface {
	// Lock takes the lock, or returns CodeConflict while another holds it.
	Lock(ctx context.Context, name string, life time.Duration) (Lock, error)
	// Renew extends it; CodeLost if it is no longer ours.
	Renew(ctx context.Context, l Lock, life time.Duration) error
	Unlock(ctx context.Context, l Lock) error
}

// Lock is a held lock. Token is random and decides; Number grows with each
// holder but may go back after a failover.
type Lock struct {
	Name   string
	Token  string
	Number int64
}

// Quota is a counter that a submit raises by Cost unless it would exceed
// Limit. The caller puts the window into the key ("day/2026-11-23/discord:42").
// A job that fails through no fault of its input, or is cancelled before it
// started, gives the cost back by itself; with Live every job does when it is
// over, however it ended, so that the counter is the jobs that wait or run. A
// job that an operator puts back is not counted again.
type Quota struct {
	Key   string
	Cost  int64
	Limit int64
	Life  time.Duration
	Live  bool
	// Sentence tells the requester what is used up and when it is back.
	Sentence string
}

// Quotas looks at and gives back what submits reserved.
type Quotas interface {
	// Used returns a quota's counter.
	Used(ctx context.Context, key string) (int64, error)
	// Refund gives back what the job reserved, once.
	Refund(ctx context.Context, job string) error
}

// Alerts carries the watch's messages to those who post them.
type Alerts interface {
	// Raise appends the alert to the stream and to the firing set (or, resolved, takes it out).
	Raise(ctx context.Context, a Alert) error
	// Alerts reads the stream as Events does; cursors of consumers are kept
	// by Cursor and Ack under the name "alerts/"+consumer.
	Alerts(ctx context.Context, after string, max int, wait time.Duration) ([]Alert, error)
	// FiringAlerts lists what fires now.
	FiringAlerts(ctx context.Context) ([]Alert, error)
}

// Checker looks at the server below and gives advice.
type Checker interface {
	// Check never fails: what could not be checked is a finding.
	Check(ctx context.Context) []Finding
}

// Finding is one result of a check.
type Finding struct {
	Code     string   `json:"code"` // e.g. "appendfsync"
	Title    string   `json:"title"`
	Severity Severity `json:"severity"`          // info: fine, or unknown
	Text     string   `json:"text"`              // what is so, and what to do
	Unknown  bool     `json:"unknown,omitempty"` // it could not be checked
}

// Auditor checks the invariants over all jobs. It reads everything: for doctor and tests.
type Auditor interface {
	// Audit returns a sentence for each violation; none: all hold. A server
	// that works meanwhile can show violations that are gone on a second look.
	Audit(ctx context.Context) ([]string, error)
}

// Queue is all of it, as the backends offer it. Other rooms should ask for
// the parts that they need.
type Queue interface {
	Submitter
	Reader
	Leaser
	Outbox
	Operator
	Maintainer
	Batches
	State
	Locks
	Quotas
	Alerts
	Checker
	Auditor
	io.Closer
}
