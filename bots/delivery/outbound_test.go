package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dreamcad/bots"
)

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
		if !slices.Equal(order, []string{fmt.Sprint(Alert), fmt.Sprint(Result), "new"}) {
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

// An edit that is slow and then refused for going too fast does not come after a
// newer one of the same message.
func TestNewestEditIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbound(free{}, 8)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { o.Run(ctx) })
		shown := ""
		refusals := 1
		o.Latest("status", Progress, []string{"a"}, time.Time{}, func(context.Context) error {
			time.Sleep(3 * time.Second)
			if refusals--; refusals >= 0 {
				return &bots.ChatError{Trouble: bots.TroubleLimited, RetryAfter: time.Second, Err: errors.New("429")}
			}
			shown = "step 9 of 10"
			return nil
		}, nil)
		time.Sleep(time.Second)
		o.Latest("status", Progress, []string{"a"}, time.Time{}, func(context.Context) error { shown = "done"; return nil }, nil)
		time.Sleep(time.Minute)
		stop()
		run.Wait()
		if shown != "done" || o.Waiting() != 0 {
			t.Errorf("the message shows %q, %d operations wait", shown, o.Waiting())
		}
	})
}

// Operations that take very long fill all places; an alert has places of its own.
func TestAlertsPassSlowOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbound(free{}, 4)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { o.Run(ctx) })
		for i := range 40 {
			run.Go(func() {
				_ = o.Send(ctx, Result, []string{fmt.Sprint("c", i)}, func(ctx context.Context) error { sleep(ctx, time.Minute); return nil })
			})
		}
		time.Sleep(time.Second)
		asked := time.Now()
		if err := o.Send(ctx, Alert, []string{"ops"}, func(ctx context.Context) error { sleep(ctx, 200*time.Millisecond); return nil }); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took > 5*time.Second {
			t.Errorf("an alert took %v", took)
		}
		stop()
		run.Wait()
	})
}

// What is known of channels that nobody posts to any more is forgotten; a block
// is not.
func TestBucketsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbound(limited{}, 8)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { o.Run(ctx) })
		o.Block("post/blocked", time.Now().Add(time.Hour))
		for i := range 20_000 {
			if err := o.Send(ctx, Result, []string{fmt.Sprint("post/", i)}, func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		o.mu.Lock()
		n, blocked := len(o.buckets), o.buckets["post/blocked"]
		o.mu.Unlock()
		if n > 4000 {
			t.Errorf("%d buckets after 20,000 channels", n)
		}
		if blocked == nil || !blocked.blocked.After(time.Now()) {
			t.Error("a block is forgotten")
		}
		stop()
		run.Wait()
	})
}
