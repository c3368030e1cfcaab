package redisq

import (
	"encoding/json"
	"strconv"
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
// r request, st status, cl class, po pool, so sort, us user, ba batch, ln line,
// hd held, sq sequence, sb submitted, sa started, en ended, nb not before,
// dl deadline, at attempt, fa failures, cr crashes, di deaths in a row, cw who
// crashed, li lease id, fi last outcome of a lease, wk worker, wn its name,
// bs beside, pg progress, vi views, vb by which attempt, ck checkpoint,
// fl failure, re result, es estimate, ch charged, ud used, ev last event,
// as asked to yield, yi yielded at, qt quotas, fp fingerprint, or origin,
// pv private, sn nonce of the submit.
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

// pairs turns a flat reply into a map.
func pairs(v []any) hash {
	h := make(hash, len(v)/2)
	for i := 0; i+1 < len(v); i += 2 {
		h[text(v[i])] = text(v[i+1])
	}
	return h
}

// parts of a request as the scripts take them.
type parts struct{ req, fp, pool, sort, origin, private string }

func split(r *queue.Request) (parts, error) {
	b, err := json.Marshal(r)
	if err != nil || len(b) > queue.MaxPayload {
		return parts{}, queue.NewError(queue.CodeTooLarge, "The request is too large.")
	}
	p := parts{req: string(b), fp: r.Fingerprint(), pool: r.Pool(), sort: r.Pool() + " " + string(r.Quality), origin: encode(r.Origin)}
	if r.Private {
		p.private = "1"
	}
	return p, nil
}
