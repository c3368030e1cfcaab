package delivery

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The process ends between each two steps of a delivery; another one takes over.
// Exactly one message is posted; where the platform does not let us look, at
// most one more, and that is counted.
func TestRestartBetweenSteps(t *testing.T) {
	for _, step := range []string{"before due", "after due", "before ack", "after sending", "before post", "after post", "after sent"} {
		for _, blind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, blind %v", step, blind), func(t *testing.T) {
				q := open(t)
				p := &platform{posts: map[string]int{}, blind: blind}
				registry := prometheus.NewRegistry()
				metrics := NewMetrics(registry)
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
				n := p.total()
				if n < 1 || n > most {
					t.Errorf("%d messages", n)
				}
				if counted := count(t, registry, "dream_chat_duplicates_possible_total"); counted < n-1 || !blind && counted > 0 {
					t.Errorf("%d messages, %d possible duplicates counted", n, counted)
				}
			})
		}
	}
}

// count reads a counter, over all labels.
func count(t *testing.T, r *prometheus.Registry, name string) (n int) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
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
