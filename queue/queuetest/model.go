package queuetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dreamcad/queue"
)

// mjob is a job in the model.
type mjob struct {
	id, user         string
	class            queue.Class
	kind             queue.Kind
	seq              int
	status           queue.Status
	lease            string
	fails, crashes   int
	died             int
	workers          []string
	charged, used    float64
	outcomes, starts int
	round            int // requeues
	over             []string
}

// model is the queue in plain Go: what every backend must do.
type model struct {
	t      *rapid.T
	ctx    context.Context
	s      Subject
	cfg    queue.Config
	jobs   []*mjob
	keys   map[string]*mjob
	vt     map[string]float64 // class/user
	floor  map[queue.Class]float64
	paused map[string]bool // "user:…", "class:…"
	stale  []queue.Ref
	seq    int
}

// RunModel drives the backend and the model with the same random calls and
// compares them after each.
func RunModel(t *testing.T, open Opener) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := Config()
		cfg.HalfLife, cfg.BulkAfter, cfg.MaxFailures, cfg.KeepCount = 0, 1000*time.Hour, 2, 1000
		cfg.BackoffBase, cfg.BackoffMax = time.Second, time.Second
		s := open(t, cfg)
		defer s.Queue.Close()
		m := &model{t: rt, ctx: t.Context(), s: s, cfg: cfg, keys: map[string]*mjob{}, vt: map[string]float64{}, floor: map[queue.Class]float64{}, paused: map[string]bool{}}
		rt.Repeat(map[string]func(*rapid.T){
			"submit": m.submit, "lease": m.lease, "lease again": m.lease, "complete": m.complete, "fail": m.fail, "give back": m.giveBack,
			"cancel": m.cancel, "crash": m.crash, "promote": m.promote, "switch": m.toggle, "requeue": m.requeue, "stale": m.staleCalls, "": m.check,
		})
	})
}

func (m *model) submit(t *rapid.T) {
	m.t = t
	r := Request(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "user"), fmt.Sprint("thing ", m.seq))
	r.Class = rapid.SampledFrom(queue.Classes).Draw(t, "class")
	r.Kind = rapid.SampledFrom([]queue.Kind{queue.Views, queue.Mesh}).Draw(t, "kind")
	if rapid.IntRange(0, 3).Draw(t, "with key") == 0 {
		r.Key = rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(t, "key")
	}
	rc, err := m.s.Queue.Submit(m.ctx, r)
	m.no(err)
	if old := m.keys[r.Key]; r.Key != "" && old != nil {
		if rc.New || rc.ID != old.id || rc.Status != old.status {
			t.Fatalf("key %s again: %+v, want %s %s", r.Key, rc, old.id, old.status)
		}
		return
	}
	if !rc.New {
		t.Fatalf("a new request is known: %+v", rc)
	}
	m.seq++
	j := &mjob{id: rc.ID, user: r.Requester.User(), class: r.Class, kind: r.Kind, seq: m.seq, status: queue.Queued}
	m.enter(j)
	m.jobs = append(m.jobs, j)
	if r.Key != "" {
		m.keys[r.Key] = j
	}
}

func (m *model) no(err error) {
	if err != nil {
		m.t.Fatalf("unexpected error: %v", err)
	}
}

func (m *model) share(j *mjob) string { return string(j.class) + "/" + j.user }

// enter is called before j joins its line.
func (m *model) enter(j *mjob) {
	for _, o := range m.jobs {
		if o != j && o.status == queue.Queued && o.user == j.user && o.class == j.class {
			return
		}
	}
	m.vt[m.share(j)] = max(m.vt[m.share(j)], m.floor[j.class])
}

