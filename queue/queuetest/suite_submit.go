package queuetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dreamcad/queue"
)

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
