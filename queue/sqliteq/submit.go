package sqliteq

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/internal/refuse"
)

// Submit implements [queue.Submitter]. Requests that wait for the file's one
// writer at the same time share a transaction: a hundred at once cost one sync.
func (q *Queue) Submit(ctx context.Context, r queue.Request, quotas ...queue.Quota) (queue.Receipt, error) {
	if err := r.Normalise(); err != nil {
		return queue.Receipt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.cfg.SubmitBudget)
	defer cancel()
	s := &submission{ctx: ctx, r: &r, quotas: quotas, done: make(chan struct{})}
	turn, stop := context.WithCancel(ctx)
	defer stop()
	s.stop = stop
	q.mu.Lock()
	q.line = append(q.line, s)
	q.mu.Unlock()
	for waits := true; waits; {
		c, err := q.w.take(turn)
		if err == nil {
			err = q.submitLine(ctx, c)
			q.w.give(c)
		}
		q.mu.Lock()
		i := slices.Index(q.line, s) // < 0: this or another's transaction took it along
		waits = i >= 0
		if waits && err != nil {
			q.line = slices.Delete(q.line, i, i+1)
			q.mu.Unlock()
			return queue.Receipt{}, wrap("submit", err)
		}
		q.mu.Unlock()
	}
	<-s.done
	return s.receipt, s.err
}

// submission is a request that waits for the writer.
type submission struct {
	ctx    context.Context
	r      *queue.Request
	quotas []queue.Quota
	stop   func() // ends its waiting
	// Set when done is closed.
	receipt queue.Receipt
	err     error
	done    chan struct{}
}

// submitLine writes all who wait in one transaction; ctx ends the waiting for
// other processes. Its error is for a request that still waits.
func (q *Queue) submitLine(ctx context.Context, c *conn) error {
	q.mu.Lock()
	n := len(q.line)
	q.mu.Unlock()
	if n == 0 {
		return nil // another took the caller along
	}
	var taken []*submission
	err := q.transact(c, ctx, context.WithoutCancel(ctx), "submit", func(t *tx) error {
		q.mu.Lock()
		n := min(len(q.line), groupSize)
		taken = append(taken, q.line[:n]...)
		q.line = slices.Delete(q.line, 0, n)
		q.mu.Unlock()
		for _, s := range taken {
			if s.err = s.ctx.Err(); s.err == nil {
				s.receipt, s.err = t.submit(s.r, s.quotas, false)
			}
			if t.err != nil {
				return t.err
			}
		}
		return nil
	})
	for _, s := range taken {
		if s.err == nil {
			s.err = err
		}
		if s.err = wrap("submit", s.err); s.err != nil {
			s.receipt = queue.Receipt{}
		}
		s.stop()
		close(s.done)
	}
	return err
}

// groupSize bounds how many requests share a transaction.
const groupSize = 200

// SubmitMany implements [queue.Submitter]: up to groupSize requests share a transaction.
func (q *Queue) SubmitMany(ctx context.Context, rs []queue.Request) ([]queue.Receipt, []error) {
	out, errs := make([]queue.Receipt, len(rs)), make([]error, len(rs))
	for lo := 0; lo < len(rs); lo += groupSize {
		hi := min(lo+groupSize, len(rs))
		err := q.write(ctx, "submit many", func(t *tx) error {
			for i := lo; i < hi; i++ {
				r := rs[i]
				if errs[i] = r.Normalise(); errs[i] != nil {
					continue
				}
				out[i], errs[i] = t.submit(&r, nil, false)
				if t.err != nil {
					return t.err
				}
			}
			return nil
		})
		for i := lo; i < hi && err != nil; i++ {
			out[i], errs[i] = queue.Receipt{}, err
		}
	}
	return out, errs
}

func (t *tx) known(r *queue.Request) (queue.Receipt, bool) {
	id := r.ID
	if r.Key != "" {
		t.get("SELECT job FROM keys WHERE key=? AND until>?", r.Key, t.now)(&id)
	}
	var st string
	if t.get("SELECT status FROM jobs WHERE id=?", id)(&st) {
		return queue.Receipt{ID: id, Status: queue.Status(st)}, true
	}
	if id != r.ID { // the job is pruned, the key still knows it
		return queue.Receipt{ID: id, Status: queue.Done}, true
	}
	return queue.Receipt{}, false
}