func (m *model) lease(t *rapid.T) {
	m.t = t
	c := Caps(rapid.SampledFrom([]string{"w1", "w2"}).Draw(t, "worker"))
	if rapid.Bool().Draw(t, "views only") {
		c.Kinds = []queue.Kind{queue.Views}
	}
	best := math.Inf(1)
	var can []*mjob
	for _, class := range queue.Classes {
		if m.paused["class:"+string(class)] {
			continue
		}
		for _, j := range m.jobs {
			if j.status == queue.Queued && j.class == class && !m.paused["user:"+j.user] && (len(c.Kinds) == 0 || j.kind == queue.Views) {
				best = min(best, m.vt[m.share(j)])
				can = append(can, j)
			}
		}
		if len(can) > 0 {
			break
		}
	}
	l, err := m.s.Queue.Lease(m.ctx, c)
	if len(can) == 0 {
		if queue.CodeOf(err) != queue.CodeEmpty {
			t.Fatalf("lease = %+v, %v; nothing can run", l, err)
		}
		return
	}
	m.no(err)
	j := m.find(l.Job.ID)
	if !slices.Contains(can, j) {
		t.Fatalf("leased %s job %s of %s, which may not run", j.status, j.id, j.user)
	}
	if vt := m.vt[m.share(j)]; vt > best+1e-6 {
		t.Fatalf("leased %s of %s at %v, somebody is at %v", j.id, j.user, vt, best)
	}
	for _, o := range can {
		if o.user == j.user && o.kind == j.kind && o.seq < j.seq || o.user == j.user && o.seq < j.seq {
			t.Fatalf("leased number %d of %s before %d", j.seq, j.user, o.seq)
		}
	}
	m.floor[j.class] = max(m.floor[j.class], m.vt[m.share(j)])
	m.vt[m.share(j)] += l.Job.Estimate
	j.status, j.lease, j.charged = queue.Leased, l.ID, l.Job.Estimate
	j.starts++
	if l.Job.Attempt != j.starts {
		t.Fatalf("attempt %d, want %d", l.Job.Attempt, j.starts)
	}
}

func (m *model) find(id string) *mjob {
	for _, j := range m.jobs {
		if j.id == id {
			return j
		}
	}
	m.t.Fatalf("unknown job %s", id)
	return nil
}

// pick draws a job in one of the states, nil if there is none.
func (m *model) pick(t *rapid.T, states ...queue.Status) *mjob {
	m.t = t
	var js []*mjob
	for _, j := range m.jobs {
		if slices.Contains(states, j.status) {
			js = append(js, j)
		}
	}
	if len(js) == 0 {
		return nil
	}
	return js[rapid.IntRange(0, len(js)-1).Draw(t, "job")]
}

// settle takes the charge back and books what the attempt used.
func (m *model) settle(j *mjob) {
	x, err := m.s.Queue.Job(m.ctx, j.id)
	m.no(err)
	m.vt[m.share(j)] += x.Used - j.used - j.charged
	j.used, j.charged = x.Used, 0
	m.stale = append(m.stale, queue.Ref{Job: j.id, Lease: j.lease})
	j.over = append(j.over, j.lease)
}

func (m *model) end(j *mjob, st queue.Status) {
	j.status = st
	j.outcomes++
}

func used(t *rapid.T) float64 { return float64(rapid.IntRange(1, 300).Draw(t, "seconds")) }

func (j *mjob) ref() queue.Ref { return queue.Ref{Job: j.id, Lease: j.lease} }

func (m *model) complete(t *rapid.T) {
	j := m.pick(t, queue.Leased)
	if j == nil {
		return
	}
	r := queue.Result{Winner: j.lease, Used: used(t)}
	for range 1 + rapid.IntRange(0, 1).Draw(t, "repeat") {
		m.no(m.s.Queue.Complete(m.ctx, j.ref(), r))
	}
	m.settle(j)
	m.end(j, queue.Done)
}

func (m *model) fail(t *rapid.T) {
	j := m.pick(t, queue.Leased)
	if j == nil {
		return
	}
	f := queue.Failure{Kind: rapid.SampledFrom([]queue.FailKind{queue.FailError, queue.FailInput, queue.FailStuck, queue.FailDied}).Draw(t, "kind"), Used: used(t),
		Worker: rapid.SampledFrom([]string{"x/1", "y/1"}).Draw(t, "by")}
	st, err := m.s.Queue.Fail(m.ctx, j.ref(), f)
	m.no(err)
	if rapid.Bool().Draw(t, "repeat") {
		again, err := m.s.Queue.Fail(m.ctx, j.ref(), f)
		m.no(err)
		if again != st {
			t.Fatalf("fail answers %s, then %s", st, again)
		}
	}
	m.settle(j)
	m.failed(j, f.Kind, f.Worker)
	if st != j.status {
		t.Fatalf("fail(%s) of %s: %s, want %s", f.Kind, j.id, st, j.status)
	}
}

