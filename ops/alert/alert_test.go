package alert

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hot(state queue.AlertState) queue.Alert {
	return queue.Alert{Code: "gpu_hot", Key: "h/GPU-1", Severity: queue.Critical, State: state, Text: "GPU 0 is too hot.", Since: time.Unix(1700000000, 0).UTC(), Source: "h"}
}

func openQueue(t *testing.T) *sqliteq.Queue {
	t.Helper()
	q, err := sqliteq.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// start runs a sender until the test ends.
func start(t *testing.T, cfg Config, stream Stream) *Sender {
	t.Helper()
	cfg.Retry = 20 * time.Millisecond
	s := New(cfg, stream, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestSameConditionIsOneMessage(t *testing.T) {
	q := openQueue(t)
	count := func() int {
		as, err := q.Alerts(t.Context(), "", 1000, 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(as)
	}
	first, second := start(t, Config{}, q), start(t, Config{}, q)
	for range 250 {
		first.Put(hot(queue.Firing))
	}
	eventually(t, "the alert is in the stream", func() bool { return count() == 1 })
	for range 250 {
		second.Put(hot(queue.Firing))
	}
	first.Put(hot(queue.Resolved))
	eventually(t, "the end is in the stream", func() bool { return count() == 2 })
	second.Put(hot(queue.Resolved))
	other := hot(queue.Firing)
	other.Key = "h/GPU-2" // what comes after proves that the line before it is through
	second.Put(other)
	eventually(t, "another card has its own", func() bool { return count() == 3 })
	firing, err := q.FiringAlerts(t.Context())
	if err != nil || len(firing) != 1 || firing[0].Key != "h/GPU-2" {
		t.Fatalf("%+v %v", firing, err)
	}
}

// awayQueue is a real queue that can be made unreachable.
type awayQueue struct {
	Stream
	away atomic.Bool
}

func (q *awayQueue) FiringAlerts(ctx context.Context) ([]queue.Alert, error) {
	if q.away.Load() {
		return nil, errors.New("connection refused")
	}
	return q.Stream.FiringAlerts(ctx)
}

func TestKeptWhileTheQueueIsAway(t *testing.T) {
	real := openQueue(t)
	q := &awayQueue{Stream: real}
	q.away.Store(true)
	var mu sync.Mutex
	var posted []queue.Alert
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a queue.Alert
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil || r.Header.Get("Authorization") != "Bearer x" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		posted = append(posted, a)
	}))
	defer hook.Close()
	s := start(t, Config{Webhook: hook.URL, Header: http.Header{"Authorization": {"Bearer x"}}}, q)
	s.Put(hot(queue.Firing))
	s.Put(hot(queue.Resolved))
	s.Put(hot(queue.Firing))
	eventually(t, "the webhook has all while the queue is away", func() bool { mu.Lock(); defer mu.Unlock(); return len(posted) == 3 })
	if posted[0] != hot(queue.Firing) || posted[1] != hot(queue.Resolved) {
		t.Fatalf("%+v", posted)
	}
	q.away.Store(false)
	eventually(t, "the queue has all in order", func() bool {
		as, err := real.Alerts(t.Context(), "", 10, 0)
		return err == nil && len(as) == 3 && as[0].State == queue.Firing && as[1].State == queue.Resolved && as[2].State == queue.Firing
	})
}

func TestWebhookThatFailsIsAskedAgain(t *testing.T) {
	var asked atomic.Int32
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer hook.Close()
	s := start(t, Config{Webhook: hook.URL}, nil)
	s.Put(hot(queue.Firing))
	eventually(t, "the third attempt", func() bool { return asked.Load() == 3 })
}
