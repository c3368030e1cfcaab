// Package refuse holds the refusals that both backends give, in the same words.
package refuse

import (
	"fmt"

	"dreamcad/queue"
)

// Poisoned refuses an input that crashed workers.
func Poisoned(by string) error {
	return &queue.Error{Code: queue.CodeQuarantined, Doing: "submit", Sentence: fmt.Sprintf("The same request stopped several workers (job %s) and is set aside until an operator has looked at it; try another prompt or seed.", by)}
}

// TooManyQueued refuses a user's job beyond the limit of waiting ones.
func TooManyQueued(limit int) error {
	return &queue.Error{Code: queue.CodeLimit, Doing: "submit", Sentence: fmt.Sprintf("You already have %d jobs waiting, which is the limit; wait for one to start or cancel one.", limit)}
}

// QueueFull refuses because the whole queue is full.
func QueueFull() error {
	return &queue.Error{Code: queue.CodeLimit, Doing: "submit", Sentence: "The queue is full right now; please try again later."}
}

// OverQuota refuses because of q.
func OverQuota(q queue.Quota) error {
	s := q.Sentence
	if s == "" {
		s = fmt.Sprintf("This would exceed your quota of %d.", q.Limit)
	}
	return &queue.Error{Code: queue.CodeQuota, Doing: fmt.Sprintf("reserve quota %q", q.Key), Sentence: s}
}

// AlreadyOver refuses to cancel a job that has ended.
func AlreadyOver(s queue.Status) error {
	return &queue.Error{Code: queue.CodeConflict, Doing: "cancel", Sentence: fmt.Sprintf("The job is already %s.", s)}
}

// NotOver refuses to requeue a job that is alive or done.
func NotOver(s queue.Status) error {
	return &queue.Error{Code: queue.CodeConflict, Doing: "requeue", Sentence: fmt.Sprintf("The job is %s; only failed, cancelled or quarantined jobs can be queued again.", s)}
}

// Sentences of the outcomes that have no better words.
const (
	SentenceFailed      = "Sorry, this did not work out after several attempts; the operators can see why in the log."
	SentenceQuarantined = "Sorry, this request stopped workers several times and was set aside; try another prompt or seed."
)

// EndSentence is what the requester is told about a failed job.
func EndSentence(st queue.Status, sentence string) string {
	switch {
	case st == queue.Quarantined:
		return SentenceQuarantined
	case sentence != "":
		return sentence
	}
	return SentenceFailed
}

// PickID picks the one job that an ending names; ids are up to two matches.
func PickID(ending string, ids []string) (string, error) {
	switch {
	case len(ids) == 1 && (ids[0] == ending || len(ending) >= queue.MinEnding):
		return ids[0], nil
	case len(ending) < queue.MinEnding:
		return "", &queue.Error{Code: queue.CodeAmbiguous, Doing: "resolve " + ending, Sentence: fmt.Sprintf("Give at least %d characters of the end of the job's id.", queue.MinEnding)}
	case len(ids) == 0:
		return "", queue.NotFound("job", ending)
	}
	return "", &queue.Error{Code: queue.CodeAmbiguous, Doing: "resolve " + ending, Sentence: fmt.Sprintf("Several jobs end in %q; give more characters.", ending)}
}

// NewStats returns empty stats with all maps made.
func NewStats(backend string) queue.Stats {
	return queue.Stats{Backend: backend, Queued: map[queue.Class]int64{}, Oldest: map[queue.Class]queue.Age{}, Ended: map[queue.Status]int64{}, Users: map[queue.Class]int64{},
		Counters: map[string]int64{}, Durations: map[string]queue.DurationFit{}, Outbox: map[string]int64{}}
}

// CheckSwitch refuses switches that mean nothing.
func CheckSwitch(s queue.Scope, name string) error {
	switch {
	case s == queue.AllJobs && name == "":
		return nil
	case s == queue.OfClass && (name == string(queue.Interactive) || name == string(queue.Bulk)):
		return nil
	case (s == queue.OfUser || s == queue.OfBatch || s == queue.OfWorker) && name != "" && len(name) <= queue.MaxKey:
		return nil
	}
	return &queue.Error{Code: queue.CodeInvalid, Doing: "switch", Sentence: fmt.Sprintf("There is no %s %q to pause or resume.", s, name)}
}

// BatchSentence tells a batch's owner how it ended.
func BatchSentence(name string, st queue.BatchState, done, failed, cancelled int64) string {
	s := fmt.Sprintf("The batch %q has %s: %d done, %d failed", name, st, done, failed)
	if st == queue.BatchCancelled {
		s = fmt.Sprintf("The batch %q was cancelled: %d done, %d failed", name, done, failed)
	}
	if cancelled > 0 {
		s += fmt.Sprintf(", %d cancelled", cancelled)
	}
	return s + "."
}

// CheckRecord refuses records that are too large.
func CheckRecord(key string, value []byte) error {
	if key == "" || len(key) > 4*queue.MaxKey || len(value) > queue.MaxRecord {
		return &queue.Error{Code: queue.CodeTooLarge, Doing: fmt.Sprintf("put record %q of %d bytes", shorten(key), len(value))}
	}
	return nil
}

// shorten cuts a text for an error message.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
