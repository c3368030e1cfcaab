package slack

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

// stuck is a queue whose submit does not answer.
type stuck struct{ bots.Jobs }

func (s *stuck) Submit(ctx context.Context, _ queue.Request, _ ...queue.Quota) (queue.Receipt, error) {
	<-ctx.Done()
	return queue.Receipt{}, queue.Unavailable("submit", ctx.Err())
}

// A queue that does not answer is told within the 3 s that Slack allows.
func TestSlowQueue(t *testing.T) {
	w := strictWorld(t)
	slow, err := bots.New(bots.Config{}, &stuck{w.q}, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.bot.service = slow
	w.start()
	in := w.server.WaitAck(w.server.Command("U42", w.channel, "a mug"), patience)
	if in.Late || !strings.Contains(string(in.Ack), "not accepted") {
		t.Errorf("after %v: %s; log:\n%s", in.Acked.Sub(in.Created), in.Ack, w.log)
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
			w.complete(w.lease())
			if !w.server.Wait(patience, func() bool {
				due, err := w.q.Keys(w.ctx, "bots/due/slack/", "")
				return err == nil && len(due) == 0 && len(outcomes(w.server.Messages(w.channel), "is ready")) > 0
			}) {
				t.Errorf("the outcome is not settled; log:\n%s", w.log)
			}
			want := 1
			if blind {
				want = 2
			}
			if n := len(outcomes(w.server.Messages(w.channel), "is ready")); n != want {
				t.Errorf("%d results; log:\n%s", n, w.log)
			}
			if counted := strings.Contains(w.log.String(), "without being able to look"); counted != blind {
				t.Errorf("a possible duplicate is counted: %v", counted)
			}
		})
	}
}

// Without a public address the files come in the thread of the result.
func TestNoPublicAddress(t *testing.T) {
	w := newWorld(t)
	w.render.Results.Page = func(string) string { return "" }
	w.render.Results.Link = func(context.Context, string, queue.File) (string, time.Time) { return "", time.Time{} }
	w.start()
	_, m := w.finished("U42", "a mug")
	if strings.Contains(string(m.Blocks), "http") {
		t.Errorf("links: %s", m.Blocks)
	}
	var file slacktest.File
	if !w.server.Wait(patience, func() bool {
		list := w.server.Messages(w.channel)
		i := slices.IndexFunc(list, func(x slacktest.Message) bool { return x.File != "" && x.Thread == m.Thread })
		if i >= 0 {
			file = w.server.File(list[i].File)
		}
		return i >= 0
	}) {
		t.Fatalf("no file; log:\n%s", w.log)
	}
	if file.Name != "model.glb" || string(file.Data) != "picture model.glb" {
		t.Errorf("the file is %q: %q", file.Name, file.Data)
	}
}
