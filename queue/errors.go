package queue

import (
	"errors"
	"fmt"
)

// Code is what a machine reads in an [Error].
type Code string

// The codes. The comment says what the caller does about it.
const (
	CodeInvalid     Code = "invalid"     // the request can never be accepted as it is: show the sentence
	CodeNotFound    Code = "not_found"   // no such job, batch, record
	CodeAmbiguous   Code = "ambiguous"   // an ending that names several jobs: ask for more characters
	CodeEmpty       Code = "empty"       // nothing to lease now: ask again
	CodeLost        Code = "lost"        // the lease is no longer ours: stop, publish nothing
	CodeCancelled   Code = "cancelled"   // the job was cancelled: stop, publish nothing
	CodeConflict    Code = "conflict"    // compare-and-set failed, lock held by another, wrong state
	CodeLimit       Code = "limit"       // too many queued jobs of this user, or in all
	CodeQuota       Code = "quota"       // a quota is used up
	CodeQuarantined Code = "quarantined" // the same input crashed workers: refused until released
	CodeTooLarge    Code = "too_large"   // more bytes than the contract allows
	CodeUnavailable Code = "unavailable" // server away, or no answer in time: unknown whether it took effect; repeat
	CodeFull        Code = "full"        // no space for the queue's own data
	CodeVersion     Code = "version"     // data of a newer or older schema: refuse to start
)

// Error is every error that this package and its backends return on purpose.
type Error struct {
	Code Code
	// Sentence is for the requester: one clear sentence, what to do included.
	Sentence string
	// Doing says what was being done, for operators.
	Doing string
	// Err is the cause; may be nil.
	Err error
}

func (e *Error) Error() string {
	s := string(e.Code)
	switch {
	case e.Err != nil:
		s += ": " + e.Err.Error()
	case e.Sentence != "":
		s = e.Sentence
	}
	if e.Doing != "" {
		return e.Doing + ": " + s
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is lets errors.Is(err, &Error{Code: c}) and the Err… values below match by code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Values for errors.Is; they match every [Error] of the same code.
var (
	ErrInvalid     = &Error{Code: CodeInvalid}
	ErrNotFound    = &Error{Code: CodeNotFound}
	ErrAmbiguous   = &Error{Code: CodeAmbiguous}
	ErrEmpty       = &Error{Code: CodeEmpty}
	ErrLost        = &Error{Code: CodeLost}
	ErrCancelled   = &Error{Code: CodeCancelled}
	ErrConflict    = &Error{Code: CodeConflict}
	ErrLimit       = &Error{Code: CodeLimit}
	ErrQuota       = &Error{Code: CodeQuota}
	ErrQuarantined = &Error{Code: CodeQuarantined}
	ErrTooLarge    = &Error{Code: CodeTooLarge}
	ErrUnavailable = &Error{Code: CodeUnavailable}
	ErrFull        = &Error{Code: CodeFull}
	ErrVersion     = &Error{Code: CodeVersion}
)

// CodeOf returns the code in err's chain, or "" for a foreign error.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// SentenceOf returns what may be shown to the requester about err: the
// sentence if there is one, and an apology without details otherwise.
func SentenceOf(err error) string {
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok && e.Sentence != "":
		return e.Sentence
	case ok && e.Code == CodeUnavailable:
		return "The queue cannot be reached right now, so this was not accepted. Please try again in a minute."
	case ok && e.Code == CodeNotFound:
		return "There is no such job."
	}
	return "Sorry, something went wrong on our side; the operators can see it in the log."
}

// NewError builds an [Error] with a sentence for the requester.
func NewError(c Code, sentence string) *Error { return &Error{Code: c, Sentence: sentence} }

// Unavailable wraps a transport error of a backend.
func Unavailable(doing string, err error) *Error {
	return &Error{Code: CodeUnavailable, Doing: doing, Err: err}
}

// NotFound says that there is no such thing, for example NotFound("job", id).
func NotFound(what, id string) *Error {
	return &Error{Code: CodeNotFound, Doing: fmt.Sprintf("look up %s %q", what, id), Sentence: fmt.Sprintf("There is no %s %q.", what, id)}
}
