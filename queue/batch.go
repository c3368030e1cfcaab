package queue

import "time"

// BatchState is where a batch stands.
type BatchState string

// The states of a batch.
const (
	BatchRunning   BatchState = "running"
	BatchPaused    BatchState = "paused"
	BatchCancelled BatchState = "cancelled" // its queued jobs were cancelled, running ones too
	BatchEnded     BatchState = "ended"
)

// Batch is a prompt file whose lines become jobs in a window. The lines lie
// in storage; the queue holds this record, a cursor and three bitmaps.
type Batch struct {
	ID        string     `json:"id"` // hash of content, settings and owner
	Name      string     `json:"name"`
	Owner     Requester  `json:"owner"`
	Origin    Origin     `json:"origin"`
	Private   bool       `json:"private,omitempty"`
	State     BatchState `json:"state"`
	Total     int64      `json:"total"`    // accepted lines
	Rejected  int64      `json:"rejected"` // lines that never became a request
	Parts     int        `json:"parts"`    // objects in storage
	PartLines int64      `json:"part_lines"`
	Prefix    string     `json:"prefix"` // of the parts in storage
	// Cursor is the index of the next line to enqueue.
	Cursor int64 `json:"cursor"`
	// Redo is the index from which failed lines are looked for again, and
	// RedoLeft how many are still to enqueue; RedoLeft 0: no re-run is on.
	Redo      int64     `json:"redo,omitempty"`
	RedoLeft  int64     `json:"redo_left,omitempty"`
	Out       int64     `json:"out"` // enqueued and not over
	Done      int64     `json:"done"`
	Failed    int64     `json:"failed"`
	Cancelled int64     `json:"cancelled"`
	Created   time.Time `json:"created"`
	Ended     time.Time `json:"ended,omitzero"`
}

// Left is how many lines have no outcome yet.
func (b *Batch) Left() int64 { return b.Total - b.Done - b.Failed - b.Cancelled }

// Outcome is what became of one line of a batch.
type Outcome struct {
	Line   int64  `json:"line"`
	Status Status `json:"status"` // done, failed, or queued for everything else
	Reason string `json:"reason,omitempty"`
}

// Place tells where a job stands in the order.
type Place struct {
	Status   Status
	Position int // 1: next; 0: not waiting
	// About marks a position that is a lower bound because very many users wait.
	About bool
	// Known says whether the range below means anything: there are samples
	// enough of this sort of job and a worker that can run it.
	Known bool
	// StartLow … StartHigh is the range of the time until the start.
	StartLow, StartHigh time.Duration
	// RunLow … RunHigh is the range of the run time of such jobs (p50 … p90).
	RunLow, RunHigh time.Duration
	// Paused says which switch holds the job back, or "".
	Paused string
	// Slots is the number of live workers that can run the job.
	Slots int
}

// Stats is a picture of the whole queue.
type Stats struct {
	Now       time.Time              `json:"now"`
	Queued    map[Class]int64        `json:"queued"`
	Oldest    map[Class]Age          `json:"oldest"` // age of the oldest queued job
	Scheduled int64                  `json:"scheduled"`
	Leased    int64                  `json:"leased"`
	Overdue   int64                  `json:"overdue"` // leases past their deadline
	Ended     map[Status]int64       `json:"ended"`   // terminal jobs that are kept
	Users     map[Class]int64        `json:"users"`   // users with queued jobs
	Workers   []WorkerInfo           `json:"workers"`
	Switches  []Switch               `json:"switches"`
	Counters  map[string]int64       `json:"counters"` // since the beginning: submitted, done, failed (failed_input of them for bad input), crashes, lost, refused_…, dropped, trimmed…
	Durations map[string]DurationFit `json:"durations"`
	Outbox    map[string]int64       `json:"outbox"` // consumer → events it has not acknowledged
	Backend   string                 `json:"backend"`
}

// Age is a duration that JSON shows in seconds.
type Age float64

// DurationFit are the recent run times of a sort of job ("pool quality"), in seconds.
type DurationFit struct {
	Samples  int     `json:"samples"`
	P50, P90 float64 `json:",omitempty"`
}

// WorkerInfo is a worker as the queue knows it.
type WorkerInfo struct {
	Name   string    `json:"name"`
	Worker string    `json:"worker"`
	Pools  []string  `json:"pools"`
	Device string    `json:"device"`
	Seen   time.Time `json:"seen"`
	Drain  bool      `json:"drain,omitempty"`
}

// Scope says what a switch holds back.
type Scope string

// The scopes of a switch.
const (
	AllJobs  Scope = "queue"
	OfClass  Scope = "class"
	OfUser   Scope = "user"
	OfBatch  Scope = "batch"
	OfWorker Scope = "worker" // drain: the worker with this stable name leases no more
)

// Switch is a durable pause.
type Switch struct {
	Scope Scope     `json:"scope"`
	Name  string    `json:"name,omitempty"` // class, user, batch id, worker name
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"`
}

// Rest is the status of lines that are neither done nor failed.
func (b *Batch) Rest() Status {
	if b.State == BatchCancelled || b.State == BatchEnded {
		return Cancelled
	}
	return Queued
}
