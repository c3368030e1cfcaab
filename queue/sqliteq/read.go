package sqliteq

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"dreamcad/queue"
	"dreamcad/queue/internal/order"
	"dreamcad/queue/internal/refuse"
)

// Job implements [queue.Reader].
func (q *Queue) Job(ctx context.Context, id string) (queue.Job, error) {
	var j queue.Job
	err := q.read(ctx, "read job "+id, func(t *tx) error {
		r := t.job(id)
		if r == nil {
			t.fail(queue.NotFound("job", id))
			return t.err
		}
		var err error
		j, err = r.public()
		return err
	})
	return j, err
}

// Resolve implements [queue.Reader].
func (q *Queue) Resolve(ctx context.Context, ending string) (string, error) {
	var ids []string
	err := q.read(ctx, "resolve "+ending, func(t *tx) error {
		if t.get("SELECT id FROM jobs WHERE id=?", ending)(new(string)) {
			ids = []string{ending}
			return nil
		}
		rid := reverse(ending)
		ids = each(t, one[string], "SELECT id FROM jobs WHERE rid>=? AND rid<? LIMIT 2", rid, rid+"\x7f")
		return nil
	})
	if err != nil {
		return "", err
	}
	return refuse.PickID(ending, ids)
}

// List implements [queue.Reader].
func (q *Queue) List(ctx context.Context, f queue.Filter) ([]queue.Job, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, 1000)
	where, args, by := []string{}, []any{}, "seq DESC"
	switch {
	case f.User != "":
		where, args = append(where, "user=? AND batch=''"), append(args, f.User)
	case f.Batch != "":
		where, args = append(where, "batch=?"), append(args, f.Batch)
	}
	if len(f.Status) > 0 {
		where = append(where, "status IN (?"+strings.Repeat(",?", len(f.Status)-1)+")")
		for _, s := range f.Status {
			args = append(args, s)
		}
	}
	sel := "SELECT " + rowColumns + " FROM jobs"
	if len(where) > 0 {
		sel += " WHERE " + strings.Join(where, " AND ")
	}
	var out []queue.Job
	err := q.read(ctx, "list jobs", func(t *tx) error {
		for _, r := range each(t, scanRow, sel+" ORDER BY "+by+" LIMIT ? OFFSET ?", append(args, limit, f.Offset)...) {
			j, err := r.public()
			if err != nil {
				return err
			}
			out = append(out, j)
		}
		return nil
	})
	return out, err
}

// liveWorkers are those heard of within three leases.
func (t *tx) liveWorkers() []queue.WorkerInfo {
	var out []queue.WorkerInfo
	type w struct {
		info string
		seen int64
	}
	for _, x := range each(t, func(rs *sql.Rows, v *w) error { return rs.Scan(&v.info, &v.seen) },
		"SELECT info,seen FROM workers WHERE seen>=? ORDER BY name LIMIT 1000", t.now-max(t.q.cfg.Lease.Milliseconds()*3, 15000)) {
		var i queue.WorkerInfo
		t.fail(decode(x.info, &i))
		i.Seen, i.Drain = at(x.seen), t.switched(queue.OfWorker, i.Name)
		out = append(out, i)
	}
	return out
}

// heldBy names the switch that keeps r from being leased.
func (t *tx) heldBy(r *row) string {
	switch {
	case t.switched(queue.AllJobs, ""):
		return "queue"
	case t.switched(queue.OfClass, r.class):
		return "class " + r.class
	case t.switched(queue.OfUser, r.user):
		return "user"
	case r.held:
		return "batch"
	}
	return ""
}

// Place implements [queue.Reader].
func (q *Queue) Place(ctx context.Context, id string) (queue.Place, error) {
	var p queue.Place
	err := q.read(ctx, "place of "+id, func(t *tx) error {
		r := t.job(id)
		if r == nil {
			t.fail(queue.NotFound("job", id))
			return t.err
		}
		if r.status != string(queue.Queued) {
			p.Status = queue.Status(r.status)
			s := order.Snapshot{Samples: t.samples(r.sort)}
			p.RunLow, p.RunHigh, p.Known = s.Run()
			return nil
		}
		p = t.place(r)
		p.Paused = t.heldBy(r)
		return nil
	})
	return p, err
}

const maxOthers = 1000

