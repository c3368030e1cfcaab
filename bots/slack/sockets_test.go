package slack

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

func TestSockets(t *testing.T) {
	for name, trouble := range map[string]func(*slacktest.Server){
		"refresh": func(s *slacktest.Server) { s.Disconnect("refresh_requested") },
		"warning": func(s *slacktest.Server) { s.Disconnect("warning") },
		"dropped": func(s *slacktest.Server) { s.Drop() },
		"silent":  func(s *slacktest.Server) { s.Silence(true); time.Sleep(4 * time.Second); s.Silence(false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.start()
			trouble(w.server)
			if !w.server.Wait(6*patience, func() bool {
				if w.server.Connected() == 0 {
					return false
				}
				in := w.server.WaitAck(w.server.Command("U42", w.Channel, "help"), 5*time.Second)
				return !in.Acked.IsZero()
			}) {
				t.Errorf("the app does not come back; log:\n%s", w.Log)
			}
		})
	}
}

// A redelivered envelope is one job.
func TestRedelivery(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	in := w.server.Command("U42", w.Channel, "a mug")
	w.server.WaitAck(in, patience)
	w.server.Resend(in)
	if again := w.server.WaitAck(in, patience); again.Acked.IsZero() {
		t.Error("the redelivered envelope was not acknowledged")
	}
	stop() // when all that was taken is done
	if jobs, err := w.Q.List(w.Ctx, queue.Filter{}); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
}

func TestRevoked(t *testing.T) {
	w := newWorld(t)
	done := make(chan error, 1)
	w.server.Revoke()
	go func() { done <- w.bot.Run(w.Ctx) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run ends without an error")
		}
	case <-time.After(patience):
		t.Fatal("the app goes on with dead tokens")
	}
	if n := len(w.server.Requests("apps.connections.open")); n > 4 {
		t.Errorf("%d attempts with dead tokens", n)
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
	for _, c := range []struct {
		age  time.Duration
		good bool
		want int
	}{{0, true, 200}, {0, false, 401}, {299 * time.Second, true, 200}, {301 * time.Second, true, 401}} {
		in, status, err := w.server.CommandHTTP(web.URL, "U42", w.Channel, "help", time.Now().Add(-c.age), c.good)
		if err != nil || status != c.want || status == 200 && !bytes.Contains(in.Ack, []byte("ephemeral")) {
			t.Errorf("%v old, good %v: %d %s %v", c.age, c.good, status, in.Ack, err)
		}
	}
	in, _, err := w.server.CommandHTTP(web.URL, "U42", w.Channel, "a mug", time.Now(), true)
	if err != nil || !bytes.Contains(in.Ack, []byte("Queued")) {
		t.Errorf("command: %s %v", in.Ack, err)
	}
}

// Two processes with sockets of their own: each command reaches one of them and
// makes one job.
func TestTwoProcesses(t *testing.T) {
	w := newWorld(t)
	w.start()
	second := New(w.bot.config, w.Service, w.Q, w.Logger)
	ctx, cancel := context.WithCancel(w.Ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = second.Run(ctx) })
	defer parts.Wait()
	defer cancel()
	if !w.server.Wait(patience, func() bool { return w.server.Connected() == 4 }) {
		t.Fatalf("%d sockets", w.server.Connected())
	}
	for i := range 20 {
		in := w.server.WaitAck(w.server.Command(fmt.Sprint("U", i), w.Channel, "a mug"), patience)
		if !bytes.Contains(in.Ack, []byte("Queued")) {
			t.Errorf("command %d: %s", i, in.Ack)
		}
	}
	if jobs, err := w.Q.List(w.Ctx, queue.Filter{}); err != nil || len(jobs) != 20 {
		t.Errorf("%d jobs of 20 commands, %v", len(jobs), err)
	}
}

// A captured request that is played again within the five minutes makes no
// second job.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	h, err := w.bot.Endpoint(w.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h)
	defer web.Close()
	defer w.bot.work.Wait()
	body := []byte("command=%2Fdream&text=a+mug&user_id=U42&team_id=T1&channel_id=" + w.Channel + "&trigger_id=one")
	for range 3 {
		if status, _, err := w.server.PostSigned(web.URL, body, time.Now(), true); err != nil || status != 200 {
			t.Errorf("%d %v", status, err)
		}
	}
	w.bot.work.Wait()
	if jobs, _ := w.Q.List(w.Ctx, queue.Filter{}); len(jobs) != 1 {
		t.Errorf("%d jobs", len(jobs))
	}
}
