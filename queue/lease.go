package queue

import "time"

// Capabilities say what a worker can run now. A worker in the middle of a mesh
// asks with Kinds = [views] to run a short job between two steps.
type Capabilities struct {
	// Worker identifies the process: unique per start ("host/pid/random"),
	// because three crashes on two workers mean poison.
	Worker string `json:"worker"`
	// Name is the stable name that operators drain: "host/gpu0".
	Name    string   `json:"name"`
	Models  []string `json:"models"`            // requests without a model fit every worker
	Kinds   []Kind   `json:"kinds,omitempty"`   // none: all
	Classes []Class  `json:"classes,omitempty"` // none: all
	// Wait is how long Lease may block for work; 0 returns at once.
	Wait time.Duration `json:"-"`
	// Device is shown to operators.
	Device string `json:"device,omitempty"`
	// Beside marks a lease of a short job beside a running one: it adds no slot to the ETA.
	Beside bool `json:"beside,omitempty"`
}

// Pools lists the pools that the capabilities cover.
func (c *Capabilities) Pools() []string {
	kinds := c.Kinds
	if len(kinds) == 0 {
		kinds = []Kind{Views, Mesh}
	}
	models := append([]string{""}, c.Models...)
	out := make([]string, 0, len(models)*len(kinds))
	for i, m := range models {
		if i > 0 && m == "" {
			continue
		}
		for _, k := range kinds {
			out = append(out, Pool(m, k))
		}
	}
	return out
}

// Ref names a lease: the job and the fence. Every write of a worker carries it.
type Ref struct {
	Job   string `json:"job"`
	Lease string `json:"lease"` // random 128 bits
}

// Lease is one attempt at a job.
type Lease struct {
	Job      Job
	ID       string        // the fence
	Deadline time.Time     // server time
	TTL      time.Duration // from the answer on; renew by heartbeat well before
	// Heartbeat is how often to call Heartbeat.
	Heartbeat time.Duration
}

// Ref returns the lease's name.
func (l *Lease) Ref() Ref { return Ref{Job: l.Job.ID, Lease: l.ID} }

// Beat is what a heartbeat carries up. All fields are optional.
type Beat struct {
	Progress *Progress
	// Views, when set, are told to the requester at once (event "views").
	Views []File
	// Checkpoint, when set, replaces the job's pointer.
	Checkpoint *Checkpoint
	// Quiet renews the lease and stores progress without an event.
	Quiet bool
}

// Directive is what a heartbeat brings down.
type Directive string

// The directives.
const (
	GoOn        Directive = "go on"
	StopCancel  Directive = "cancelled" // stop, publish nothing, delete own artifacts
	StopLost    Directive = "lost"      // as cancelled: another attempt has the job, or it ended
	YieldBulk   Directive = "yield"     // save a checkpoint, GiveBack(Yielded)
	DrainWorker Directive = "drain"     // lease no more; finish or checkpoint and GiveBack(Drained)
)

// Answer is the reply to a heartbeat.
type Answer struct {
	Directive Directive
	Deadline  time.Time     // server time; zero when the lease is gone
	TTL       time.Duration // from the answer on
}

// Reason says why a worker gives a job back undone.
type Reason string

// The reasons. None counts as an attempt that failed.
const (
	Yielded  Reason = "yield"
	Drained  Reason = "drain"
	Returned Reason = "return" // leased by mistake, or the worker cannot run it now
)

// GiveBackOptions accompany GiveBack.
type GiveBackOptions struct {
	Reason     Reason
	Used       float64     // GPU-seconds of the attempt; 0 charges the wall time
	Checkpoint *Checkpoint // the saved work, if any
}
