package slack

import (
	"fmt"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/slack/slacktest"
)

func TestPlacesThatAreClosed(t *testing.T) {
	for name, change := range map[string]func(*slacktest.Channel){
		"archived": func(c *slacktest.Channel) { c.Archived = true },
		"private":  func(c *slacktest.Channel) { c.Private = true },
		"outside":  func(c *slacktest.Channel) { c.Outside = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.dream("U42", "a mug")
			w.server.Change(w.Channel, change)
			w.Complete(w.Lease())
			if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct("U42"), "is ready")) == 1 }) {
				t.Errorf("no direct message; log:\n%s", w.Log)
			}
		})
	}
	t.Run("status deleted", func(t *testing.T) {
		w := newWorld(t)
		w.start()
		_, status := w.dream("U42", "a mug")
		w.server.Delete(w.Channel, status.TS)
		w.Complete(w.Lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
			t.Errorf("no result in the channel; log:\n%s", w.Log)
		}
	})
	t.Run("private job", func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.server.WaitAck(w.server.Command("U42", w.Channel, "a mug --private"), patience)
		w.Complete(w.Lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct("U42"), "is ready")) == 1 }) {
			t.Errorf("no direct message; log:\n%s", w.Log)
		}
		if n := len(w.server.Messages(w.Channel)); n != 0 {
			t.Errorf("%d messages in the channel about a private job", n)
		}
	})
}

// A message is found again by its nonce; where the scope is missing, it cannot be looked for.
func TestFind(t *testing.T) {
	w := newWorld(t)
	for _, thread := range []bool{false, true} {
		spot := bots.Spot{Channel: w.Channel}
		if thread {
			p, err := w.bot.Post(w.Ctx, spot, bots.Message{Text: "a thread"}, "root")
			if err != nil {
				t.Fatal(err)
			}
			spot.Thread = p.ID
		}
		nonce := fmt.Sprintf("nonce-%v", thread)
		since := time.Now().Add(-time.Minute)
		if _, found, err := w.bot.Find(w.Ctx, spot, nonce, since); found || err != nil {
			t.Errorf("thread %v: found %v, %v", thread, found, err)
		}
		p, err := w.bot.Post(w.Ctx, spot, bots.Message{Text: "hello"}, nonce)
		if err != nil {
			t.Fatal(err)
		}
		if got, found, err := w.bot.Find(w.Ctx, spot, nonce, since); !found || err != nil || got.ID != p.ID {
			t.Errorf("thread %v: %+v, %v, %v", thread, got, found, err)
		}
	}
	w.server.DropScope("channels:history")
	w.server.DropScope("groups:history")
	_, _, err := w.bot.Find(w.Ctx, bots.Spot{Channel: w.Channel}, "x", time.Now())
	if e, ok := err.(*bots.ChatError); !ok || e.Trouble != bots.TroubleLook {
		t.Errorf("without the scope: %v", err)
	}
}
