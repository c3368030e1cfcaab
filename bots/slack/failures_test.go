package slack

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

// A queue that does not answer is told within the 3 s that Slack allows.
func TestSlowQueue(t *testing.T) {
	w := strictWorld(t)
	slow, err := bots.New(bots.Config{}, &chattest.Stuck{Jobs: w.Q}, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.bot.service = slow
	w.start()
	in := w.server.WaitAck(w.server.Command("U42", w.Channel, "a mug"), patience)
	if in.Late || !strings.Contains(string(in.Ack), "not accepted") {
		t.Errorf("after %v: %s; log:\n%s", in.Acked.Sub(in.Created), in.Ack, w.Log)
	}
}

// The answer to a post is lost although Slack made the message: it is found
// again by its metadata. Where the app may not look, there is at most one
// message more, and it is counted.
func TestAnswerLost(t *testing.T) {
	for name, blind := range map[string]bool{"found": false, "blind": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.dream("U42", "a mug")
			if blind {
				w.server.DropScope("channels:history")
				w.server.DropScope("groups:history")
			}
			w.server.Break(slacktest.Fault{Method: "chat.postMessage", Times: 1, After: true})
			w.Complete(w.Lease())
			if !w.server.Wait(patience, func() bool {
				due, err := w.Q.Keys(w.Ctx, "bots/due/slack/", "")
				return err == nil && len(due) == 0 && len(outcomes(w.server.Messages(w.Channel), "is ready")) > 0
			}) {
				t.Errorf("the outcome is not settled; log:\n%s", w.Log)
			}
			want := 1
			if blind {
				want = 2
			}
			if n := len(outcomes(w.server.Messages(w.Channel), "is ready")); n != want {
				t.Errorf("%d results; log:\n%s", n, w.Log)
			}
			if counted := strings.Contains(w.Log.String(), "without being able to look"); counted != blind {
				t.Errorf("a possible duplicate is counted: %v", counted)
			}
		})
	}
}

// Without a public address the files come in the thread of the result.
func TestNoPublicAddress(t *testing.T) {
	w := newWorld(t)
	w.Render.Results.Page = func(string) string { return "" }
	w.Render.Results.Link = func(context.Context, string, queue.File) (string, time.Time) { return "", time.Time{} }
	w.start()
	_, m := w.finished("U42", "a mug")
	if strings.Contains(string(m.Blocks), "http") {
		t.Errorf("links: %s", m.Blocks)
	}
	var file slacktest.File
	if !w.server.Wait(patience, func() bool {
		list := w.server.Messages(w.Channel)
		i := slices.IndexFunc(list, func(x slacktest.Message) bool { return x.File != "" && x.Thread == m.Thread })
		if i >= 0 {
			file = w.server.File(list[i].File)
		}
		return i >= 0
	}) {
		t.Fatalf("no file; log:\n%s", w.Log)
	}
	if file.Name != "model.glb" || string(file.Data) != "picture model.glb" {
		t.Errorf("the file is %q: %q", file.Name, file.Data)
	}
}
