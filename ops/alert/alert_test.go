package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hot(state queue.AlertState) queue.Alert {
	return queue.Alert{Code: "gpu_hot", Key: "h/GPU-1", Severity: queue.Critical, State: state, Text: "GPU 0 is too hot.", Since: time.Now().UTC(), Source: "h"}
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
func start(t *testing.T, cfg Config, q Queue) *Sender {
	t.Helper()
	cfg.Retry = 20 * time.Millisecond
	s := New(cfg, q, nil)
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

// states lists what the stream holds.
func states(t *testing.T, q queue.Alerts) (out []string) {
	t.Helper()
	as, err := q.Alerts(t.Context(), "", 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range as {
		out = append(out, a.Key+" "+string(a.State))
	}
	return out
}

// hook is a webhook that remembers.
type hook struct {
	*httptest.Server
	mu  sync.Mutex
	got []queue.Alert
	at  []time.Time // when each came
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a queue.Alert
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil || r.Header.Get("Authorization") != "Bearer x" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got, h.at = append(h.got, a), append(h.at, time.Now())
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) config() Config {
	return Config{Webhook: h.URL, Header: http.Header{"Authorization": {"Bearer x"}}, Again: time.Nanosecond}
}

func (h *hook) all() []queue.Alert {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]queue.Alert(nil), h.got...)
}

func TestSameConditionIsOneMessage(t *testing.T) {
	q, h := openQueue(t), newHook(t)
	first, second := start(t, h.config(), q), start(t, h.config(), q)
	for range 250 {
		first.Put(hot(queue.Firing))
		second.Put(hot(queue.Firing))
	}
	told := 0
	through := func(s *Sender) { // what comes after proves that the line before it is through
		t.Helper()
		told++
		other := hot(queue.Firing)
		other.Key = fmt.Sprintf("h/other-%d", told)
		s.Put(other)
		count := func(list []string) (n int) {
			for _, x := range list {
				if x == other.Key+" firing" {
					n++
				}
			}
			return n
		}
		eventually(t, "the line is through", func() bool {
			var posted []string
			for _, a := range h.all() {
				posted = append(posted, a.Key+" "+string(a.State))
			}
			return count(states(t, q)) == 1 && count(posted) == 1
		})
	}
	through(first)
	through(second)
	first.Put(hot(queue.Resolved))
	through(first)
	second.Put(hot(queue.Resolved))
	through(second)
	for what, list := range map[string]int{"stream": len(states(t, q)), "webhook": len(h.all())} {
		if list != 2+told {
			t.Errorf("%s: %d messages about one episode: %v %+v", what, list-told, states(t, q), h.all())
		}
	}
	firing, err := q.FiringAlerts(t.Context())
	if err != nil || len(firing) != told {
		t.Fatalf("%+v %v", firing, err)
	}
}

// A condition that comes and goes 500 times is one message and its end, until
// the pause between episodes is over.
func TestFlapping(t *testing.T) {
	q, h := openQueue(t), newHook(t)
	cfg := h.config()
	cfg.Again = 3 * time.Second
	s := start(t, cfg, q)
	for range 500 {
		s.Put(hot(queue.Firing))
		s.Put(hot(queue.Resolved))
	}
	s.Put(hot(queue.Firing))
	eventually(t, "what still holds after the pause is told", func() bool { return len(states(t, q)) == 3 && len(h.all()) == 3 })
	if pause := h.at[2].Sub(h.at[1]); pause < cfg.Again/2 { // the second may have come late
		t.Errorf("the second episode was told %v after the end of the first", pause)
	}
}

func TestNewTextIsAnEditOnce(t *testing.T) {
	q, h := openQueue(t), newHook(t)
	cfg := h.config()
	cfg.Edit = 3 * time.Second
	s := start(t, cfg, q)
	s.Put(hot(queue.Firing))
	eventually(t, "it is told", func() bool { return len(states(t, q)) == 1 })
	early := hot(queue.Firing)
	early.Text = "GPU 0 is at 89 °C."
	s.Put(early)
	time.Sleep(cfg.Edit + 200*time.Millisecond)
	for i := range 50 {
		a := hot(queue.Firing)
		a.Text = fmt.Sprintf("GPU 0 is at %d °C.", 90+i)
		s.Put(a)
	}
	s.Put(hot(queue.Resolved))
	eventually(t, "the end is told", func() bool { return len(h.all()) == 2 })
	eventually(t, "begin, one new text, end", func() bool { return len(states(t, q)) == 3 })
	as, err := q.Alerts(t.Context(), "", 10, 0)
	if err != nil || as[1].Text != "GPU 0 is at 90 °C." || !as[1].Since.Equal(as[0].Since) {
		t.Errorf("%+v %v", as, err)
	}
}

func TestSilence(t *testing.T) {
	q, h := openQueue(t), newHook(t)
	silence := func(code, key string) *queue.Silence {
		return &queue.Silence{Code: code, Key: key, By: "test", At: time.Now(), Until: time.Now().Add(time.Hour)}
	}
	if err := queue.AddSilence(t.Context(), q, silence("gpu_*", "h/*")); err != nil {
		t.Fatal(err)
	}
	s := start(t, h.config(), q)
	short, long, other := hot(queue.Firing), hot(queue.Firing), hot(queue.Firing)
	short.Key, long.Key, other.Key = "h/short", "h/long", "elsewhere/GPU-1"
	s.Put(short)
	s.Put(long)
	s.Put(other)
	eventually(t, "what is not silenced is told", func() bool { return len(h.all()) == 1 && len(states(t, q)) == 1 })
	short.State = queue.Resolved
	s.Put(short)
	if err := queue.RemoveSilence(t.Context(), q, "gpu_*", "h/*"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what holds when the silence ends is told", func() bool { return len(h.all()) == 2 && len(states(t, q)) == 2 })
	if got := states(t, q); got[0] != "elsewhere/GPU-1 firing" || got[1] != "h/long firing" {
		t.Errorf("%v", got)
	}
	if err := queue.RemoveSilence(t.Context(), q, "gpu_*", "h/*"); queue.CodeOf(err) != queue.CodeNotFound {
		t.Errorf("removing it twice: %v", err)
	}
}

// onRedis opens the server's queue, as a process of its own would.
func onRedis(t *testing.T, server *queuetest.Redis) *redisq.Queue {
	t.Helper()
	o, err := redisq.ParseURL("redis://" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	q, err := redisq.Open(t.Context(), queue.DefaultConfig(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// With Redis dead the webhook has an alert within 5 s; back again, Redis gets all
// in order, and the next episode is told once though the records are old.
func TestKeptWhileRedisIsAway(t *testing.T) {
	// Without always, a busy disk may hold a write back for two seconds, and the kill loses it.
	server := queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	q := onRedis(t, server)
	h := newHook(t)
	s := start(t, h.config(), q)
	s.Put(hot(queue.Firing))
	eventually(t, "it is told", func() bool { return len(h.all()) == 1 && len(states(t, q)) == 1 })
	server.Kill()
	begin := time.Now()
	s.Put(hot(queue.Resolved))
	eventually(t, "the webhook has the end while Redis is away", func() bool { return len(h.all()) == 2 })
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	s.Put(hot(queue.Firing))
	eventually(t, "the webhook has the next episode", func() bool { return len(h.all()) == 3 })
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Redis is back", func() bool { _, err := q.Alerts(t.Context(), "", 1, 0); return err == nil })
	eventually(t, "Redis has all in order", func() bool { return len(states(t, q)) == 3 })
	s.Put(hot(queue.Resolved))
	eventually(t, "the end is told", func() bool { return len(states(t, q)) == 4 && len(h.all()) == 4 })
	if got := h.all(); got[2].State != queue.Firing || got[3].State != queue.Resolved {
		t.Errorf("%+v", got)
	}
}

func TestWebhookThatFailsIsAskedAgain(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer server.Close()
	s := start(t, Config{Webhook: server.URL}, openQueue(t))
	s.Put(hot(queue.Firing))
	eventually(t, "the third attempt", func() bool { return asked.Load() == 3 })
}

// What another process tells for all is held, and told only if it lasts; what is
// no longer this process's is forgotten.
func TestDeferAndRelease(t *testing.T) {
	h := newHook(t)
	var deferred atomic.Bool
	deferred.Store(true)
	cfg := h.config()
	cfg.Defer = func(a *queue.Alert) bool { return a.Key != "own" && deferred.Load() }
	s := start(t, cfg, openQueue(t))
	put := func(key string, state queue.AlertState) {
		a := hot(state)
		a.Key = key
		s.Put(a)
	}
	put("short", queue.Firing)
	put("long", queue.Firing)
	put("short", queue.Resolved)
	put("own", queue.Firing) // told: what came before is through
	eventually(t, "its own is told", func() bool { return len(h.all()) == 1 })
	deferred.Store(false)
	eventually(t, "what lasts is told", func() bool { return len(h.all()) == 2 })
	if got := h.all(); got[0].Key != "own" || got[1].Key != "long" {
		t.Errorf("%+v", got)
	}
	s.Release(func(code string) bool { return code == "gpu_hot" })
	time.Sleep(time.Second)
	put("own", queue.Resolved)
	eventually(t, "its end is told", func() bool { return len(h.all()) == 3 })
}

// Two processes that both told the webhook while the queue was away tell its end
// once, and the stream has one episode.
func TestOneEndAfterAnOutage(t *testing.T) {
	server := queuetest.StartRedis(t, "--appendonly", "yes")
	q, h := onRedis(t, server), newHook(t)
	first, second := start(t, h.config(), q), start(t, h.config(), onRedis(t, server))
	server.Kill()
	begun := hot(queue.Firing)
	begun.Since = time.Now().Add(-time.Minute).UTC()
	begun.At = begun.Since
	first.Put(begun)
	begun.Source = "other"
	second.Put(begun)
	eventually(t, "both have told", func() bool { return len(h.all()) == 2 })
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Redis is back", func() bool { _, err := q.Alerts(t.Context(), "", 1, 0); return err == nil })
	ended := begun
	ended.State, ended.At = queue.Resolved, time.Now().UTC()
	first.Put(ended)
	eventually(t, "the end is told", func() bool { return len(h.all()) == 3 && len(states(t, q)) == 2 })
	second.Put(ended)
	after := hot(queue.Firing) // a new episode shows that what came before is through
	after.Source = "other"
	second.Put(after)
	eventually(t, "the next episode is told", func() bool { return len(states(t, q)) >= 3 && len(h.all()) >= 4 })
	if got := states(t, q); len(got) != 3 || len(h.all()) != 4 || h.all()[3].State != queue.Firing {
		t.Errorf("stream %v, webhook %+v", got, h.all())
	}
}