func (t *tx) place(r *row) queue.Place {
	s := order.Snapshot{Samples: t.samples(r.sort), Weight: 1}
	t.get("SELECT vt FROM shares WHERE user=? AND class=?", r.user, r.class)(&s.VT)
	t.get("SELECT weight FROM users WHERE user=?", r.user)(&s.Weight)
	t.get("SELECT COUNT(*) FROM jobs WHERE class=? AND pool=? AND user=? AND status='queued' AND held=0 AND seq<?", r.class, r.pool, r.user, r.seq)(&s.Ahead)
	s.Cost = t.estimate(r)
	s.Others = each(t, func(rs *sql.Rows, u *order.User) error { return rs.Scan(&u.VT, &u.Queued, &u.Weight) },
		"SELECT l.vt,l.n,COALESCE(u.weight,1) FROM lines l LEFT JOIN users u ON u.user=l.user WHERE l.class=? AND l.pool=? AND l.parked=0 AND l.user<>? ORDER BY l.vt LIMIT ?", r.class, r.pool, r.user, maxOthers)
	s.More = len(s.Others) == maxOthers
	if r.class == string(queue.Bulk) {
		t.get("SELECT COALESCE(SUM(n),0) FROM lines WHERE class=? AND pool=? AND parked=0", queue.Interactive, r.pool)(&s.Prior)
	}
	for _, w := range t.liveWorkers() {
		for _, p := range w.Pools {
			if p == r.pool && !w.Drain {
				s.Slots++
			}
		}
	}
	type lease struct {
		eta   int64
		class queue.Class
	}
	for _, l := range each(t, func(rs *sql.Rows, l *lease) error { return rs.Scan(&l.eta, &l.class) },
		"SELECT eta,class FROM jobs WHERE status='leased' AND beside=0 LIMIT 1000") {
		s.Running = append(s.Running, max(float64(l.eta-t.now)/1000, 0))
		s.Yielding = append(s.Yielding, l.class == queue.Bulk && r.class == string(queue.Interactive))
	}
	s.Yield = t.q.cfg.YieldWithin().Seconds()
	return s.Place()
}

// Stats implements [queue.Reader].
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	s := refuse.NewStats("sqlite " + q.path)
	err := q.read(ctx, "stats", func(t *tx) error {
		s.Now = at(t.now)
		for _, c := range queue.Classes {
			var n, users, oldest int64
			t.get("SELECT COUNT(*), COALESCE(MIN(waiting),0) FROM jobs WHERE status='queued' AND class=? AND held=0", c)(&n, &oldest)
			t.get("SELECT COUNT(DISTINCT user) FROM lines WHERE class=?", c)(&users)
			s.Queued[c], s.Users[c] = n, users
			if n > 0 {
				s.Oldest[c] = queue.Age(float64(t.now-oldest) / 1000)
			}
		}
		for _, c := range queue.Classes { // jobs of paused batches wait too
			var n int64
			t.get("SELECT COUNT(*) FROM jobs WHERE status='queued' AND class=? AND held=1", c)(&n)
			s.Queued[c] += n
		}
		t.get("SELECT COUNT(*) FROM jobs WHERE status='scheduled'")(&s.Scheduled)
		t.get("SELECT COUNT(*) FROM jobs WHERE status='leased'")(&s.Leased)
		t.get("SELECT COUNT(*) FROM jobs WHERE status='leased' AND deadline<?", t.now)(&s.Overdue)
		for _, st := range queue.Statuses {
			if st.Terminal() {
				var n int64
				t.get("SELECT COUNT(*) FROM jobs WHERE status=?", st)(&n)
				s.Ended[st] = n
			}
		}
		s.Workers = t.liveWorkers()
		s.Switches = each(t, func(rs *sql.Rows, w *queue.Switch) error {
			var ms int64
			err := rs.Scan(&w.Scope, &w.Name, &w.Why, &ms)
			w.Since = at(ms)
			return err
		}, "SELECT scope,name,why,since FROM switches ORDER BY since")
		type kv struct {
			k string
			n float64
		}
		pair := func(rs *sql.Rows, v *kv) error { return rs.Scan(&v.k, &v.n) }
		for _, c := range each(t, pair, "SELECT name,n FROM counters") {
			if !strings.HasPrefix(c.k, "floor/") && c.k != "queued_total" {
				s.Counters[c.k] = int64(c.n)
			}
		}
		for _, c := range each(t, pair, "SELECT consumer,(SELECT COUNT(*) FROM stream WHERE id>pos) FROM cursors") {
			s.Outbox[c.k] = int64(c.n)
		}
		for _, k := range each(t, one[string], "SELECT DISTINCT sort FROM durations LIMIT 200") {
			v := t.samples(k)
			s.Durations[k] = queue.DurationFit{Samples: len(v), P50: order.Quantile(v, .5), P90: order.Quantile(v, .9)}
		}
		return nil
	})
	return s, err
}

