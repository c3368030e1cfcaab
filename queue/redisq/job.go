package redisq

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"dreamcad/queue"
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

// hash is a job's hash; the names are short because a million jobs carry them:
// r request, m what never changes (see [fixed]), st status, hd held, sq sequence, sb submitted, sa started, en ended, nb not before,
// dl deadline, at attempt, fa failures, cr crashes, di deaths in a row, cw who
// crashed, li lease id, fi last outcome of a lease, wk worker, wn its name,
// bs beside, pg progress, vi views, vb by which attempt, ck checkpoint,
// fl failure, re result, es estimate, ch charged, ud used, ev last event,
// as asked to yield, yi yielded at, qt quotas, sn nonce of the submit.
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

func at(ms float64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

func (h hash) job() (queue.Job, error) {
	j := queue.Job{
		Status: queue.Status(h["st"]), Attempt: h.int("at"), Failures: h.int("fa"), Crashes: h.int("cr"), LeaseID: h["li"], Worker: h["wk"],
		Submitted: h.time("sb"), Started: h.time("sa"), Ended: h.time("en"), Estimate: h.float("es"), Used: h.float("ud"), ViewsBy: h["vb"],
	}
	switch j.Status {
	case queue.Scheduled:
		j.NotBefore = h.time("nb")
	case queue.Leased:
		j.Deadline = h.time("dl")
	}
	for _, f := range []struct {
		s string
		v any
	}{{h["r"], &j.Request}, {h["pg"], &j.Progress}, {h["vi"], &j.Views}, {h["ck"], &j.Check}, {h["fl"], &j.Failure}, {h["re"], &j.Result}} {
		if err := decode(f.s, f.v); err != nil {
			return j, err
		}
	}
	return j, nil
}

// leaseFields are the fields that the lease script answers with.
var leaseFields = strings.Fields("st m sq hd sa at li fi qt ch ud ev as r sb fa cr vi vb ck fl re wk es dl")

// leased reads the answer of the lease script.
func leased(reply any) hash {
	v, _ := reply.([]any)
	h := make(hash, len(v))
	for i, f := range leaseFields[:min(len(v), len(leaseFields))] {
		if s := text(v[i]); s != "" {
			h[f] = s
		}
	}
	return h
}

// fixed are the parts of a job that the scripts need and that never change; in
// the field m they stand a line each, in this order.
type fixed struct{ class, pool, sort, batch, line, private, user, origin, fingerprint string }

// head and tail together are the field; events take over the tail.
func (f *fixed) head() string {
	return f.class + "\n" + f.pool + "\n" + f.sort + "\n" + f.batch + "\n" + f.line + "\n"
}

func (f *fixed) tail() string {
	return f.private + "\n" + f.user + "\n" + f.origin + "\n" + f.fingerprint
}

func (h hash) fixed() (f fixed) {
	v := strings.SplitN(h["m"], "\n", 9)
	for i, p := range []*string{&f.class, &f.pool, &f.sort, &f.batch, &f.line, &f.private, &f.user, &f.origin, &f.fingerprint} {
		if i < len(v) {
			*p = v[i]
		}
	}
	return f
}

// split returns a request as the job's hash keeps it: as JSON, and its fixed parts.
func split(r *queue.Request) (string, fixed, error) {
	b, err := json.Marshal(r)
	if err != nil || len(b) > queue.MaxPayload {
		return "", fixed{}, queue.NewError(queue.CodeTooLarge, "The request is too large.")
	}
	f := fixed{class: string(r.Class), pool: r.Pool(), sort: r.Pool() + " " + string(r.Quality), fingerprint: r.Fingerprint(),
		batch: r.Batch, user: r.Requester.User(), origin: encode(r.Origin)}
	if r.Batch != "" {
		f.line = strconv.FormatInt(r.Line, 10)
	}
	if r.Private {
		f.private = "1"
	}
	return string(b), f, nil
}
