package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dreamcad/bots"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// platform is a chat that remembers what was posted. It can be blind (Find is
// refused), which is where a duplicate is allowed.
type platform struct {
	mu     sync.Mutex
	posts  map[string]int // by nonce
	edits  int
	blind  bool
	refuse func(bots.Spot) error
}

func (p *platform) Platform() string { return "test" }

func (p *platform) Post(_ context.Context, to bots.Spot, _ bots.Message, nonce string) (bots.Posted, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		if err := p.refuse(to); err != nil {
			return bots.Posted{}, err
		}
	}
	p.posts[nonce]++
	return bots.Posted{Spot: to, ID: nonce}, nil
}

func (p *platform) Edit(context.Context, bots.Posted, bots.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edits++
	return nil
}

func (p *platform) Direct(_ context.Context, user string) (bots.Spot, error) {
	return bots.Spot{Channel: "dm-" + user}, nil
}

func (p *platform) Find(_ context.Context, in bots.Spot, nonce string, _ time.Time) (bots.Posted, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blind {
		return bots.Posted{}, false, &bots.ChatError{Trouble: bots.TroubleLook, Err: errors.New("not allowed")}
	}
	return bots.Posted{Spot: in, ID: nonce}, p.posts[nonce] > 0, nil
}

func (p *platform) edited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.edits
}

func (p *platform) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.posts {
		n += k
	}
	return n
}

// free has no limits.
type free struct{}

func (free) Buckets(k Kind, channel string) []string { return []string{string(k) + "/" + channel} }
func (free) Rate(string) (float64, int)              { return 0, 0 }

func open(t *testing.T) *sqliteq.Queue {
	t.Helper()
	q, err := sqliteq.Open(context.Background(), filepath.Join(t.TempDir(), "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func quick() Config {
	c := Defaults()
	c.EditEvery, c.Poll, c.RetryBase, c.LockLife = 20*time.Millisecond, 30*time.Millisecond, 5*time.Millisecond, 300*time.Millisecond
	return c
}

func deliverer(q Queue, p *platform, m *Metrics) *Delivery {
	return New(quick(), q, p, free{}, &bots.Renderer{}, m, slog.New(slog.DiscardHandler))
}

// outcome submits a job and completes it.
func outcome(t *testing.T, q *sqliteq.Queue, user string) string {
	t.Helper()
	ctx := context.Background()
	r, err := q.Submit(ctx, queue.Request{Prompt: "a mug", Requester: queue.Requester{Platform: "test", ID: user}, Origin: queue.Origin{Platform: "test", Channel: "c1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := q.Lease(ctx, queue.Capabilities{Worker: "w", Name: "w", Models: []string{"mini"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID}); err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func settled(t *testing.T, q queue.State) bool {
	t.Helper()
	due, err := q.Keys(context.Background(), "bots/due/test/", "")
	if err != nil {
		t.Fatal(err)
	}
	sent, err := q.Keys(context.Background(), "bots/sent/test/", "")
	if err != nil {
		t.Fatal(err)
	}
	return len(due) == 0 && len(sent) == 1
}

func until(cond func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return true
		}
	}
	return cond()
}

// The process ends between each two steps of a delivery; another one takes over.
// Exactly one message is posted; where the platform does not let us look, at
// most one more, and that is counted.
func TestRestartBetweenSteps(t *testing.T) {
	for _, step := range []string{"before due", "after due", "before ack", "after sending", "before post", "after post", "after sent"} {
		for _, blind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, blind %v", step, blind), func(t *testing.T) {
				q := open(t)
				p := &platform{posts: map[string]int{}, blind: blind}
				metrics := NewMetrics(nil)
				if _, err := q.Cursor(context.Background(), "bots/test"); err != nil { // the consumer is known from before
					t.Fatal(err)
				}
				first := deliverer(q, p, metrics)
				ctx, kill := context.WithCancel(context.Background())
				reached := make(chan struct{})
				var once sync.Once
				first.step = func(s string) {
					if s == step {
						once.Do(func() { close(reached) })
						kill()
						runtime.Goexit() // what follows this step does not happen
					}
				}
				// The steps run in goroutines that Goexit ends; their owner is
				// abandoned as a killed process would be.
				go func() { _ = first.Run(ctx) }()
				outcome(t, q, "42")
				select {
				case <-reached:
				case <-time.After(patience):
					t.Fatal("the step was not reached")
				}
				time.Sleep(50 * time.Millisecond)
				second := deliverer(q, p, metrics)
				ctx, stop := context.WithCancel(context.Background())
				var run sync.WaitGroup
				run.Go(func() { _ = second.Run(ctx) })
				defer run.Wait()
				defer stop()
				if !until(func() bool { return settled(t, q) }) {
					t.Fatal("the outcome is not settled")
				}
				time.Sleep(50 * time.Millisecond)
				most := 1
				if blind {
					most = 2
				}
				if n := p.total(); n < 1 || n > most {
					t.Errorf("%d messages", n)
				}
			})
		}
	}
}

