package queue

import "time"

// EventKind names an event.
type EventKind string

// The events. BatchEnded has an empty Job.
const (
	EventAccepted  EventKind = "accepted"
	EventStarted   EventKind = "started"
	EventProgress  EventKind = "progress"
	EventViews     EventKind = "views"
	EventWaiting   EventKind = "waiting" // the attempt ended without an outcome: the job waits for another
	EventDone      EventKind = "done"
	EventFailed    EventKind = "failed" // quarantine too
	EventCancelled EventKind = "cancelled"
	EventBatch     EventKind = "batch" // a batch ended; Batch is set
)

// Outcome reports whether k ends a job (or a batch).
func (k EventKind) Outcome() bool {
	return k == EventDone || k == EventFailed || k == EventCancelled || k == EventBatch
}

// Event is one entry of the outbox.
type Event struct {
	// ID is the cursor of the event: opaque, growing in the stream's order.
	ID      string    `json:"id"`
	Kind    EventKind `json:"kind"`
	Job     string    `json:"job,omitempty"`
	Batch   string    `json:"batch,omitempty"`
	Attempt int       `json:"attempt"`
	LeaseID string    `json:"lease_id,omitempty"` // the attempt's prefix in storage
	Seq     int       `json:"seq"`                // grows within a job
	At      time.Time `json:"at"`
	User    string    `json:"user"`
	Private bool      `json:"private,omitempty"`
	Origin  Origin    `json:"origin"`
	Stage   Stage     `json:"stage,omitempty"`
	Step    int       `json:"step,omitempty"`
	Total   int       `json:"total,omitempty"`
	// Message is a sentence for the requester, if there is one to say.
	Message string `json:"message,omitempty"`
	// Remaining is the worker's measured estimate in seconds; 0: not known.
	Remaining float64  `json:"remaining,omitempty"`
	Files     []File   `json:"files,omitempty"`
	Notices   []string `json:"notices,omitempty"`
}

// Severity of an alert.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// AlertState is firing or resolved.
type AlertState string

// The states of an alert.
const (
	Firing   AlertState = "firing"
	Resolved AlertState = "resolved"
)

// Alert is one message of the watch to the operators. Code and Key together
// identify what it is about; a newer one replaces the older.
type Alert struct {
	ID       string     `json:"id,omitempty"` // cursor; set when read
	Code     string     `json:"code"`
	Key      string     `json:"key"`
	Severity Severity   `json:"severity"`
	State    AlertState `json:"state"`
	Text     string     `json:"text"`
	Since    time.Time  `json:"since"`       // when the episode began
	At       time.Time  `json:"at,omitzero"` // when this was so: its begin, a new text, its end
	Source   string     `json:"source"`
}
