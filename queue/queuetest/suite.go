// Package queuetest holds what every backend of the queue must pass: the
// conformance suite, the model test and the tools for faults (a redis-server
// of one's own, a proxy that misbehaves, a worker process that dies on command).
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreamcad/queue"
)

// Subject is a fresh, empty queue under test.
type Subject struct {
	Queue queue.Queue
	// Advance shifts the backend's clock forward (or back) for leases,
	// backoffs and waiting times; lives of keys and records follow real time.
	Advance func(d time.Duration)
}

// Opener makes a subject that lives as long as the test.
type Opener func(t testing.TB, cfg queue.Config) Subject

// Config returns defaults that make tests quick and deterministic.
func Config() queue.Config {
	c := queue.DefaultConfig()
	c.QueuedPerUser, c.QueuedTotal = 0, 0
	c.SubmitBudget = 20 * time.Second // a busy test machine is not an outage
	return c
}

// Request returns a valid request of a user.
func Request(user, prompt string) queue.Request {
	return queue.Request{
		Prompt: prompt, Kind: queue.Mesh, Quality: queue.Draft, Model: "mini", Class: queue.Interactive,
		Requester: queue.Requester{Platform: "test", ID: user, Name: user},
		Origin:    queue.Origin{Platform: "test", Channel: "c1", Extra: map[string]string{"k": "v"}},
	}
}

// Caps returns the capabilities of a worker that runs model mini.
func Caps(worker string) queue.Capabilities {
	return queue.Capabilities{Worker: worker + "/1", Name: worker, Models: []string{"mini"}}
}

type bench struct {
	Subject
	t   testing.TB
	ctx context.Context
	q   queue.Queue
}

func (b *bench) submit(r queue.Request, qs ...queue.Quota) string {
	b.t.Helper()
	rc, err := b.q.Submit(b.ctx, r, qs...)
	if err != nil {
		b.t.Fatalf("submit: %v", err)
	}
	return rc.ID
}

func (b *bench) lease(worker string) *queue.Lease {
	b.t.Helper()
	l, err := b.q.Lease(b.ctx, Caps(worker))
	if err != nil {
		b.t.Fatalf("lease by %s: %v", worker, err)
	}
	return l
}

func (b *bench) empty(c queue.Capabilities) {
	b.t.Helper()
	if l, err := b.q.Lease(b.ctx, c); !errors.Is(err, queue.ErrEmpty) {
		b.t.Fatalf("lease = %v, %v, want CodeEmpty", l, err)
	}
}

func (b *bench) job(id string) queue.Job {
	b.t.Helper()
	j, err := b.q.Job(b.ctx, id)
	if err != nil {
		b.t.Fatalf("job: %v", err)
	}
	return j
}

func (b *bench) status(id string, want queue.Status) queue.Job {
	b.t.Helper()
	j := b.job(id)
	if j.Status != want {
		b.t.Fatalf("job %s is %s, want %s", id, j.Status, want)
	}
	return j
}

func (b *bench) complete(l *queue.Lease, used float64) {
	b.t.Helper()
	if err := b.q.Complete(b.ctx, l.Ref(), queue.Result{Winner: l.ID, Used: used}); err != nil {
		b.t.Fatalf("complete: %v", err)
	}
}

func (b *bench) tick() queue.Ticked {
	b.t.Helper()
	n, err := b.q.Tick(b.ctx)
	if err != nil {
		b.t.Fatalf("tick: %v", err)
	}
	return n
}

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) code(err error, want queue.Code) {
	b.t.Helper()
	if queue.CodeOf(err) != want {
		b.t.Fatalf("error %v has code %q, want %q", err, queue.CodeOf(err), want)
	}
}

func (b *bench) audit() {
	b.t.Helper()
	vs, err := b.q.Audit(b.ctx)
	if err != nil || len(vs) > 0 {
		b.t.Fatalf("audit: %v %v", vs, err)
	}
}

