package discord

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

// A queue that does not answer is told within the 3 s that Discord allows.
func TestSlowQueue(t *testing.T) {
	w := strictWorld(t)
	slow, err := bots.New(bots.Config{}, &chattest.Stuck{Jobs: w.Q}, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.Service = slow
	w.bot = w.newBot()
	w.start()
	in := w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug"})
	if m := w.answerTo(in); !m.Ephemeral || !strings.Contains(m.Content, "not accepted") {
		t.Errorf("%+v; log:\n%s", m, w.Log)
	}
	if took := w.server.AckTime(in); took > discordtest.AckWindow {
		t.Errorf("answered after %v", took)
	}
}

// An acknowledgement that does not arrive loses nothing: the job was written
// down before, and its outcome is told.
func TestAckLost(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.server.Break(discordtest.Fault{Method: http.MethodPost, Path: "/interactions/", Status: 404, Code: 10062})
	w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug"})
	if !w.server.Wait(patience, func() bool { return strings.Contains(w.Log.String(), "was not answered") }) {
		t.Fatalf("log:\n%s", w.Log)
	}
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Errorf("no result; log:\n%s", w.Log)
	}
}

// The answer to a post is lost although Discord made the message: it is found
// again, whether the nonce is still known or only the history shows it.
func TestAnswerLost(t *testing.T) {
	for name, later := range map[string]time.Duration{"at once": 0, "after the nonce is forgotten": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.dream("42", "a mug")
			w.server.Break(discordtest.Fault{Method: http.MethodPost, Path: "/channels/" + w.Channel, Times: 1, After: true})
			w.Complete(w.Lease())
			w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 })
			w.server.Advance(later)
			if !w.server.Wait(patience, func() bool {
				due, err := w.Q.Keys(w.Ctx, "bots/due/discord/", "")
				return err == nil && len(due) == 0
			}) {
				t.Errorf("the outcome is not settled; log:\n%s", w.Log)
			}
			if n := len(outcomes(w.server.Messages(w.Channel), "is ready")); n != 1 {
				t.Errorf("%d results; log:\n%s", n, w.Log)
			}
		})
	}
}

// Files that the place does not take are dropped, their links stay.
func TestFilesTooLarge(t *testing.T) {
	w := newWorld(t)
	w.Render.MaxFile = 1 << 30
	w.Render.Results.Read = func(context.Context, string, string, string, int64) ([]byte, error) {
		return bytes.Repeat([]byte("x"), discordtest.MaxFile+1), nil
	}
	w.start()
	_, m := w.finished("42", "a mug")
	if len(m.Attachments) != 0 || !strings.Contains(string(m.Components), "/model.glb") {
		t.Errorf("%d files, %s", len(m.Attachments), m.Components)
	}
}

// Without a public address the files come with the message, and no button
// leads to this machine.
func TestNoPublicAddress(t *testing.T) {
	w := newWorld(t)
	w.Render.Results.Page = func(string) string { return "" }
	w.Render.Results.Link = func(_ context.Context, _ string, f queue.File) (string, time.Time) {
		if f.Role == "mesh-obj" {
			return "http://127.0.0.1:9000/dreams/model.obj?X-Amz-Signature=1", time.Now().Add(time.Hour)
		}
		return "", time.Time{}
	}
	w.start()
	_, m := w.finished("42", "a mug")
	var names []string
	for _, a := range m.Attachments {
		names = append(names, a.Filename)
	}
	if strings.Join(names, " ") != "views.png turntable.gif model.glb" {
		t.Errorf("files %v", names)
	}
	if strings.Contains(string(m.Components), "http") || !strings.Contains(m.Content, "OBJ: <http://127.0.0.1:9000/") {
		t.Errorf("links: %q %s", m.Content, m.Components)
	}
	w.Render.MaxFile = 1000 // less than the GLB's 12 kB
	if _, m = w.finished("42", "a cup"); !strings.Contains(m.Content, "model.glb (12 kB) is too large for chat") {
		t.Errorf("a large file: %q", m.Content)
	}
}

// A result goes to the thread where it was asked for, and to the thread's
// channel when the thread is archived or gone.
func TestThreads(t *testing.T) {
	for name, change := range map[string]func(*discordtest.Channel){
		"open": nil, "archived": func(c *discordtest.Channel) { c.Archived = true }, "deleted": func(c *discordtest.Channel) { c.Gone = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			parent := w.Channel
			w.Channel = w.server.AddThread(parent).ID
			w.dream("42", "a mug")
			place := w.Channel
			if change != nil {
				w.server.Change(w.Channel, change)
				place = parent
			}
			w.Complete(w.Lease())
			if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(place), "is ready")) == 1 }) {
				t.Errorf("no result; log:\n%s", w.Log)
			}
		})
	}
}

// A channel that refused us is left alone for a while: results go directly.
func TestRefusedOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("42", "a mug")
	w.dream("43", "a cup")
	w.server.Change(w.Channel, func(c *discordtest.Channel) { c.Mute = true })
	for _, user := range []string{"42", "43"} {
		w.Complete(w.Lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct(user), "is ready")) == 1 }) {
			t.Fatalf("no result for %s; log:\n%s", user, w.Log)
		}
	}
	n := 0
	for _, r := range w.server.Requests(http.MethodPost, "/channels/"+w.Channel) {
		if r.Status == http.StatusForbidden {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d refused requests", n)
	}
}