func (m *model) failed(j *mjob, kind queue.FailKind, worker string) {
	switch kind {
	case queue.FailInput:
		m.end(j, queue.Failed)
	case queue.FailError:
		if j.fails++; j.fails >= m.cfg.MaxFailures {
			m.end(j, queue.Failed)
		} else {
			j.status = queue.Scheduled
		}
	default:
		j.crashes++
		j.died++
		if kind != queue.FailDied {
			j.died = 0
		}
		if !slices.Contains(j.workers, worker) {
			j.workers = append(j.workers, worker)
		}
		switch {
		case j.died >= 2, j.crashes >= m.cfg.MaxCrashes && len(j.workers) >= 2, j.crashes >= 2*m.cfg.MaxCrashes:
			m.end(j, queue.Quarantined)
		case j.crashes == 1:
			m.enter(j)
			j.status = queue.Queued
		default:
			j.status = queue.Scheduled
		}
	}
}

func (m *model) giveBack(t *rapid.T) {
	j := m.pick(t, queue.Leased)
	if j == nil {
		return
	}
	m.no(m.s.Queue.GiveBack(m.ctx, j.ref(), queue.GiveBackOptions{Reason: queue.Drained, Used: used(t)}))
	m.settle(j)
	m.enter(j)
	j.status = queue.Queued
}

func (m *model) cancel(t *rapid.T) {
	j := m.pick(t, queue.Statuses...)
	if j == nil {
		return
	}
	st, err := m.s.Queue.Cancel(m.ctx, j.id)
	switch j.status {
	case queue.Done, queue.Failed, queue.Quarantined:
		if queue.CodeOf(err) != queue.CodeConflict || st != j.status {
			t.Fatalf("cancel of a job that is %s: %s %v", j.status, st, err)
		}
		return
	case queue.Cancelled:
		m.no(err)
		return
	case queue.Leased:
		m.no(err)
		m.settle(j)
	}
	m.no(err)
	m.end(j, queue.Cancelled)
}

// crash lets all leases but one drawn job's run out.
func (m *model) crash(t *rapid.T) {
	spared := m.pick(t, queue.Leased)
	m.s.Advance(m.cfg.Lease / 2)
	if spared != nil {
		a, err := m.s.Queue.Heartbeat(m.ctx, spared.ref(), queue.Beat{})
		m.no(err)
		if a.Directive == queue.StopLost || a.Directive == queue.StopCancel {
			t.Fatalf("heartbeat of the holder: %s", a.Directive)
		}
	}
	m.s.Advance(m.cfg.Lease/2 + time.Second)
	m.tick()
}

// tick applies one tick to both: rescue first, in the order of the deadlines,
// then promotion.
func (m *model) tick() {
	_, err := m.s.Queue.Tick(m.ctx)
	m.no(err)
	for _, j := range m.jobs {
		if j.status != queue.Leased {
			continue
		}
		x, err := m.s.Queue.Job(m.ctx, j.id)
		m.no(err)
		if x.Status == queue.Leased {
			continue
		}
		m.settle(j)
		m.failed(j, queue.FailCrash, x.Worker)
		if j.status == queue.Scheduled && x.Status == queue.Queued {
			m.t.Fatalf("a second crash waits before it runs again")
		}
	}
	for _, j := range m.jobs {
		if j.status != queue.Scheduled {
			continue
		}
		x, err := m.s.Queue.Job(m.ctx, j.id)
		m.no(err)
		if x.Status == queue.Queued {
			m.enter(j)
			j.status = queue.Queued
		}
	}
}

func (m *model) promote(t *rapid.T) {
	m.t = t
	m.s.Advance(1100 * time.Millisecond) // the longest backoff
	m.tick()
	for _, j := range m.jobs {
		if j.status == queue.Scheduled {
			t.Fatalf("job %s still waits after the longest backoff", j.id)
		}
	}
}