// events reads everything after the cursor.
func (b *bench) events(after string) []queue.Event {
	b.t.Helper()
	es, err := b.q.Events(b.ctx, after, 1000, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return es
}

func kinds(es []queue.Event) string {
	var s []string
	for _, e := range es {
		s = append(s, string(e.Kind))
	}
	return strings.Join(s, " ")
}

// Run runs the conformance suite against the backend.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		cfg  func(*queue.Config)
		f    func(*bench)
	}{
		{"life of a job", nil, lifeOfAJob},
		{"submit is idempotent", nil, idempotentSubmit},
		{"submit many", nil, submitMany},
		{"limits", func(c *queue.Config) { c.QueuedPerUser, c.QueuedTotal = 2, 3 }, limits},
		{"running limit", func(c *queue.Config) { c.RunningPerUser = 1 }, runningLimit},
		{"quotas", nil, quotas},
		{"capabilities", nil, capabilities},
		{"classes", nil, classes},
		{"fair order", nil, fairOrder},
		{"weights", nil, weights},
		{"no credit from absence", nil, noCredit},
		{"bulk does not starve", func(c *queue.Config) { c.BulkEvery = 3 }, bulkAges},
		{"fence", nil, fence},
		{"rescue", nil, rescue},
		{"retries", func(c *queue.Config) { c.MaxFailures = 2 }, retries},
		{"bad input", nil, badInput},
		{"quarantine", nil, quarantine},
		{"cancel", nil, cancel},
		{"give back", nil, giveBack},
		{"yield", nil, yield},
		{"drain", nil, drain},
		{"switches", nil, switches},
		{"requeue", nil, requeue},
		{"waiting lease", nil, waitingLease},
		{"lease given back on cancel", nil, leaseCancelled},
		{"outbox", nil, outbox},
		{"place", nil, place},
		{"list and resolve", nil, listResolve},
		{"stats", nil, stats},
		{"keep limits", func(c *queue.Config) { c.KeepCount, c.KeepEvents = 3, 100 }, keepLimits},
		{"forget", nil, forget},
		{"batches", func(c *queue.Config) { c.MaxFailures, c.KeepBatch = 1, 2 }, batches},
		{"batch pause and cancel", nil, batchPause},
		{"records", nil, records},
		{"counters", nil, counters},
		{"locks", nil, locks},
		{"alerts", nil, alerts},
		{"check", nil, check},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config()
			if c.cfg != nil {
				c.cfg(&cfg)
			}
			s := open(t, cfg)
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
			defer stop()
			b := &bench{Subject: s, t: t, ctx: ctx, q: s.Queue}
			c.f(b)
			b.audit()
		})
	}
}

func lifeOfAJob(b *bench) {
	r := Request("anna", "a ceramic coffee mug")
	r.Formats, r.Negative, r.Private, r.Tag = []string{"glb", "obj"}, "blurry", true, "t1"
	id := b.submit(r)
	j := b.status(id, queue.Queued)
	if j.Prompt != r.Prompt || j.Seed == nil || !slices.Equal(j.Formats, r.Formats) || j.Origin.Extra["k"] != "v" || !j.Private || j.Submitted.IsZero() {
		b.t.Fatalf("stored job differs: %+v", j)
	}
	b.audit()
	l := b.lease("w1")
	if l.Job.ID != id || l.Job.Attempt != 1 || l.ID == "" || l.TTL != 30*time.Second || l.Job.Prompt != r.Prompt || !l.Deadline.After(l.Job.Started) {
		b.t.Fatalf("lease: %+v", l)
	}
	b.audit()
	a, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{
		Progress: &queue.Progress{Stage: queue.StageViews, Step: 3, Total: 50, Remaining: 42}, Checkpoint: &queue.Checkpoint{Key: "ck/1", Step: 3, Stage: queue.StageViews}})
	b.ok(err)
	if a.Directive != queue.GoOn || a.TTL != 30*time.Second {
		b.t.Fatalf("answer %+v", a)
	}
	files := []queue.File{{Role: "view", Name: "view-0.png", MediaType: "image/png", Bytes: 7, SHA256: "ab"}}
	_, err = b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{Views: files})
	b.ok(err)
	j = b.status(id, queue.Leased)
	if j.Progress == nil || j.Progress.Step != 3 || j.Check == nil || j.Check.Key != "ck/1" || len(j.Views) != 1 || j.ViewsBy != l.ID || j.Worker != "w1/1" {
		b.t.Fatalf("leased job: %+v", j)
	}
	res := queue.Result{Winner: l.ID, Files: files, Notices: []string{"hello"}, Timings: map[string]float64{"views": 1.5}, Used: 12}
	b.ok(b.q.Complete(b.ctx, l.Ref(), res))
	b.ok(b.q.Complete(b.ctx, l.Ref(), res)) // an answer was lost: the same again
	j = b.status(id, queue.Done)
	if j.Result == nil || j.Result.Files[0].SHA256 != "ab" || j.Result.Timings["views"] != 1.5 || j.Ended.IsZero() || j.Used != 12 || j.LeaseID != l.ID {
		b.t.Fatalf("done job: %+v", j)
	}
	es := b.events("")
	if k := kinds(es); k != "accepted started progress views done" {
		b.t.Fatalf("events: %s", k)
	}
	for i, e := range es {
		if e.Job != id || e.Seq != i+1 || e.Origin.Channel != "c1" || e.User != "test:anna" || e.At.IsZero() || e.ID == "" || !e.Private {
			b.t.Fatalf("event %d: %+v", i, e)
		}
	}
	if p := es[2]; p.Stage != queue.StageViews || p.Step != 3 || p.Total != 50 || p.Remaining != 42 || p.LeaseID != l.ID {
		b.t.Fatalf("progress event: %+v", p)
	}
	if es[3].Files[0].Name != "view-0.png" || len(es[4].Files) != 1 || es[4].Notices[0] != "hello" {
		b.t.Fatal("files or notices are missing in events")
	}
	if _, err := b.q.Job(b.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV"); !errors.Is(err, queue.ErrNotFound) {
		b.t.Fatalf("unknown job: %v", err)
	}
}

