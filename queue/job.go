package queue

import (
	"slices"
	"time"
)

// Status is where a job stands.
type Status string

// The statuses; doc.go draws the transitions.
const (
	Queued      Status = "queued"
	Scheduled   Status = "scheduled" // waits for the end of a backoff
	Leased      Status = "leased"
	Done        Status = "done"
	Failed      Status = "failed"
	Cancelled   Status = "cancelled"
	Quarantined Status = "quarantined"
)

// Statuses lists all statuses, live ones first.
var Statuses = []Status{Leased, Queued, Scheduled, Done, Failed, Cancelled, Quarantined}

// Terminal reports whether a job in s is over (until someone requeues it).
func (s Status) Terminal() bool {
	return slices.Contains([]Status{Done, Failed, Cancelled, Quarantined}, s)
}

// Job is one request on the queue.
type Job struct {
	Request
	Status   Status `json:"status"`
	Attempt  int    `json:"attempt"`  // leases so far; 0: never started
	Failures int    `json:"failures"` // attempts that ended in an error
	Crashes  int    `json:"crashes"`  // attempts whose worker was lost or stuck
	// LeaseID is the fence of the current or last attempt.
	LeaseID   string      `json:"lease_id,omitempty"`
	Worker    string      `json:"worker,omitempty"`
	Submitted time.Time   `json:"submitted"`
	Started   time.Time   `json:"started,omitzero"` // of the current or last attempt
	Ended     time.Time   `json:"ended,omitzero"`   // when it became terminal
	NotBefore time.Time   `json:"not_before,omitzero"`
	Deadline  time.Time   `json:"deadline,omitzero"` // of the lease
	Progress  *Progress   `json:"progress,omitempty"`
	Views     []File      `json:"views,omitempty"`    // once the four views exist, under the attempt's prefix
	ViewsBy   string      `json:"views_by,omitempty"` // lease id of the attempt that wrote them
	Check     *Checkpoint `json:"checkpoint,omitempty"`
	Failure   *Failure    `json:"failure,omitempty"`    // of the last attempt that failed
	CrashedBy []Crash     `json:"crashed_by,omitempty"` // one entry for each of Crashes, in their order; not in a lease's answer
	Result    *Result     `json:"result,omitempty"`     // when done
	// Estimate is the expected GPU-seconds, Used what attempts so far took.
	Estimate float64 `json:"estimate"`
	Used     float64 `json:"used"`
}

// Stage names a part of a job's work; the same words everywhere.
type Stage string

// The stages in the order in which they occur.
const (
	StageQueued   Stage = "queued"
	StageText     Stage = "text"
	StageViews    Stage = "views"
	StageOptimise Stage = "optimise"
	StageExtract  Stage = "extract"
	StageTexture  Stage = "texture"
	StagePreview  Stage = "preview"
	StageUpload   Stage = "upload"
)

// Progress is what a heartbeat reports (≤ 1 kB as JSON).
type Progress struct {
	Stage   Stage  `json:"stage"`
	Step    int    `json:"step"`
	Total   int    `json:"total"` // 0: not known
	Message string `json:"message,omitempty"`
	// Remaining is the measured estimate of what is left, in seconds; 0: not known.
	Remaining float64 `json:"remaining,omitempty"`
}

// Checkpoint points at saved work (≤ 1 kB as JSON). Any worker of the same
// model resumes from it.
type Checkpoint struct {
	Key   string `json:"key"` // storage key, or a path when Host is set
	Step  int    `json:"step"`
	Stage Stage  `json:"stage"`
	Model string `json:"model,omitempty"` // digest
	Host  string `json:"host,omitempty"`  // set while it lies on that host's disk only
}

// File is one published file, as in the manifest.
type File struct {
	Role      string `json:"role"`
	Name      string `json:"name"`
	MediaType string `json:"media_type"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
}

// Result is the manifest's summary that completion carries (≤ 32 kB as JSON).
type Result struct {
	// Winner is the lease id that the manifest names; it differs from the
	// completing lease when an attempt adopts what an earlier one published.
	Winner  string             `json:"winner"`
	Files   []File             `json:"files"`
	Notices []string           `json:"notices,omitempty"`
	Timings map[string]float64 `json:"timings,omitempty"` // stage → seconds
	Device  string             `json:"device,omitempty"`
	Model   string             `json:"model,omitempty"` // that made it
	// Used is the GPU time of this attempt in seconds; 0 charges the wall time.
	Used float64 `json:"used,omitempty"`
}

// FailKind tells apart the ways in which an attempt can fail.
type FailKind string

// The kinds of failure and what follows.
const (
	FailError FailKind = "error" // failures + 1, backoff with full jitter, failed after Config.MaxFailures
	FailInput FailKind = "input" // failed at once; Sentence is for the requester
	FailCrash FailKind = "crash" // crashes + 1, head of the line; quarantine by Config
	FailStuck FailKind = "stuck" // as crash: the watchdog gave up
	FailDied  FailKind = "died"  // as crash, and it took the process with it: two in a row quarantine
)

// Failure describes why an attempt ended badly (texts are cut to 4 kB).
type Failure struct {
	Kind     FailKind `json:"kind"`
	Sentence string   `json:"sentence,omitempty"` // for the requester
	Detail   string   `json:"detail,omitempty"`   // for operators: the error chain
	Worker   string   `json:"worker,omitempty"`
	// Exit says how the worker's process ended, if it did and somebody saw it:
	// "SIGKILL", "exit status 2" (≤ 100 bytes).
	Exit string `json:"exit,omitempty"`
	// Log is the end of what that process logged, free of secrets (the last 4 kB).
	Log string `json:"log,omitempty"`
	// Used is the GPU time of the attempt in seconds; 0 charges the wall time.
	Used float64 `json:"used,omitempty"`
	// RetryAfter overrides the backoff of FailError, for example while storage is away.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
}

// Crash is one attempt whose worker was lost with it.
type Crash struct {
	Kind    FailKind  `json:"kind"`
	Worker  string    `json:"worker"`
	Exit    string    `json:"exit,omitempty"` // as in Failure
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
}
