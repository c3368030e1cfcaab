package slack

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

// An envelope that was delivered to one process and again to another is one job.
func TestSameEnvelopeInTwoProcesses(t *testing.T) {
	w := newWorld(t)
	second := w.newBot(patience)
	in := w.server.Command("U42", w.Channel, "a mug")
	var mu sync.Mutex
	var acks []string
	for _, b := range []*Bot{w.bot, second} {
		b.handle(w.Ctx, "slash_commands", in.ID, w.server.Payload(in), func(v any) error {
			mu.Lock()
			defer mu.Unlock()
			if m, ok := v.(map[string]any); ok {
				text, _ := m["text"].(string)
				acks = append(acks, text)
			}
			return nil
		})
		b.work.Wait()
	}
	if jobs, err := w.Q.List(w.Ctx, queue.Filter{}); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	if len(acks) != 2 || !strings.Contains(acks[0], "Queued") || strings.Contains(acks[1], "Queued") {
		t.Errorf("acknowledged with %q", acks)
	}
}

// An acknowledgement that does not arrive loses nothing: the job was written
// down before, and its outcome is told.
func TestAckLost(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.server.Drop() // the command below reaches no socket
	in := w.server.Command("U42", w.Channel, "a mug")
	w.bot.handle(w.Ctx, "slash_commands", "lost", w.server.Payload(in), func(any) error { return errors.New("broken pipe") })
	w.bot.work.Wait()
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Errorf("no result; log:\n%s", w.Log)
	}
}

// A refusal for going too fast is waited for as long as it says.
func TestRetryAfter(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("U42", "a mug")
	w.server.Break(slacktest.Fault{Method: "chat.postMessage", Times: 1, Status: http.StatusTooManyRequests, RetryAfter: 2, Error: "ratelimited"})
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.Log)
	}
	var refused time.Time
	for _, r := range w.server.Requests("chat.postMessage") {
		if r.Status == http.StatusTooManyRequests {
			refused = r.At
		} else if !refused.IsZero() && r.At.Sub(refused) < 1800*time.Millisecond {
			t.Errorf("a message %v after a refusal for 2 s", r.At.Sub(refused))
		}
	}
	if refused.IsZero() {
		t.Error("nothing was refused")
	}
}

// A person who takes no direct messages finds a private result in the history.
func TestNobodyTakesIt(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.server.Break(slacktest.Fault{Method: "conversations.open", Status: http.StatusOK, Error: "cannot_dm_bot"})
	w.server.WaitAck(w.server.Command("U42", w.Channel, "a mug --private"), patience)
	job := w.Newest("U42").ID
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool {
		sent, _ := w.Q.Keys(w.Ctx, "bots/sent/slack/"+job, "")
		due, _ := w.Q.Keys(w.Ctx, "bots/due/slack/", "")
		return len(sent) == 1 && len(due) == 0
	}) {
		t.Fatalf("the outcome is not settled; log:\n%s", w.Log)
	}
	if n := len(w.server.Messages(w.Channel)); n != 0 {
		t.Errorf("%d messages in the channel about a private job", n)
	}
	if text := w.said("U42", "history"); !strings.Contains(text, job) {
		t.Errorf("history: %s", text)
	}
}

// When the token is taken back while the app runs, outcomes are kept for the
// next one.
func TestRevokedLater(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("U42", "a mug")
	w.server.Revoke()
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return strings.Contains(w.Log.String(), "could not be sent yet") }) {
		t.Fatalf("nothing was tried; log:\n%s", w.Log)
	}
	if due, err := w.Q.Keys(w.Ctx, "bots/due/slack/", ""); err != nil || len(due) != 1 {
		t.Errorf("%d outcomes are kept, %v", len(due), err)
	}
}