// submit enqueues one request; r is normalised. fed requests come from a
// batch's feeder and are not limited.
func (t *tx) submit(r *queue.Request, quotas []queue.Quota, fed bool) (queue.Receipt, error) {
	if rc, ok := t.known(r); ok || t.err != nil {
		return rc, t.err
	}
	b, err := json.Marshal(r)
	if err != nil || len(b) > queue.MaxPayload {
		return queue.Receipt{}, queue.NewError(queue.CodeTooLarge, "The request is too large.")
	}
	x := row{id: r.ID, req: string(b), fp: r.Fingerprint(), class: string(r.Class), pool: r.Pool(), sort: r.Pool() + " " + string(r.Quality),
		user: r.Requester.User(), batch: r.Batch, line: r.Line}
	if err := t.admit(&x, quotas, fed); err != nil {
		return queue.Receipt{}, err
	}
	if len(quotas) > 0 {
		x.quotas = encode(quotas)
	}
	t.exec(`INSERT INTO jobs(id,rid,req,fp,class,pool,sort,user,batch,line,quotas,status,submitted) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		x.id, reverse(x.id), x.req, x.fp, x.class, x.pool, x.sort, x.user, x.batch, x.line, x.quotas, queue.Queued, t.now)
	t.get("SELECT seq FROM jobs WHERE id=?", x.id)(&x.seq)
	t.toLine(&x)
	if r.Key != "" {
		t.exec("INSERT OR REPLACE INTO keys(key,job,until) VALUES(?,?,?)", r.Key, r.ID, t.now+t.q.cfg.KeyLife.Milliseconds())
	}
	t.count("submitted", 1)
	t.event(&x, &queue.Event{Kind: queue.EventAccepted, Stage: queue.StageQueued})
	t.save(&x)
	return queue.Receipt{ID: x.id, New: true, Status: queue.Queued}, t.err
}

// admit checks quarantine, limits and quotas, and reserves the latter.
func (t *tx) admit(x *row, quotas []queue.Quota, fed bool) error {
	var by string
	if t.get("SELECT job FROM poison WHERE fp=?", x.fp)(&by) && !fed {
		return refuse.Poisoned(by)
	}
	if x.batch == "" {
		var queued int
		t.get("SELECT queued FROM users WHERE user=?", x.user)(&queued)
		if lim := t.q.cfg.QueuedPerUser; lim > 0 && queued >= lim {
			return refuse.TooManyQueued(lim)
		}
		if lim := t.q.cfg.QueuedTotal; lim > 0 && t.counter("queued_total") >= float64(lim) {
			return refuse.QueueFull()
		}
	}
	for _, qu := range quotas {
		n, err := t.sum("quota/"+qu.Key, 0, 0, 0)
		if err != nil {
			return err
		}
		if n+qu.Cost > qu.Limit {
			return refuse.OverQuota(qu)
		}
	}
	for _, qu := range quotas {
		if _, err := t.sum("quota/"+qu.Key, qu.Cost, 0, qu.Life); err != nil {
			return err
		}
	}
	return t.err
}

// sum adds to a counter with a life.
func (t *tx) sum(key string, delta, limit int64, life time.Duration) (int64, error) {
	var n, until int64
	known := t.get("SELECT n,until FROM sums WHERE key=?", key)(&n, &until)
	if known && until > 0 && until <= t.now {
		t.exec("DELETE FROM sums WHERE key=?", key)
		known, n = false, 0
	}
	if limit > 0 && n+delta > limit {
		return n, &queue.Error{Code: queue.CodeQuota, Doing: fmt.Sprintf("add %d to %q", delta, key)}
	}
	switch {
	case delta == 0:
	case known:
		t.exec("UPDATE sums SET n=n+? WHERE key=?", delta, key)
	default:
		t.exec("INSERT INTO sums(key,n,until) VALUES(?,?,?)", key, delta, t.until(life))
	}
	return n + delta, t.err
}

// until is the end of a life from now; 0 for none.
func (t *tx) until(life time.Duration) int64 {
	if life <= 0 {
		return 0
	}
	return t.now + max(life.Milliseconds(), 1)
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// Cancel implements [queue.Submitter].
func (q *Queue) Cancel(ctx context.Context, id string) (queue.Status, error) {
	var st queue.Status
	err := q.write(ctx, "cancel "+id, func(t *tx) error {
		r := t.job(id)
		if r == nil {
			t.fail(queue.NotFound("job", id))
			return t.err
		}
		st = queue.Status(r.status)
		if st == queue.Cancelled {
			return nil
		}
		if st.Terminal() {
			return refuse.AlreadyOver(st)
		}
		t.cancel(r)
		st = queue.Cancelled
		return nil
	})
	return st, err
}

func (t *tx) cancel(r *row) {
	switch queue.Status(r.status) {
	case queue.Queued:
		t.fromLine(r)
	case queue.Scheduled:
		t.waits(r, -1)
	case queue.Leased:
		t.unlease(r, 0)
	}
	t.end(r, queue.Cancelled, &queue.Event{Kind: queue.EventCancelled})
	t.save(r)
}
