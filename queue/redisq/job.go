package redisq

import (
	"crypto/rand"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/internal/crash"
)

// extra are the fields of an event that only some kinds have.
type extra struct {
	Stage     queue.Stage  `json:"stage,omitempty"`
	Step      int          `json:"step,omitempty"`
	Total     int          `json:"total,omitempty"`
	Message   string       `json:"message,omitempty"`
	Remaining float64      `json:"remaining,omitempty"`
	Files     []queue.File `json:"files,omitempty"`
	Notices   []string     `json:"notices,omitempty"`
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own plain structs always marshal
	}
	return string(b)
}

func decode(s string, v any) error {
	if s == "" {
		return nil
	}
	return json.Unmarshal([]byte(s), v)
}

// hash is a job as it is stored: j the record, r the request, re the result, and
// of its hash, which only some jobs have, under names that are short because a
// million jobs may carry them: fa failures, cr crashes, di deaths in a row, cw
// the crashes (package crash), fi last outcome of a lease that did not complete it, pg progress,
// vi views, vb by which attempt, ck checkpoint, fl failure, yi yielded at.
type hash map[string]string

func (h hash) int(f string) int {
	n, _ := strconv.Atoi(h[f]) // absent: 0
	return n
}

func (h hash) float(f string) float64 {
	x, _ := strconv.ParseFloat(h[f], 64) // absent: 0
	return x
}

func (h hash) time(f string) time.Time { return at(h.float(f)) }

func (h hash) state() state {
	s, _ := stateOf(h["j"])
	return s
}

func (h hash) fixed() fixed {
	_, m := stateOf(h["j"])
	return fixedOf(m)
}

func at(ms float64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

func (h hash) job() (queue.Job, error) {
	s := h.state()
	j := queue.Job{
		Status: s.status, Attempt: int(s.attempt), Failures: h.int("fa"), Crashes: h.int("cr"), LeaseID: s.lease, Worker: s.worker,
		Submitted: at(s.submitted), Started: at(s.started), Ended: at(s.ended), Estimate: s.estimate, Used: s.used, ViewsBy: h["vb"],
		CrashedBy: crash.List(h["cw"]),
	}
	switch j.Status {
	case queue.Scheduled:
		j.NotBefore = at(s.due)
	case queue.Leased:
		j.Deadline = at(s.due)
	}
	type part struct {
		s string
		v any
	}
	parts := []part{{h["r"], &j.Request}, {h["vi"], &j.Views}, {h["ck"], &j.Check}, {h["re"], &j.Result}}
	if j.Status != queue.Done { // of the attempts before
		parts = append(parts, part{h["pg"], &j.Progress}, part{h["fl"], &j.Failure})
	}
	for _, f := range parts {
		if err := decode(f.s, f.v); err != nil {
			return j, err
		}
	}
	return j, nil
}

// rareFields are the fields of the hash that the lease script answers with.
var rareFields = strings.Fields("fa cr vi vb ck fl")

// leased reads the answer of the lease script: the job's id and what is stored of it.
func leased(v any) (string, hash) {
	if s, ok := v.(string); ok {
		id, s, _ := strings.Cut(s, "\n")
		_, r := stateOf(s)
		return id, hash{"j": s[:len(s)-len(r)], "r": r}
	}
	l, _ := v.([]any)
	h := hash{}
	for i, f := range append([]string{"id", "j", "r"}, rareFields...) {
		if i < len(l) {
			h[f] = text(l[i])
		}
	}
	return h["id"], h
}

// split returns a request as the job's hash keeps it: as JSON, and its fixed parts.
func split(r *queue.Request) ([]byte, fixed, error) {
	b := r.AppendJSON(make([]byte, 0, 512))
	if len(b) > queue.MaxPayload {
		return nil, fixed{}, queue.NewError(queue.CodeTooLarge, "The request is too large.")
	}
	if len(r.Batch) > queue.MaxKey {
		return nil, fixed{}, queue.NewError(queue.CodeInvalid, "The batch's id is too long.")
	}
	pool := r.Pool()
	f := fixed{class: string(r.Class), pool: pool, sort: pool + " " + string(r.Quality), fingerprint: r.Fingerprint(),
		batch: r.Batch, user: r.Requester.User(), origin: string(r.Origin.AppendJSON(make([]byte, 0, 128))), nonce: rand.Text()[:12]}
	if r.Batch != "" {
		f.line = strconv.FormatInt(r.Line, 10)
	}
	if r.Private {
		f.private = "1"
	}
	return b, f, nil
}
