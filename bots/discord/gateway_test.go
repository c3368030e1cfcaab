package discord

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

// Of two processes one serves the token; the other stands by, which is no
// trouble, also after it was the first and lost its turn.
func TestTwoBotsOnOneToken(t *testing.T) {
	w := newWorld(t)
	first := &loser{Store: w.Q}
	w.bot.store = first
	w.start()
	second := w.newBot()
	ctx, cancel := context.WithCancel(w.Ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = second.Run(ctx) })
	defer parts.Wait()
	defer cancel()
	serves := func(a, b *Bot) bool {
		h, other := a.Health(), b.Health()
		return h.Connected && !h.Standby && !other.Connected && other.Standby && other.Problem == ""
	}
	if !w.server.Wait(patience, func() bool { return serves(w.bot, second) }) {
		t.Fatalf("%+v, %+v", w.bot.Health(), second.Health())
	}
	w.dream("42", "a mug")
	if n := w.server.Connected(); n != 1 {
		t.Errorf("%d sessions on one token", n)
	}
	first.lost.Store(true)
	if !w.server.Wait(patience, func() bool { return serves(second, w.bot) }) {
		t.Fatalf("%+v, %+v", w.bot.Health(), second.Health())
	}
	if n := w.server.Connected(); n != 1 {
		t.Errorf("%d sessions on one token", n)
	}
}

// loser is a store that loses the lock when it is told so.
type loser struct {
	Store
	lost atomic.Bool
}

func (l *loser) Renew(ctx context.Context, lock queue.Lock, life time.Duration) error {
	if l.lost.Load() {
		return &queue.Error{Code: queue.CodeLost}
	}
	return l.Store.Renew(ctx, lock, life)
}

// A platform that cannot be reached is a problem from the start.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	w.server.Break(discordtest.Fault{Path: "/users/@me", Status: 503})
	ctx, cancel := context.WithCancel(w.Ctx)
	done := make(chan error, 1)
	go func() { done <- w.bot.Run(ctx) }()
	if !w.server.Wait(patience, func() bool { h := w.bot.Health(); return !h.Connected && !h.Standby && h.Problem != "" }) {
		t.Errorf("%+v", w.bot.Health())
	}
	w.server.Heal()
	if !w.server.Wait(patience, func() bool { h := w.bot.Health(); return h.Connected && h.Problem == "" }) {
		t.Errorf("%+v", w.bot.Health())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestGatewayTrouble(t *testing.T) {
	for name, trouble := range map[string]func(*discordtest.Server){
		"op 7":    func(s *discordtest.Server) { s.AskReconnect() },
		"dropped": func(s *discordtest.Server) { s.CloseGateway(0) },
		"4000":    func(s *discordtest.Server) { s.CloseGateway(4000) },
		"4007":    func(s *discordtest.Server) { s.CloseGateway(4007) },
		"4009":    func(s *discordtest.Server) { s.CloseGateway(4009) },
		"op 1":    func(s *discordtest.Server) { s.AskHeartbeat() },
		"no hello": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{NoHello: true})
			s.CloseGateway(0)
			time.AfterFunc(3*time.Second, func() { s.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond}) })
		},
		"early op 7": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{ReconnectFirst: true})
			s.CloseGateway(0)
			time.AfterFunc(3*time.Second, func() { s.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond}) })
		},
		"resumable": func(s *discordtest.Server) { s.AskResume() },
		"resumable later": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{TryResume: 2, Heartbeat: 200 * time.Millisecond})
			s.CloseGateway(0)
		},
		"invalid session": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{InvalidSession: true, Heartbeat: 200 * time.Millisecond})
			s.CloseGateway(0)
		},
		"zombie": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{NoAck: true, Heartbeat: 200 * time.Millisecond})
			s.CloseGateway(0)
			time.AfterFunc(3*time.Second, func() { s.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond}) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.impatient()
			w.start()
			trouble(w.server)
			// Interactions that arrive while it is away are replayed on resume
			// or lost with the session; people try again.
			var in *discordtest.Interaction
			if !w.server.Wait(6*patience, func() bool {
				if w.server.Connected() == 0 {
					return false
				}
				in = w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug"})
				kind, _, _ := w.server.WaitAnswer(in, 5*time.Second)
				return kind == 4
			}) {
				t.Fatalf("the bot does not come back; log:\n%s", w.Log)
			}
			if resumes := name == "dropped" || name == "op 7" || name == "resumable"; resumes && !w.server.Wait(patience, func() bool { return w.server.Resumes() > 0 }) {
				t.Errorf("the session was not resumed; log:\n%s", w.Log)
			}
		})
	}
}

