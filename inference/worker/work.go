package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
)

// Maker begins the work on jobs: the pipelines of one device. Its methods and
// those of the Work that it makes are called from one goroutine.
type Maker interface {
	// Models lists what it serves; the first is taken for requests that name none.
	Models() []storage.ModelRef
	// Device names the device for manifests and operators.
	Device() string
	// Start begins the work on a task, or goes on where its checkpoint was saved.
	// ErrCheckpoint means that the checkpoint cannot be used: the caller tries an
	// older one, or none.
	Start(ctx context.Context, t Task) (Work, error)
}

// Batcher is what a Maker may also be: one whose device does more in the same time
// when several works step together.
type Batcher interface {
	// Batch is how many works are best made together; 1: each alone.
	Batch() int
	// Ahead does at once what the next steps of several works have in common. Their
	// Steps then find it done. After an error the Steps do everything themselves.
	Ahead(works []Work) error
}

// Task is what a Maker needs to begin.
type Task struct {
	Job queue.Job
	// Dir is an empty folder for the result files.
	Dir string
	// Checkpoint is what Save wrote, or nil. It is read during Start only.
	Checkpoint io.Reader
}

// Work is one job in the making.
type Work interface {
	// Step does one short piece of work (one step of the sampler, of the
	// optimiser) and says how far the job is. It returns early with the context's
	// error when that ends. After an Outcome it is not called again.
	Step(ctx context.Context) (Update, error)
	// Save writes all that Start needs to go on from here, result files that lie
	// in Dir already included. It is called between two steps.
	Save(w io.Writer) error
	// Close frees what the work holds. Files in Dir stay.
	Close() error
}

// Update is what a step brought.
type Update struct {
	Stage     queue.Stage
	Step      int
	Total     int           // 0: not known
	Remaining time.Duration // measured estimate of what is left; 0: not known
	Message   string
	// Views is set once, by the step after which the four views lie in Dir.
	Views []Product
	// Boundary marks a good place for a checkpoint: the views are done, a round is done.
	Boundary bool
	// Outcome is set by the last step.
	Outcome *Outcome
}

// Product is a result file in the task's Dir.
type Product struct {
	Role string
	Name string
}

// Outcome is what the manifest says beyond what the request and the clock say.
type Outcome struct {
	Products   []Product // views included, in the order of the manifest
	Quality    string
	Model      storage.ModelRef
	Settings   json.RawMessage
	Cameras    []storage.Camera
	Notices    []string
	PeakMemory int64
}

// InputError says that a request can never be served as it is.
type InputError struct {
	Sentence string // for the requester
	Err      error
}

func (e *InputError) Error() string {
	if e.Err == nil {
		return e.Sentence
	}
	return fmt.Sprintf("%s (%v)", e.Sentence, e.Err)
}

func (e *InputError) Unwrap() error { return e.Err }

// Governor protects the card. A nil Governor protects nothing.
type Governor interface {
	// Pause is how long to rest before the next step; 0 works on.
	Pause() time.Duration
	// Admit returns an error while no new work should be taken.
	Admit() error
}

// Meter hears of finished jobs. A nil Meter hears nothing.
type Meter interface {
	// Finished gets the device time of a job's stages in seconds, all attempts together.
	Finished(kind queue.Kind, timings map[string]float64)
}
