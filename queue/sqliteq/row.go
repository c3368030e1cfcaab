package sqliteq

import (
	"database/sql"
	"encoding/json"
	"math"
	"strings"

	"dreamcad/queue"
	"dreamcad/queue/internal/crash"
	"dreamcad/queue/internal/order"
)

// row is a job as stored.
type row struct {
	seq                                     int64
	id, req, fp, class, pool, sort, user    string
	batch                                   string
	line                                    int64
	quotas, status                          string
	held                                    bool
	submitted, waiting, started, ended      int64
	notbefore, deadline, eta                int64
	attempt, failures, crashes, died        int
	crashers, lease, fin, worker, wname     string
	beside                                  bool
	progress, views, viewsby, ckpt, failure string
	result                                  string
	est, charged, used                      float64
	evseq                                   int
	asked                                   string
	yielded                                 int64
}

const rowColumns = `seq,id,req,fp,class,pool,sort,user,batch,line,quotas,status,held,submitted,waiting,started,ended,notbefore,deadline,eta,
attempt,failures,crashes,died,crashers,lease,fin,worker,wname,beside,progress,views,viewsby,ckpt,failure,result,est,charged,used,evseq,asked,yielded`

func scanRow(rs *sql.Rows, r *row) error {
	return rs.Scan(&r.seq, &r.id, &r.req, &r.fp, &r.class, &r.pool, &r.sort, &r.user, &r.batch, &r.line, &r.quotas, &r.status, &r.held,
		&r.submitted, &r.waiting, &r.started, &r.ended, &r.notbefore, &r.deadline, &r.eta, &r.attempt, &r.failures, &r.crashes, &r.died,
		&r.crashers, &r.lease, &r.fin, &r.worker, &r.wname, &r.beside, &r.progress, &r.views, &r.viewsby, &r.ckpt, &r.failure, &r.result,
		&r.est, &r.charged, &r.used, &r.evseq, &r.asked, &r.yielded)
}

// job loads a row; nil if there is none.
func (t *tx) job(id string) *row {
	rs := each(t, scanRow, "SELECT "+rowColumns+" FROM jobs WHERE id=?", id)
	if len(rs) == 0 {
		return nil
	}
	return &rs[0]
}

// save writes what can change.
func (t *tx) save(r *row) {
	t.exec(`UPDATE jobs SET quotas=?,status=?,held=?,waiting=?,started=?,ended=?,notbefore=?,deadline=?,eta=?,attempt=?,failures=?,crashes=?,died=?,
crashers=?,lease=?,fin=?,worker=?,wname=?,beside=?,progress=?,views=?,viewsby=?,ckpt=?,failure=?,result=?,est=?,charged=?,used=?,evseq=?,asked=?,yielded=? WHERE seq=?`,
		r.quotas, r.status, r.held, r.waiting, r.started, r.ended, r.notbefore, r.deadline, r.eta, r.attempt, r.failures, r.crashes, r.died,
		r.crashers, r.lease, r.fin, r.worker, r.wname, r.beside, r.progress, r.views, r.viewsby, r.ckpt, r.failure, r.result,
		r.est, r.charged, r.used, r.evseq, r.asked, r.yielded, r.seq)
}

func decode(s string, v any) error {
	if s == "" {
		return nil
	}
	return json.Unmarshal([]byte(s), v)
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own plain structs always marshal
	}
	return string(b)
}

// public turns the row into the contract's job.
func (r *row) public() (queue.Job, error) {
	j := queue.Job{
		Status: queue.Status(r.status), Attempt: r.attempt, Failures: r.failures, Crashes: r.crashes, LeaseID: r.lease, Worker: r.worker,
		Submitted: at(r.submitted), Started: at(r.started), Ended: at(r.ended), Estimate: r.est, Used: r.used, ViewsBy: r.viewsby,
		CrashedBy: crash.List(r.crashers),
	}
	if j.Status == queue.Scheduled {
		j.NotBefore = at(r.notbefore)
	}
	if j.Status == queue.Leased {
		j.Deadline = at(r.deadline)
	}
	for _, f := range []struct {
		s string
		v any
	}{{r.req, &j.Request}, {r.progress, &j.Progress}, {r.views, &j.Views}, {r.ckpt, &j.Check}, {r.failure, &j.Failure}, {r.result, &j.Result}} {
		if err := decode(f.s, f.v); err != nil {
			return j, err
		}
	}
	return j, nil
}