// Check implements [queue.Checker].
func (q *Queue) Check(ctx context.Context) []queue.Finding {
	var mode, integrity string
	var version, synced int
	err := q.write(ctx, "check", func(t *tx) error {
		t.get("PRAGMA journal_mode")(&mode)
		t.get("PRAGMA synchronous")(&synced)
		t.get("PRAGMA user_version")(&version)
		return nil
	})
	if err == nil {
		err = q.read(ctx, "check", func(t *tx) error {
			t.get("PRAGMA quick_check(1)")(&integrity)
			return nil
		})
	}
	if err != nil {
		return []queue.Finding{{Code: "queue", Title: "queue file", Severity: queue.Critical,
			Text: fmt.Sprintf("The queue file %s cannot be used: %v. Check its owner, the disk and that it is not on a network file system.", q.path, err)}}
	}
	out := []queue.Finding{{Code: "queue", Title: "queue file", Severity: queue.Info, Text: fmt.Sprintf("%s, schema %d", q.path, version)}}
	if integrity != "ok" {
		out = append(out, queue.Finding{Code: "integrity", Title: "queue file is damaged", Severity: queue.Critical,
			Text: fmt.Sprintf("SQLite reports %q for %s: stop the service, keep a copy and restore the file.", integrity, q.path)})
	}
	if mode != "wal" {
		out = append(out, queue.Finding{Code: "journal", Title: "no write-ahead log", Severity: queue.Warning,
			Text: fmt.Sprintf("The file system of %s does not carry SQLite's write-ahead log (journal mode %s); put the data directory on a local disk.", q.path, mode)})
	}
	if synced < 2 {
		out = append(out, queue.Finding{Code: "synchronous", Title: "not durable", Severity: queue.Warning,
			Text: "The queue file is written without fsync: a power cut can lose acknowledged requests."})
	}
	return out
}

// Audit implements [queue.Auditor].
func (q *Queue) Audit(ctx context.Context) ([]string, error) {
	var out []string
	err := q.read(ctx, "audit", func(t *tx) error {
		for _, c := range []struct{ what, query string }{
			{"line count differs from its jobs", `SELECT l.class||' '||l.pool||' '||l.user FROM lines l WHERE n<>(SELECT COUNT(*) FROM jobs j WHERE j.class=l.class AND j.pool=l.pool AND j.user=l.user AND status='queued' AND held=0) OR n<=0`},
			{"queued job without a line", `SELECT id FROM jobs j WHERE status='queued' AND held=0 AND NOT EXISTS(SELECT 1 FROM lines l WHERE l.class=j.class AND l.pool=j.pool AND l.user=j.user)`},
			{"leased job without lease or deadline", `SELECT id FROM jobs WHERE status='leased' AND (lease='' OR deadline=0)`},
			{"deadline on a job that is not leased", `SELECT id FROM jobs WHERE status<>'leased' AND deadline<>0`},
			{"charge left on a job that does not run", `SELECT id FROM jobs WHERE status<>'leased' AND charged<>0`},
			{"held job outside a paused batch", `SELECT j.id FROM jobs j LEFT JOIN batches b ON b.id=j.batch WHERE held=1 AND (status<>'queued' OR b.state IS NOT 'paused')`},
			{"user's queued count is wrong", `SELECT user FROM users u WHERE queued<>(SELECT COUNT(*) FROM jobs j WHERE j.user=u.user AND status IN ('queued','scheduled') AND batch='')`},
			{"user's running count is wrong", `SELECT user FROM users u WHERE running<>(SELECT COUNT(*) FROM jobs j WHERE j.user=u.user AND status='leased')`},
			{"virtual time of line and share differ", `SELECT l.user FROM lines l LEFT JOIN shares s ON s.user=l.user AND s.class=l.class WHERE s.vt IS NOT l.vt`},
			{"batch's count of live jobs is wrong", `SELECT id FROM batches b WHERE out<>(SELECT COUNT(*) FROM jobs j WHERE j.batch=b.id AND status IN ('queued','scheduled','leased'))`},
			{"total of queued jobs is wrong", `SELECT 'queued_total' WHERE COALESCE((SELECT n FROM counters WHERE name='queued_total'),0)<>(SELECT COUNT(*) FROM jobs WHERE batch='' AND status IN ('queued','scheduled'))`},
		} {
			for _, s := range each(t, one[string], c.query+" LIMIT 20") {
				out = append(out, c.what+": "+s)
			}
		}
		return nil
	})
	return out, err
}
