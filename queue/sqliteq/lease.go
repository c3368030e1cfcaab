package sqliteq

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/internal/order"
)

// Lease implements [queue.Leaser].
func (q *Queue) Lease(ctx context.Context, c queue.Capabilities) (*queue.Lease, error) {
	var l *queue.Lease
	err := q.await(ctx, c.Wait, func() (bool, error) {
		err := q.write(ctx, "lease", func(t *tx) (err error) {
			l, err = t.lease(&c)
			return err
		})
		return l != nil, err
	})
	if l != nil && ctx.Err() != nil { // nobody will take it: give it back
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return nil, errors.Join(ctx.Err(), q.GiveBack(back, l.Ref(), queue.GiveBackOptions{Reason: queue.Returned}))
	}
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, &queue.Error{Code: queue.CodeEmpty, Doing: "lease"}
	}
	return l, nil
}

// switched reports whether a switch is on.
func (t *tx) switched(s queue.Scope, name string) bool {
	var n int
	return t.get("SELECT 1 FROM switches WHERE scope=? AND name=?", s, name)(&n)
}

type candidate struct {
	pool, user string
	vt         float64
	seq        int64
}

func (t *tx) lease(c *queue.Capabilities) (*queue.Lease, error) {
	t.register(c)
	if t.switched(queue.AllJobs, "") || t.switched(queue.OfWorker, c.Name) {
		return nil, t.err
	}
	for _, class := range t.classOrder(c) {
		if t.switched(queue.OfClass, class) {
			continue
		}
		if best := t.first(class, c.Pools()); best != nil {
			return t.take(class, best, c)
		}
	}
	return nil, t.err
}

// classOrder is interactive, bulk; but bulk first at every n-th lease once its
// oldest job has waited too long.
func (t *tx) classOrder(c *queue.Capabilities) []string {
	var out []string
	for _, k := range queue.Classes {
		if len(c.Classes) == 0 || slices.Contains(c.Classes, k) {
			out = append(out, string(k))
		}
	}
	if len(out) == 2 {
		var oldest int64
		if t.get("SELECT waiting FROM jobs WHERE class=? AND status='queued' AND held=0 ORDER BY waiting LIMIT 1", queue.Bulk)(&oldest) &&
			t.now-oldest > t.q.cfg.BulkAfter.Milliseconds() && int(t.counter("leases")+1)%t.q.cfg.BulkEvery == 0 {
			slices.Reverse(out)
		}
	}
	return out
}

// first finds the user with the least virtual time over the pools; the older
// job decides between equals.
func (t *tx) first(class string, pools []string) *candidate {
	var best *candidate
	for _, pool := range pools {
		for _, k := range each(t, func(rs *sql.Rows, k *candidate) error { return rs.Scan(&k.user, &k.vt) },
			"SELECT user,vt FROM lines WHERE class=? AND pool=? AND parked=0 ORDER BY vt LIMIT 8", class, pool) {
			if best != nil && k.vt > best.vt {
				break
			}
			k.pool = pool
			t.get("SELECT seq FROM jobs WHERE class=? AND pool=? AND user=? AND status='queued' AND held=0 ORDER BY seq LIMIT 1", class, pool, k.user)(&k.seq)
			if best == nil || k.vt < best.vt || k.seq < best.seq {
				best = &k
			}
		}
	}
	return best
}

func (t *tx) take(class string, k *candidate, c *queue.Capabilities) (*queue.Lease, error) {
	rs := each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE seq=?", k.seq)
	if t.err != nil || len(rs) == 0 {
		return nil, t.err
	}
	r := &rs[0]
	t.fromLine(r)
	if k.vt > t.floor(class) {
		t.exec("INSERT OR REPLACE INTO counters(name,n) VALUES(?,?)", "floor/"+class, k.vt)
	}
	r.status, r.lease, r.worker, r.wname, r.beside = string(queue.Leased), queue.NewFence(), c.Worker, c.Name, c.Beside
	r.attempt++
	r.started, r.deadline = t.now, t.now+t.q.cfg.Lease.Milliseconds()
	r.est = t.estimate(r)
	r.eta = t.now + int64(r.est*1000)
	r.charged = r.est
	r.progress, r.waiting = "", 0
	t.charge(r.user, r.class, r.est)
	t.userAdd(r.user, 0, 1)
	t.count("leases", 1)
	t.event(r, &queue.Event{Kind: queue.EventStarted})
	t.save(r)
	j, err := r.public()
	if err != nil {
		return nil, err
	}
	return &queue.Lease{Job: j, ID: r.lease, Deadline: at(r.deadline), TTL: t.q.cfg.Lease, Heartbeat: t.q.cfg.Heartbeat}, t.err
}