// lineAdd changes the count of a user's line and seats the user in the order.
func (t *tx) lineAdd(r *row, delta int64) {
	if t.exec("UPDATE lines SET n=n+? WHERE class=? AND pool=? AND user=?", delta, r.class, r.pool, r.user) == 0 && t.err == nil {
		t.exec("INSERT INTO lines(class,pool,user,n,parked,vt) VALUES(?,?,?,?,?,?)", r.class, r.pool, r.user, delta, t.parked(r.user), t.enter(r.user, r.class))
	} else if delta < 0 {
		t.exec("DELETE FROM lines WHERE class=? AND pool=? AND user=? AND n=0", r.class, r.pool, r.user)
	}
	t.wake = t.wake || delta > 0
}

// parked says whether the user's lines are out of the order: paused, or at
// the limit of running jobs.
func (t *tx) parked(user string) bool {
	var paused, running int
	t.get("SELECT paused,running FROM users WHERE user=?", user)(&paused, &running)
	return paused > 0 || t.q.cfg.RunningPerUser > 0 && running >= t.q.cfg.RunningPerUser
}

// reseat brings the user's lines into or out of the order. Who comes back
// starts at the class's floor at least: no credit from absence.
func (t *tx) reseat(user string) {
	p := t.parked(user)
	if !p {
		for _, c := range queue.Classes {
			t.enter(user, string(c))
		}
	}
	n := t.exec("UPDATE lines SET parked=? WHERE user=? AND parked<>?", p, user, p)
	t.wake = t.wake || n > 0
}

// floor is the virtual time of the user that the class served last.
func (t *tx) floor(class string) float64 { return t.counter("floor/" + class) }

// enter returns the virtual time at which a user without a line joins the
// class: the own one, its debt above the floor decayed, and at least the floor.
func (t *tx) enter(user, class string) float64 {
	var vt float64
	var since int64
	floor := t.floor(class)
	known := t.get("SELECT vt,at FROM shares WHERE user=? AND class=?", user, class)(&vt, &since)
	var waiting int
	t.get("SELECT COUNT(*) FROM lines WHERE user=? AND class=? AND parked=0", user, class)(&waiting)
	if known && waiting > 0 {
		return vt // already in the order with another pool
	}
	if !known || vt < floor {
		vt = floor
	} else if h := t.q.cfg.HalfLife; h > 0 {
		vt = floor + (vt-floor)*math.Exp2(-float64(max(t.now-since, 0))/float64(h.Milliseconds()))
	}
	t.share(user, class, vt)
	return vt
}

func (t *tx) share(user, class string, vt float64) {
	t.exec("INSERT INTO shares(user,class,vt,at) VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET vt=excluded.vt, at=excluded.at", user, class, vt, t.now)
	t.exec("UPDATE lines SET vt=? WHERE user=? AND class=?", vt, user, class)
}

// charge adds GPU-seconds to the user's virtual time; negative ones give back.
func (t *tx) charge(user, class string, sec float64) {
	if sec == 0 {
		return
	}
	var vt float64
	w := 1.0
	t.get("SELECT vt FROM shares WHERE user=? AND class=?", user, class)(&vt)
	t.get("SELECT weight FROM users WHERE user=?", user)(&w)
	t.share(user, class, vt+sec/w)
}

// userAdd changes the user's counts and reseats them if that matters.
func (t *tx) userAdd(user string, queued, running int) {
	t.exec("INSERT INTO users(user,queued,running) VALUES(?,?,?) ON CONFLICT DO UPDATE SET queued=queued+excluded.queued, running=running+excluded.running", user, queued, running)
	if running != 0 && t.q.cfg.RunningPerUser > 0 {
		t.reseat(user)
	}
}

// waits counts r in (+1) or out (-1) of the user's queued jobs; jobs of
// batches are limited by their window instead.
func (t *tx) waits(r *row, n int) {
	if r.batch == "" {
		t.userAdd(r.user, n, 0)
		t.count("queued_total", float64(n))
	}
}