func idempotentSubmit(b *bench) {
	r := Request("anna", "a mug")
	r.Key = "discord:42"
	rc, err := b.q.Submit(b.ctx, r)
	b.ok(err)
	again, err := b.q.Submit(b.ctx, r)
	b.ok(err)
	if !rc.New || again.New || again.ID != rc.ID || again.Status != queue.Queued {
		b.t.Fatalf("first %+v, again %+v", rc, again)
	}
	b.complete(b.lease("w"), 1)
	again, err = b.q.Submit(b.ctx, r)
	b.ok(err)
	if again.New || again.ID != rc.ID || again.Status != queue.Done {
		b.t.Fatalf("after the end: %+v", again)
	}
	r = Request("anna", "another")
	r.ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	for i := range 3 {
		rc, err := b.q.Submit(b.ctx, r)
		b.ok(err)
		if rc.New != (i == 0) || rc.ID != r.ID {
			b.t.Fatalf("submit %d with an id: %+v", i, rc)
		}
	}
	_, err = b.q.Submit(b.ctx, Request("anna", " "))
	b.code(err, queue.CodeInvalid)
	_, err = b.q.Submit(b.ctx, Request("anna", strings.Repeat("é", queue.MaxPrompt+1)))
	b.code(err, queue.CodeInvalid)
	b.submit(Request("anna", strings.Repeat("é", queue.MaxPrompt)))
}

func submitMany(b *bench) {
	var rs []queue.Request
	for i := range 450 {
		rs = append(rs, Request(fmt.Sprint("u", i%7), fmt.Sprint("thing ", i)))
	}
	rs[17].Prompt = ""
	out, errs := b.q.SubmitMany(b.ctx, rs)
	for i := range rs {
		if (errs[i] != nil) != (i == 17) || (i != 17) != out[i].New {
			b.t.Fatalf("request %d: %+v %v", i, out[i], errs[i])
		}
	}
	s, err := b.q.Stats(b.ctx)
	b.ok(err)
	if s.Queued[queue.Interactive] != 449 || s.Users[queue.Interactive] != 7 {
		b.t.Fatalf("stats: %+v", s)
	}
}

func limits(b *bench) {
	b.submit(Request("anna", "1"))
	id := b.submit(Request("anna", "2"))
	_, err := b.q.Submit(b.ctx, Request("anna", "3"))
	b.code(err, queue.CodeLimit)
	b.submit(Request("ben", "4"))
	_, err = b.q.Submit(b.ctx, Request("cleo", "5"))
	b.code(err, queue.CodeLimit) // all
	_, err = b.q.Cancel(b.ctx, id)
	b.ok(err)
	b.submit(Request("cleo", "5"))
	b.lease("w") // a running job does not count as waiting
	b.submit(Request("anna", "6"))
}

