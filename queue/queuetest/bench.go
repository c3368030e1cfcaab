package queuetest

import (
	"context"
	"errors"
	"strings"
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

func bulk(user, prompt string) queue.Request {
	r := Request(user, prompt)
	r.Class = queue.Bulk
	return r
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