func (t *tx) counter(name string) float64 {
	var n float64
	t.get("SELECT n FROM counters WHERE name=?", name)(&n)
	return n
}

func (t *tx) count(name string, n float64) {
	t.exec("INSERT INTO counters(name,n) VALUES(?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", name, n)
}

// toLine puts a job that has just left another place into its line.
func (t *tx) toLine(r *row) {
	r.status, r.waiting, r.notbefore, r.deadline = string(queue.Queued), t.now, 0, 0
	if r.batch != "" {
		var st string
		t.get("SELECT state FROM batches WHERE id=?", r.batch)(&st)
		r.held = st == string(queue.BatchPaused)
	}
	if !r.held {
		t.lineAdd(r, 1)
	}
	t.waits(r, 1)
}

// fromLine takes a queued job out of its line.
func (t *tx) fromLine(r *row) {
	if !r.held {
		t.lineAdd(r, -1)
	}
	r.held = false
	t.waits(r, -1)
}

// unlease ends the attempt and settles what was charged for it.
func (t *tx) unlease(r *row, used float64) {
	if used <= 0 {
		used = float64(t.now-r.started) / 1000
	}
	t.charge(r.user, r.class, used-r.charged)
	r.used += used
	r.charged, r.deadline, r.eta = 0, 0, 0
	t.userAdd(r.user, 0, -1)
}

// end makes a job that has left its place terminal, with its one event.
func (t *tx) end(r *row, st queue.Status, ev *queue.Event) {
	r.status, r.ended, r.notbefore = string(st), t.now, 0
	if st == queue.Done {
		r.progress = ""
	}
	t.count(string(st), 1)
	var fl queue.Failure
	t.fail(decode(r.failure, &fl))
	if st == queue.Failed && fl.Kind == queue.FailInput {
		t.count("failed_input", 1)
	}
	t.refund(r, st == queue.Failed && fl.Kind != queue.FailInput || st == queue.Quarantined || st == queue.Cancelled && r.attempt == 0)
	if r.batch != "" {
		t.batchEnd(r, st, fl.Sentence)
		return
	}
	t.event(r, ev)
}

// refund gives back what the job reserved: all of it, or what counts live jobs.
func (t *tx) refund(r *row, all bool) {
	if r.quotas == "" {
		return
	}
	var qs, kept []queue.Quota
	t.fail(decode(r.quotas, &qs))
	for _, q := range qs {
		if !all && !q.Live {
			kept = append(kept, q)
			continue
		}
		t.exec("UPDATE sums SET n=MAX(n-?,0) WHERE key=?", q.Cost, "quota/"+q.Key)
	}
	r.quotas = ""
	if kept != nil {
		r.quotas = encode(kept)
	}
}

// topic numbers of the stream.
const (
	topicEvents = 1
	topicAlerts = 2
)

// event fills in what each event tells of its job and appends it to the
// outbox. Jobs of batches write none: the batch does when it ends.
func (t *tx) event(r *row, ev *queue.Event) {
	if r.batch != "" {
		return
	}
	var req queue.Request
	t.fail(decode(r.req, &req))
	r.evseq++
	ev.Job, ev.Attempt, ev.LeaseID, ev.Seq, ev.User, ev.Private, ev.Origin = r.id, r.attempt, r.lease, r.evseq, r.user, req.Private, req.Origin
	t.publish(topicEvents, ev)
}

func (t *tx) publish(topic int, ev *queue.Event) {
	ev.At = at(t.now)
	t.exec("INSERT INTO stream(topic,body) VALUES(?,?)", topic, encode(ev))
	t.wake = true
}

// estimate is the expected GPU time of a sort of job.
func (t *tx) estimate(r *row) float64 {
	if s := t.samples(r.sort); len(s) > 0 {
		return order.Quantile(s, 0.5)
	}
	if strings.HasSuffix(r.pool, "/"+string(queue.Views)) {
		return t.q.cfg.EstimateViews
	}
	return t.q.cfg.EstimateMesh
}

func (t *tx) samples(sort string) []float64 {
	return each(t, one[float64], "SELECT sec FROM durations WHERE sort=? ORDER BY i DESC LIMIT ?", sort, order.MaxSamples)
}
