package discord

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

// Two processes get the same interaction, as happens when both use the token or
// one takes over from the other: it is one job with one answer, and the slower
// process takes Discord's 40060 for what it is.
func TestSameInteractionInTwoProcesses(t *testing.T) {
	w := newWorld(t)
	second := w.newBot()
	in := w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug"})
	for _, b := range []*Bot{w.bot, second} {
		b.handle(w.Ctx, w.server.Payload(in))
	}
	w.bot.work.Wait()
	second.work.Wait()
	if kind, _, m := w.server.Answer(in); kind != 4 || m == nil || !strings.Contains(m.Content, "Queued") && !strings.Contains(m.Content, "accepted before") {
		t.Errorf("the answer is %d, %+v", kind, m)
	}
	if jobs, err := w.Q.List(w.Ctx, queue.Filter{}); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	refused := 0
	for _, r := range w.server.Requests(http.MethodPost, "/interactions/") {
		if bytes.Contains(r.Answer, []byte("40060")) {
			refused++
		}
	}
	if refused != 1 || strings.Contains(w.Log.String(), "level=WARN") {
		t.Errorf("%d answers were refused; log:\n%s", refused, w.Log)
	}
}

// A global limit holds back everything in every channel for as long as it says.
func TestGlobalLimit(t *testing.T) {
	w := newWorld(t)
	w.start()
	first := w.Channel
	w.dream("42", "a mug")
	w.Channel = w.server.AddChannel("guild1").ID
	w.dream("43", "a cup")
	w.server.Break(discordtest.Fault{Method: http.MethodPost, Path: "/channels/", Times: 1, Status: 429, Header: http.Header{"Retry-After": {"2"}, "X-Ratelimit-Global": {"true"}, "X-Ratelimit-Scope": {"global"}}})
	w.Complete(w.Lease())
	hit := func() (at time.Time, later []time.Time) {
		for _, r := range w.server.Requests("", "/channels/") {
			switch {
			case r.Status == http.StatusTooManyRequests:
				at = r.At
			case !at.IsZero():
				later = append(later, r.At)
			}
		}
		return at, later
	}
	if !w.server.Wait(patience, func() bool { at, _ := hit(); return !at.IsZero() }) {
		t.Fatalf("no refusal; log:\n%s", w.Log)
	}
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool {
		return len(outcomes(w.server.Messages(first), "is ready")) == 1 && len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1
	}) {
		t.Fatalf("no results; log:\n%s", w.Log)
	}
	at, later := hit()
	for _, next := range later {
		if next.Sub(at) < 1800*time.Millisecond {
			t.Errorf("a request %v after a refusal for 2 s", next.Sub(at))
		}
	}
}

// pingsNobodyElse checks that every text that was sent says whom it may notify.
func (w *world) pingsNobodyElse() {
	w.T.Helper()
	n := 0
	for _, r := range w.server.Requests("", "") {
		if bytes.Contains(r.Body, []byte(`"content"`)) {
			n++
			if !bytes.Contains(r.Body, []byte(`"allowed_mentions":{"parse":[]`)) {
				w.T.Errorf("%s %s without allowed_mentions", r.Method, publicPath(r.Path))
			}
		}
	}
	if n == 0 {
		w.T.Error("nothing was sent")
	}
}

// Answers, edits of answers and messages: all of them say whom they may notify.
func TestAllowedMentionsEverywhere(t *testing.T) {
	w := newWorld(t)
	w.start()
	_, m := w.finished("42", "a mug @everyone")
	file := discordtest.Upload{Name: "@everyone.txt", Data: []byte("a\n")}
	in := w.server.Command(w.person("9"), "ingest", map[string]any{"file": file})
	if !w.server.Wait(patience, func() bool { _, _, a := w.server.Answer(in); return a != nil && strings.Contains(a.Content, "1 lines") }) {
		t.Errorf("no edited answer; log:\n%s", w.Log)
	}
	w.answerTo(w.server.Click(w.person("42"), m, "v1:vary:"+w.Newest("42").ID))
	edits := w.server.Requests(http.MethodPatch, "/webhooks/")
	if len(edits) == 0 || len(w.server.Requests(http.MethodPatch, "/channels/")) == 0 {
		t.Errorf("%d edits of answers", len(edits))
	}
	w.pingsNobodyElse()
}

// The commands are written again when their definition changes, and /admin is
// hidden from all but a server's administrators.
func TestRegisterOnChange(t *testing.T) {
	w := newWorld(t)
	for _, models := range [][]string{nil, {"mini", "mvdream-sd21"}, {"mini", "mvdream-sd21"}} {
		w.bot = w.newBot()
		w.bot.config.Models, w.bot.config.Qualities = models, []queue.Quality{queue.Draft}
		if err := w.bot.Register(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.server.Requests(http.MethodPut, "/applications")); n != 2 {
		t.Errorf("the commands were written %d times", n)
	}
	for _, c := range w.server.Commands() {
		if bytes.Contains(c, []byte(`"name":"dream"`)) && (!bytes.Contains(c, []byte(`"value":"mvdream-sd21"`)) || bytes.Contains(c, []byte(`"value":"high"`))) {
			t.Errorf("%s", c)
		}
		if admin := bytes.Contains(c, []byte(`"name":"admin"`)); admin != bytes.Contains(c, []byte(`"default_member_permissions":"0"`)) {
			t.Errorf("%s", c)
		}
	}
}