// register keeps the list of live workers.
func (t *tx) register(c *queue.Capabilities) {
	if c.Name == "" || c.Beside {
		return
	}
	info := queue.WorkerInfo{Name: c.Name, Worker: c.Worker, Pools: c.Pools(), Device: c.Device}
	t.exec("INSERT INTO workers(name,worker,info,seen) VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET worker=excluded.worker, info=excluded.info, seen=excluded.seen", c.Name, c.Worker, encode(info), t.now)
}

// holder loads the job if ref holds its lease. Otherwise the error says why not.
func (t *tx) holder(ref queue.Ref) (*row, error) {
	r := t.job(ref.Job)
	switch {
	case t.err != nil:
		return nil, t.err
	case r != nil && r.status == string(queue.Leased) && r.lease == ref.Lease:
		return r, nil
	case r != nil && r.status == string(queue.Cancelled) && r.lease == ref.Lease:
		return r, &queue.Error{Code: queue.CodeCancelled, Doing: "check lease of " + ref.Job}
	}
	return r, &queue.Error{Code: queue.CodeLost, Doing: "check lease of " + ref.Job}
}

// Heartbeat implements [queue.Leaser].
func (q *Queue) Heartbeat(ctx context.Context, ref queue.Ref, b queue.Beat) (queue.Answer, error) {
	var a queue.Answer
	err := q.write(ctx, "heartbeat", func(t *tx) error {
		r, err := t.holder(ref)
		switch queue.CodeOf(err) {
		case queue.CodeCancelled:
			a.Directive = queue.StopCancel
			return nil
		case queue.CodeLost:
			a.Directive = queue.StopLost
			return nil
		}
		if err != nil {
			return err
		}
		r.deadline = t.now + q.cfg.Lease.Milliseconds()
		t.exec("UPDATE workers SET seen=? WHERE name=? AND worker=?", t.now, r.wname, r.worker)
		t.beat(r, &b)
		a = queue.Answer{Directive: t.directive(r), Deadline: at(r.deadline), TTL: q.cfg.Lease}
		t.save(r)
		return nil
	})
	return a, err
}

func (t *tx) beat(r *row, b *queue.Beat) {
	if b.Checkpoint != nil {
		r.ckpt = encode(b.Checkpoint)
	}
	if b.Views != nil {
		r.views, r.viewsby = encode(b.Views), r.lease
		t.event(r, &queue.Event{Kind: queue.EventViews, Stage: queue.StageViews, Files: b.Views})
	}
	if p := b.Progress; p != nil {
		p.Message = order.Cut(p.Message, queue.MaxProgress/2)
		s := encode(p)
		if p.Remaining > 0 {
			r.eta = t.now + int64(p.Remaining*1000)
		}
		if s != r.progress && !b.Quiet {
			t.event(r, &queue.Event{Kind: queue.EventProgress, Stage: p.Stage, Step: p.Step, Total: p.Total, Message: p.Message, Remaining: p.Remaining})
		}
		r.progress = s
	}
}

// directive decides what the holder of r hears.
func (t *tx) directive(r *row) queue.Directive {
	if t.switched(queue.OfWorker, r.wname) {
		return queue.DrainWorker
	}
	if r.class != string(queue.Bulk) {
		return queue.GoOn
	}
	if r.asked == r.lease {
		return queue.YieldBulk
	}
	if r.yielded > 0 && t.now-r.yielded < t.q.cfg.YieldGap.Milliseconds() || !t.mustYield(r) {
		return queue.GoOn
	}
	r.asked, r.yielded = r.lease, t.now
	return queue.YieldBulk
}

// mustYield says whether more interactive jobs wait that this worker could
// run than slots will come free soon.
func (t *tx) mustYield(r *row) bool {
	if t.switched(queue.AllJobs, "") || t.switched(queue.OfClass, string(queue.Interactive)) {
		return false
	}
	var info string
	var w queue.WorkerInfo
	t.get("SELECT info FROM workers WHERE name=?", r.wname)(&info)
	if decode(info, &w) != nil || len(w.Pools) == 0 {
		return false
	}
	var waiting, soon int64
	var oldest sql.NullInt64
	in := "(?" + strings.Repeat(",?", len(w.Pools)-1) + ")"
	args := []any{queue.Interactive}
	for _, p := range w.Pools {
		args = append(args, p)
	}
	t.get("SELECT COALESCE(SUM(n),0) FROM lines WHERE class=? AND parked=0 AND pool IN "+in, args...)(&waiting)
	if waiting == 0 {
		return false
	}
	t.get("SELECT waiting FROM jobs WHERE class=? AND status='queued' AND held=0 ORDER BY waiting LIMIT 1", queue.Interactive)(&oldest)
	if t.now-oldest.Int64 < t.q.cfg.YieldAfter.Milliseconds() {
		return false
	}
	t.get("SELECT COUNT(*) FROM jobs WHERE status='leased' AND seq<>? AND (asked=lease OR eta BETWEEN ? AND ?)", r.seq, t.now, t.now+t.q.cfg.YieldHorizon.Milliseconds())(&soon)
	return waiting > soon
}