func (m *model) toggle(t *rapid.T) {
	m.t = t
	s := rapid.SampledFrom([]queue.Switch{{Scope: queue.OfUser, Name: "test:a"}, {Scope: queue.OfUser, Name: "test:b"}, {Scope: queue.OfClass, Name: "bulk"}, {Scope: queue.OfClass, Name: "interactive"}}).Draw(t, "switch")
	k := string(s.Scope) + ":" + s.Name
	if m.paused[k] {
		m.no(m.s.Queue.Resume(m.ctx, s.Scope, s.Name))
		if s.Scope == queue.OfUser {
			for _, c := range queue.Classes {
				if v, ok := m.vt[string(c)+"/"+s.Name]; ok {
					m.vt[string(c)+"/"+s.Name] = max(v, m.floor[c])
				}
			}
		}
	} else {
		m.no(m.s.Queue.Pause(m.ctx, s.Scope, s.Name, ""))
	}
	m.paused[k] = !m.paused[k]
}

func (m *model) requeue(t *rapid.T) {
	j := m.pick(t, queue.Failed, queue.Cancelled, queue.Quarantined)
	if j == nil {
		return
	}
	m.no(m.s.Queue.Requeue(m.ctx, j.id))
	j.fails, j.crashes, j.died, j.workers = 0, 0, 0, nil
	j.round++
	m.enter(j)
	j.status = queue.Queued
}

// staleCalls repeats writes of a lease that is over: all must be refused, or
// answered as the first time if they repeat what that lease did last.
func (m *model) staleCalls(t *rapid.T) {
	m.t = t
	refs := m.stale
	var again []queue.Ref // leases of jobs that another attempt holds: the dangerous ones
	for _, r := range m.stale {
		if m.find(r.Job).status == queue.Leased {
			again = append(again, r)
		}
	}
	if len(again) > 0 {
		refs = again
	}
	if len(refs) == 0 {
		return
	}
	ref := refs[rapid.IntRange(0, len(refs)-1).Draw(t, "lease")]
	before, err := m.s.Queue.Job(m.ctx, ref.Job)
	m.no(err)
	a, err := m.s.Queue.Heartbeat(m.ctx, ref, queue.Beat{Progress: &queue.Progress{Step: 77}})
	m.no(err)
	if a.Directive != queue.StopLost && a.Directive != queue.StopCancel {
		t.Fatalf("a stale heartbeat hears %q", a.Directive)
	}
	_ = m.s.Queue.Complete(m.ctx, ref, queue.Result{Winner: "stale"}) // refused or a repetition
	_, _ = m.s.Queue.Fail(m.ctx, ref, queue.Failure{Kind: queue.FailInput})
	_ = m.s.Queue.GiveBack(m.ctx, ref, queue.GiveBackOptions{Reason: queue.Drained})
	after, err := m.s.Queue.Job(m.ctx, ref.Job)
	m.no(err)
	if after.Status != before.Status || after.LeaseID != before.LeaseID || after.Used != before.Used || after.Result != nil && after.Result.Winner == "stale" {
		t.Fatalf("a stale call changed the job: %+v, was %+v", after, before)
	}
}

// check compares everything and audits the backend's invariants.
func (m *model) check(t *rapid.T) {
	m.t = t
	for _, j := range m.jobs {
		x, err := m.s.Queue.Job(m.ctx, j.id)
		m.no(err)
		if x.Status != j.status || x.Failures != j.fails || x.Crashes != j.crashes || x.Attempt != j.starts {
			t.Fatalf("job %s: %s failures %d crashes %d attempts %d; the model has %s %d %d %d", j.id, x.Status, x.Failures, x.Crashes, x.Attempt, j.status, j.fails, j.crashes, j.starts)
		}
	}
	vs, err := m.s.Queue.Audit(m.ctx)
	m.no(err)
	if len(vs) > 0 {
		t.Fatalf("invariants: %s", strings.Join(vs, "; "))
	}
	if rapid.IntRange(0, 9).Draw(t, "read outbox") > 0 {
		return
	}
	n := map[string]int{}
	cur := ""
	for {
		es, err := m.s.Queue.Events(m.ctx, cur, 1000, 0)
		m.no(err)
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			if e.Kind.Outcome() {
				n[e.Job]++
			}
			cur = e.ID
		}
	}
	for _, j := range m.jobs {
		if n[j.id] != j.outcomes {
			t.Fatalf("job %s has %d outcome events, want %d", j.id, n[j.id], j.outcomes)
		}
	}
}