// Two processes deliver for one platform: one of them at a time, and each
// outcome once.
func TestTwoReplicas(t *testing.T) {
	q := open(t)
	p := &platform{posts: map[string]int{}}
	if _, err := q.Cursor(context.Background(), "bots/test"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	for range 2 {
		d := deliverer(q, p, NewMetrics(nil))
		run.Go(func() { _ = d.Run(ctx) })
	}
	for i := range 20 {
		outcome(t, q, fmt.Sprint(i))
	}
	if !until(func() bool { return p.total() == 20 }) {
		t.Errorf("%d of 20 outcomes", p.total())
	}
	time.Sleep(100 * time.Millisecond)
	if n := p.total(); n != 20 {
		t.Errorf("%d messages for 20 outcomes", n)
	}
	stop()
	run.Wait()
}

// limited is a platform with 45 edits and 300 posts a minute in all, and one
// post a second and channel, as Slack has them.
type limited struct{}

func (limited) Buckets(k Kind, channel string) []string {
	if k == PostMessage {
		return []string{"post/" + channel, "posts"}
	}
	return []string{"edits"}
}

func (limited) Rate(bucket string) (float64, int) {
	switch bucket {
	case "edits":
		return 0.75, 5
	case "posts":
		return 5, 5
	}
	return 1, 2
}

// 200 jobs with 5,000 progress events a minute: no limit is passed, and results
// go ahead of all progress. Time is simulated.
func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbound(limited{}, 8)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { o.Run(ctx) })
		var mu sync.Mutex
		var edits, posts []time.Time
		record := func(list *[]time.Time) func(context.Context) error {
			return func(context.Context) error {
				time.Sleep(150 * time.Millisecond) // an answer's time
				mu.Lock()
				defer mu.Unlock()
				*list = append(*list, time.Now())
				return nil
			}
		}
		var worst atomic.Int64
		begin := time.Now()
		for i := range 5000 {
			time.Sleep(time.Minute / 5000)
			o.Latest(fmt.Sprintf("status/%d", i%200), Progress, limited{}.Buckets(EditMessage, ""), time.Time{}, record(&edits), nil)
			if i%25 == 0 { // a job ends, each in one of 200 channels
				asked := time.Now()
				run.Go(func() {
					if err := o.Send(ctx, Result, limited{}.Buckets(PostMessage, fmt.Sprint(i/25)), record(&posts)); err != nil {
						t.Error(err)
					}
					for d := int64(time.Since(asked)); ; {
						old := worst.Load()
						if d <= old || worst.CompareAndSwap(old, d) {
							return
						}
					}
				})
			}
		}
		time.Sleep(10 * time.Second)
		if n := o.Waiting(); n > 200 {
			t.Errorf("%d operations wait", n)
		}
		stop()
		run.Wait()
		if w := time.Duration(worst.Load()); w > 5*time.Second {
			t.Errorf("a result was delayed by %v", w)
		}
		if len(posts) != 200 {
			t.Errorf("%d of 200 results", len(posts))
		}
		for i := range edits { // no minute with more edits than the limit
			n, _ := slices.BinarySearchFunc(edits, edits[i].Add(time.Minute), time.Time.Compare)
			if n-i > 50 {
				t.Errorf("%d edits within a minute from %v", n-i, edits[i].Sub(begin))
				break
			}
		}
		t.Logf("%d edits, %d results, the slowest after %v", len(edits), len(posts), time.Duration(worst.Load()))
	})
}