func runningLimit(b *bench) {
	b.submit(Request("anna", "1"))
	b.submit(Request("anna", "2"))
	b.submit(Request("ben", "3"))
	l1, l2 := b.lease("w1"), b.lease("w2")
	if l1.Job.Prompt != "1" || l2.Job.Prompt != "3" {
		b.t.Fatalf("leased %q, %q", l1.Job.Prompt, l2.Job.Prompt)
	}
	b.empty(Caps("w3"))
	b.audit()
	b.complete(l1, 1)
	if l := b.lease("w3"); l.Job.Prompt != "2" {
		b.t.Fatalf("leased %q", l.Job.Prompt)
	}
}

func quotas(b *bench) {
	day := queue.Quota{Key: "day/anna", Cost: 2, Limit: 5, Life: time.Hour, Sentence: "Come back tomorrow."}
	used := func(want int64) {
		b.t.Helper()
		n, err := b.q.Used(b.ctx, day.Key)
		b.ok(err)
		if n != want {
			b.t.Fatalf("quota used %d, want %d", n, want)
		}
	}
	r := Request("anna", "1")
	r.Key = "k1"
	b.submit(r, day)
	b.submit(r, day) // known: reserves nothing
	used(2)
	id2 := b.submit(Request("anna", "2"), day)
	used(4)
	_, err := b.q.Submit(b.ctx, Request("anna", "3"), day)
	b.code(err, queue.CodeQuota)
	if queue.SentenceOf(err) != "Come back tomorrow." {
		b.t.Fatalf("sentence %q", queue.SentenceOf(err))
	}
	_, err = b.q.Cancel(b.ctx, id2)
	b.ok(err)
	used(2) // cancelled before it started
	l := b.lease("w")
	_, err = b.q.Cancel(b.ctx, l.Job.ID)
	b.ok(err)
	used(2) // it had started
	b.ok(b.q.Refund(b.ctx, l.Job.ID))
	b.ok(b.q.Refund(b.ctx, l.Job.ID))
	used(0)
	b.liveQuota()
}

// liveQuota: a quota that counts the jobs that wait or run admits exactly its
// limit, from however many sides they come, and is given back at every end.
func (b *bench) liveQuota() {
	live := queue.Quota{Key: "live/berta", Cost: 1, Limit: 3, Life: time.Hour, Live: true}
	day := queue.Quota{Key: "day/berta", Cost: 1, Limit: 100, Life: time.Hour}
	used := func(q queue.Quota, want int64) {
		b.t.Helper()
		n, err := b.q.Used(b.ctx, q.Key)
		b.ok(err)
		if n != want {
			b.t.Fatalf("%s is %d, want %d", q.Key, n, want)
		}
	}
	var all sync.WaitGroup
	var taken atomic.Int64
	for i := range 20 {
		all.Go(func() {
			_, err := b.q.Submit(b.ctx, Request("berta", fmt.Sprint(i)), day, live)
			if err == nil {
				taken.Add(1)
			} else if queue.CodeOf(err) != queue.CodeQuota {
				b.t.Error(err)
			}
		})
	}
	all.Wait()
	if taken.Load() != 3 {
		b.t.Fatalf("%d of 20 at once were taken, want 3", taken.Load())
	}
	used(live, 3)
	used(day, 3)
	done, bad, stopped := b.lease("w1"), b.lease("w2"), b.lease("w3")
	b.complete(done, 1)
	used(live, 2)
	_, err := b.q.Fail(b.ctx, bad.Ref(), queue.Failure{Kind: queue.FailInput, Sentence: "No."})
	b.ok(err)
	used(live, 1)
	_, err = b.q.Cancel(b.ctx, stopped.Job.ID)
	b.ok(err)
	used(live, 0)
	used(day, 3) // all three had started, and none failed through our fault
	id := b.submit(Request("berta", "again"), day, live)
	_, err = b.q.Cancel(b.ctx, id)
	b.ok(err)
	used(live, 0)
	used(day, 3)
}