// The gateway sends each interaction twice: it is one job and one answer.
func TestDuplicatedDispatches(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.server.Script(discordtest.GatewayScript{Duplicate: true, Heartbeat: 200 * time.Millisecond})
	keys := map[string]int{}
	for i := range 6 { // the same wish again is another job
		in := w.server.Command(w.person(fmt.Sprint(42+i%3)), "dream", map[string]any{"prompt": "a mug"})
		keys["discord/"+in.ID] = 0
		if kind, _, _ := w.server.WaitAnswer(in, patience); kind != 4 {
			t.Fatalf("no answer to command %d (kind %d); log:\n%s", i, kind, w.Log)
		}
	}
	// The session reads in order: with the answer to this one all copies were read.
	if kind, _, _ := w.server.WaitAnswer(w.server.Command(w.person("42"), "help", nil), patience); kind != 4 {
		t.Fatalf("no answer to /help; log:\n%s", w.Log)
	}
	stop()
	jobs, err := w.Q.List(w.Ctx, queue.Filter{})
	for _, j := range jobs {
		keys[j.Key]++
	}
	for key, n := range keys {
		if n != 1 || err != nil {
			t.Errorf("%d jobs of interaction %q, %v", n, key, err)
		}
	}
	for _, r := range w.server.Requests(http.MethodPost, "/interactions/") {
		if bytes.Contains(r.Answer, []byte("40060")) {
			t.Errorf("an interaction was answered again: %s", r.Answer)
		}
	}
}

// A bad token or a missing intent ends the session for good: trying on would
// burn identifies.
func TestFatalClose(t *testing.T) {
	for _, code := range []int{4004, 4014} {
		w := newWorld(t)
		w.server.RefuseNext(code)
		ctx, cancel := context.WithCancel(w.Ctx)
		done := make(chan error, 1)
		go func() { done <- w.bot.Run(ctx) }()
		if !w.server.Wait(patience, func() bool { return w.bot.Health().Problem != "" && w.server.Identifies() > 0 }) {
			t.Errorf("%d: no problem is reported", code)
		}
		time.Sleep(time.Second)
		if n := w.server.Identifies(); n > 1 {
			t.Errorf("%d: %d identifies", code, n)
		}
		cancel()
		if err := <-done; err == nil {
			t.Errorf("%d: Run ends without an error", code)
		}
	}
}

func TestRevokedToken(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.server.Revoke()
	w.server.CloseGateway(0)
	if !w.server.Wait(patience, func() bool { return w.bot.Health().Revoked }) {
		t.Fatalf("log:\n%s", w.Log)
	}
	n := len(w.server.Requests("", ""))
	time.Sleep(time.Second)
	if more := len(w.server.Requests("", "")) - n; more > 2 {
		t.Errorf("%d more requests with a dead token", more)
	}
}

func TestHTTPEndpoint(t *testing.T) {
	w := newWorld(t)
	h, err := w.bot.Endpoint(w.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h)
	defer web.Close()
	defer w.bot.work.Wait()
	ping := map[string]any{"type": 1}
	for _, c := range []struct {
		at   time.Time
		good bool
		want int
	}{
		{time.Now(), true, 200}, {time.Now(), false, 401}, {time.Now().Add(-299 * time.Second), true, 200}, {time.Now().Add(-301 * time.Second), true, 401},
	} {
		status, body, err := w.server.SignedRequest(web.URL, ping, c.at, c.good)
		if err != nil || status != c.want || status == 200 && string(body) != `{"type":1}` {
			t.Errorf("PING at %v, good %v: %d %s %v", time.Since(c.at), c.good, status, body, err)
		}
	}
	in, status, err := w.server.CommandHTTP(web.URL, w.person("42"), "dream", map[string]any{"prompt": "a mug"})
	if err != nil || status != 200 {
		t.Fatalf("command: %d, %v; log:\n%s", status, err, w.Log)
	}
	if _, _, m := w.server.Answer(in); m == nil || !strings.Contains(m.Content, "Queued") {
		t.Errorf("answer %+v", m)
	}
	jobs, _ := w.Q.List(w.Ctx, queue.Filter{User: "discord:42"})
	if len(jobs) != 1 || !w.server.Wait(patience, func() bool { _, err := w.Q.Get(w.Ctx, "bots/msg/"+jobs[0].ID); return err == nil }) {
		t.Errorf("%d jobs, or the message is not known", len(jobs))
	}
	var payload json.RawMessage
	if payload, err = json.Marshal(map[string]any{"type": 2, "id": "1", "token": "x", "data": map[string]any{"name": "help"}}); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := w.server.SignedRequest(web.URL, payload, time.Now(), false); status != 401 {
		t.Errorf("a forged command got %d", status)
	}
}