// Alerts go first, a limit that is hit is waited for, a newer progress replaces
// the older. Time is simulated.
func TestOutboundOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbound(free{}, 1)
		var mu sync.Mutex
		var order []string
		note := func(s string) func(context.Context) error {
			return func(context.Context) error { mu.Lock(); defer mu.Unlock(); order = append(order, s); return nil }
		}
		o.Latest("k", Progress, []string{"a"}, time.Time{}, note("old"), nil)
		o.Latest("k", Progress, []string{"a"}, time.Time{}, note("new"), nil)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		for _, p := range []Priority{Result, Alert} {
			run.Go(func() { _ = o.Send(ctx, p, []string{"a"}, note(fmt.Sprint(p))) })
		}
		var tries atomic.Int32
		run.Go(func() {
			err := o.Send(ctx, Result, []string{"slow"}, func(context.Context) error {
				if tries.Add(1) == 1 {
					return &bots.ChatError{Trouble: bots.TroubleLimited, RetryAfter: time.Minute, Err: errors.New("429")}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		began := time.Now()
		run.Go(func() { o.Run(ctx) })
		time.Sleep(30 * time.Second)
		mu.Lock()
		if !slices.Equal(order, []string{"2", "1", "new"}) {
			t.Errorf("order %v", order)
		}
		mu.Unlock()
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries before the limit ended", n)
		}
		time.Sleep(31 * time.Second)
		if n := tries.Load(); n != 2 {
			t.Errorf("%d tries %v after the refusal", n, time.Since(began))
		}
		stop()
		run.Wait()
	})
}

// Progress of a 2-hour job: edits are sparse after ten minutes and none come
// after 55, so that the platform's limit on old messages is never met.
func TestEditsOverTwoHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{posts: map[string]int{}}
		d := New(Defaults(), nil, p, free{}, &bots.Renderer{}, NewMetrics(nil), slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { d.out.Run(ctx) })
		start := time.Now()
		job := queue.Job{Request: queue.Request{ID: "01JABCDEFGHJKMNPQRSTVWXYZ0", Prompt: "a mug"}, Status: queue.Leased, Submitted: start}
		d.tracks[job.ID] = &track{job: job, known: true, posted: bots.Posted{Spot: bots.Spot{Channel: "c"}, ID: "m"}}
		count := map[string]int{}
		for step := 1; time.Since(start) < 2*time.Hour; step++ {
			before := p.edited()
			time.Sleep(2 * time.Second)
			e := queue.Event{Kind: queue.EventProgress, Job: job.ID, At: time.Now(), Stage: queue.StageOptimise, Step: step, Total: 3600}
			if err := d.status(ctx, &e); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			switch age := time.Since(start); {
			case age < 10*time.Minute:
				count["dense"] += p.edited() - before
			case age < 56*time.Minute+time.Second:
				count["sparse"] += p.edited() - before
			default:
				count["late"] += p.edited() - before
			}
		}
		stop()
		run.Wait()
		// 120 and 46 by the numbers; an event at the very moment of an edit may add one.
		if count["dense"] < 60 || count["dense"] > 140 || count["sparse"] < 30 || count["sparse"] > 60 || count["late"] != 0 {
			t.Errorf("edits %v", count)
		}
	})
}