func capabilities(b *bench) {
	m := b.submit(Request("anna", "mesh"))
	r := Request("anna", "views")
	r.Kind = queue.Views
	v := b.submit(r)
	r = Request("anna", "big")
	r.Model = "mvdream-sd21"
	big := b.submit(r)
	r = Request("anna", "any")
	r.Model = ""
	whatever := b.submit(r)
	c := Caps("w")
	c.Kinds, c.Beside = []queue.Kind{queue.Views}, true
	l, err := b.q.Lease(b.ctx, c)
	b.ok(err)
	if l.Job.ID != v {
		b.t.Fatalf("views worker got %q", l.Job.Prompt)
	}
	b.empty(c)
	got := []string{b.lease("w").Job.ID, b.lease("w").Job.ID}
	if !slices.Equal(got, []string{m, whatever}) {
		b.t.Fatalf("mini worker got %v", got)
	}
	b.empty(Caps("w"))
	c = Caps("w")
	c.Models = []string{"mvdream-sd21"}
	l, err = b.q.Lease(b.ctx, c)
	b.ok(err)
	if l.Job.ID != big {
		b.t.Fatalf("sd21 worker got %q", l.Job.Prompt)
	}
}

func bulk(user, prompt string) queue.Request {
	r := Request(user, prompt)
	r.Class = queue.Bulk
	return r
}

func classes(b *bench) {
	b.submit(bulk("anna", "bulk"))
	b.submit(Request("ben", "chat"))
	if l := b.lease("w"); l.Job.Prompt != "chat" {
		b.t.Fatalf("first lease: %q", l.Job.Prompt)
	}
	c := Caps("w")
	c.Classes = []queue.Class{queue.Interactive}
	b.empty(c)
	if l := b.lease("w"); l.Job.Prompt != "bulk" {
		b.t.Fatalf("second lease: %q", l.Job.Prompt)
	}
}

// served runs n jobs to their end, each taking sec GPU-seconds, and tells whose they were.
func (b *bench) served(n int, sec float64) string {
	b.t.Helper()
	s := ""
	for range n {
		l := b.lease("w")
		s += l.Job.Requester.ID
		b.complete(l, sec)
	}
	return s
}

func fairOrder(b *bench) {
	for i := range 4 {
		b.submit(Request("a", fmt.Sprint(i)))
	}
	if s := b.served(1, 100); s != "a" {
		b.t.Fatal(s)
	}
	for i := range 3 { // b comes later and still gets every other turn
		b.submit(Request("b", fmt.Sprint(i)))
	}
	if s := b.served(6, 100); s != "bababa" && s != "ababab" && s != "baabab" && s != "babaab" {
		b.t.Fatalf("order %q", s)
	}
	// Long jobs count more: c's take 300 s, d's 100 s.
	for i := range 12 {
		b.submit(Request("c", fmt.Sprint(i)))
		b.submit(Request("d", fmt.Sprint(i)))
	}
	n := map[string]int{}
	for range 12 {
		l := b.lease("w")
		n[l.Job.Requester.ID]++
		sec := 100.0
		if l.Job.Requester.ID == "c" {
			sec = 300
		}
		b.complete(l, sec)
	}
	if n["d"] < 7 || n["c"] < 2 {
		b.t.Fatalf("shares %v, want d about three times c", n)
	}
	// The estimate is charged at the lease: no flood before the first ends.
	for i := range 3 {
		b.submit(Request("e", fmt.Sprint(i)))
		b.submit(Request("f", fmt.Sprint(i)))
	}
	_, err := b.q.Cancel(b.ctx, b.lease("w").Job.ID)
	b.ok(err)
}

func weights(b *bench) {
	b.ok(b.q.SetWeight(b.ctx, "test:b", 3))
	b.code(b.q.SetWeight(b.ctx, "test:b", 0), queue.CodeInvalid)
	for i := range 16 {
		b.submit(Request("a", fmt.Sprint(i)))
		b.submit(Request("b", fmt.Sprint(i)))
	}
	s := b.served(16, 60)
	if n := strings.Count(s, "b"); n < 11 || n > 13 {
		b.t.Fatalf("b with weight 3 got %d of 16: %s", n, s)
	}
}

