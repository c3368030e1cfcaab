package redisq_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// Many callers at once share pipelines; the server's script cache is emptied
// again and again meanwhile. Each caller gets the answer to its own call.
func TestSharedPipelines(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	c := r.Client()
	before := reads(t, r)
	const callers, each = 40, 25
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				req := queuetest.Request(strconv.Itoa(i), fmt.Sprint("thing ", i, " ", n))
				req.Key = fmt.Sprint(i, "/", n)
				first, err := f.q.Submit(f.ctx, req)
				again, err2 := f.q.Submit(f.ctx, req)
				if err = errors.Join(err, err2); err != nil || !first.New || again.New || again.ID != first.ID {
					t.Errorf("%+v, again %+v: %v", first, again, err)
					return
				}
				if i == 0 && n%5 == 0 {
					if err := c.ScriptFlush(f.ctx).Err(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for i := range callers {
		js, err := f.q.List(f.ctx, queue.Filter{User: "test:" + strconv.Itoa(i), Limit: 100})
		if err != nil || len(js) != each {
			t.Fatalf("user %d has %d jobs of %d: %v", i, len(js), each, err)
		}
	}
	if n := reads(t, r) - before; n > 2*callers*each*3/4 {
		t.Errorf("%d reads of the server for %d calls: they were not gathered", n, 2*callers*each)
	}
}

// reads counts how often the server has read from its clients.
func reads(t *testing.T, r *queuetest.Redis) int {
	t.Helper()
	s, err := r.Client().Info(t.Context(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, s, _ = strings.Cut(s, "total_reads_processed:")
	s, _, _ = strings.Cut(s, "\r\n")
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A server that stands still keeps nobody beyond their own deadline, and all
// goes on when it goes on.
func TestSharedPipelineDeadlines(t *testing.T) {
	r := queuetest.StartRedis(t)
	f := setupFault(t, r.Addr)
	id := f.submit("a", "thing")
	o, err := redisq.ParseURL(f.url)
	if err != nil {
		t.Fatal(err)
	}
	o.ReadTimeout = 10 * time.Minute // else the client gives up by itself
	q, err := redisq.Open(f.ctx, faultConfig(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	beat := func(within time.Duration) error {
		ctx, stop := context.WithTimeout(f.ctx, within)
		defer stop()
		_, err := q.Heartbeat(ctx, queue.Ref{Job: id, Lease: "none"}, queue.Beat{})
		return err
	}
	r.Signal(syscall.SIGSTOP)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			within := time.Duration(100+20*i) * time.Millisecond
			start := time.Now()
			err := beat(within)
			if d := time.Since(start); !errors.Is(err, queue.ErrUnavailable) || d > within+time.Minute {
				t.Errorf("a deadline of %v ended after %v: %v", within, d, err)
			}
		})
	}
	wg.Wait()
	r.Signal(syscall.SIGCONT)
	for range 30 {
		wg.Go(func() {
			if err := beat(time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