func noCredit(b *bench) {
	b.submit(Request("a", "0")) // a was here, long ago
	b.served(1, 10)
	for i := range 20 {
		b.submit(Request("b", fmt.Sprint(i)))
	}
	b.served(10, 100)
	for i := range 8 {
		b.submit(Request("a", fmt.Sprint(i)))
	}
	if s := b.served(8, 100); strings.Count(s, "a") > 5 {
		b.t.Fatalf("a used up credit from absence: %s", s)
	}
}

func bulkAges(b *bench) {
	for i := range 3 {
		b.submit(bulk("a", fmt.Sprint("bulk", i)))
	}
	for i := range 12 {
		b.submit(Request("b", fmt.Sprint("chat", i)))
	}
	if s := b.served(3, 1); s != "bbb" {
		b.t.Fatalf("order %q", s)
	}
	b.Advance(31 * time.Minute)
	if s := b.served(9, 1); strings.Count(s, "a") != 3 {
		b.t.Fatalf("order after 31 minutes: %q, want every third for bulk", s)
	}
}

func fence(b *bench) {
	id := b.submit(Request("a", "1"))
	old := b.lease("w1")
	b.Advance(31 * time.Second)
	if n := b.tick(); n.Rescued != 1 {
		b.t.Fatalf("tick: %+v", n)
	}
	cur := b.lease("w2")
	if cur.Job.ID != id || cur.ID == old.ID || cur.Job.Attempt != 2 {
		b.t.Fatalf("second lease: %+v", cur)
	}
	a, err := b.q.Heartbeat(b.ctx, old.Ref(), queue.Beat{Progress: &queue.Progress{Step: 99}, Checkpoint: &queue.Checkpoint{Key: "stale"}})
	b.ok(err)
	if a.Directive != queue.StopLost {
		b.t.Fatalf("stale heartbeat: %+v", a)
	}
	b.code(b.q.Complete(b.ctx, old.Ref(), queue.Result{}), queue.CodeLost)
	_, err = b.q.Fail(b.ctx, old.Ref(), queue.Failure{Kind: queue.FailError})
	b.code(err, queue.CodeLost)
	b.code(b.q.GiveBack(b.ctx, old.Ref(), queue.GiveBackOptions{Reason: queue.Drained}), queue.CodeLost)
	if j := b.status(id, queue.Leased); j.Check != nil || j.Progress != nil || j.LeaseID != cur.ID {
		b.t.Fatalf("the stale worker wrote: %+v", j)
	}
	b.complete(cur, 1)
	b.code(b.q.Complete(b.ctx, old.Ref(), queue.Result{}), queue.CodeLost)
	a, err = b.q.Heartbeat(b.ctx, queue.Ref{Job: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Lease: "x"}, queue.Beat{})
	b.ok(err)
	if a.Directive != queue.StopLost {
		b.t.Fatalf("heartbeat of an unknown job: %+v", a)
	}
	b.code(b.q.Complete(b.ctx, queue.Ref{Job: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Lease: "x"}, queue.Result{}), queue.CodeLost)
	if _, err := b.q.Job(b.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV"); !errors.Is(err, queue.ErrNotFound) {
		b.t.Fatalf("a refused write brought a key to life: %v", err)
	}
}

func rescue(b *bench) {
	first := b.submit(Request("a", "1"))
	b.submit(Request("a", "2"))
	l := b.lease("w")
	b.Advance(20 * time.Second)
	_, err := b.q.Heartbeat(b.ctx, l.Ref(), queue.Beat{})
	b.ok(err)
	b.Advance(20 * time.Second)
	if n := b.tick(); n.Rescued != 0 {
		b.t.Fatal("rescued in spite of the heartbeat")
	}
	b.Advance(11 * time.Second)
	b.tick()
	j := b.status(first, queue.Queued)
	if j.Crashes != 1 || j.Failures != 0 || j.Attempt != 1 {
		b.t.Fatalf("counts: %+v", j)
	}
	b.audit()
	if l := b.lease("w"); l.Job.ID != first {
		b.t.Fatal("the rescued job is not at the head of the line")
	}
}
