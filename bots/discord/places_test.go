package discord

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/bots"
	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/limits"
)

func TestPrivateAndClosedChannels(t *testing.T) {
	w := newWorld(t)
	w.start()
	in := w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug", "private": true})
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral {
		t.Fatalf("private ack: %+v", m)
	}
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct("42"), "is ready")) == 1 }) {
		t.Fatalf("no direct message; log:\n%s", w.Log)
	}
	if n := len(outcomes(w.server.Messages(w.Channel), "is ready")); n != 0 {
		t.Error("a private result stands in the channel")
	}
	for i, change := range []func(*discordtest.Channel){
		func(c *discordtest.Channel) { c.Gone = true },
		func(c *discordtest.Channel) { c.Closed = true },
		func(c *discordtest.Channel) { c.Mute = true },
	} {
		w.Channel = w.server.AddChannel("guild1").ID
		user := fmt.Sprint(50 + i)
		w.dream(user, "a mug")
		w.server.Change(w.Channel, change)
		w.Complete(w.Lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct(user), "is ready")) == 1 }) {
			t.Errorf("case %d: no direct message; log:\n%s", i, w.Log)
		}
	}
	// A person who takes no direct messages finds it in /history.
	w.Channel = w.server.AddChannel("guild1").ID
	w.server.RefuseDirect("60")
	job, _ := w.dream("60", "a mug")
	w.server.Change(w.Channel, func(c *discordtest.Channel) { c.Gone = true })
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool {
		keys, _ := w.Q.Keys(w.Ctx, "bots/sent/discord/"+job, "")
		due, _ := w.Q.Keys(w.Ctx, "bots/due/discord/", "")
		return len(keys) == 1 && len(due) == 0
	}) {
		t.Errorf("the outcome is not settled; log:\n%s", w.Log)
	}
}

// A moderation filter that refuses the prompt gets a message without it.
func TestFilter(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("42", "a mug")
	w.server.Change(w.Channel, func(c *discordtest.Channel) { c.Filter = func(s string) bool { return strings.Contains(s, "mug") } })
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Errorf("no result; log:\n%s", w.Log)
	}
}

// Adult classes of the block list hold everywhere but in the channels that are
// meant for them, where pictures are covered.
func TestAdultChannels(t *testing.T) {
	w := newWorld(t)
	list := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(list, []byte("[adult: nudity]\nnude\n[weapons]\nbomb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	w.Service, err = bots.New(bots.Config{
		Patience: patience, AdultPlaces: []string{bots.AgeRestricted}, Limits: limits.Config{BlockFile: list},
	}, w.Q, w.Store, nil, w.bot.log)
	if err != nil {
		t.Fatal(err)
	}
	w.bot = w.newBot()
	w.start()
	ask := func(prompt string) discordtest.Message {
		return w.answerTo(w.server.Command(w.person("42"), "dream", map[string]any{"prompt": prompt}))
	}
	if m := ask("a nude statue"); !m.Ephemeral || !strings.Contains(m.Content, "only for channels that are meant for it (nudity)") {
		t.Errorf("in an ordinary channel: %q", m.Content)
	}
	w.server.Change(w.Channel, func(c *discordtest.Channel) { c.Adult = true })
	if m := ask("a nude statue with a bomb"); !strings.Contains(m.Content, "rules of this service (weapons)") {
		t.Errorf("what holds everywhere: %q", m.Content)
	}
	if _, m := w.finished("42", "a nude statue"); len(m.Attachments) != 2 || !strings.HasPrefix(m.Attachments[0].Filename, "SPOILER_") {
		t.Errorf("pictures %+v", m.Attachments)
	}
	if _, m := w.finished("43", "a mug"); strings.HasPrefix(m.Attachments[0].Filename, "SPOILER_") {
		t.Errorf("pictures of a mug: %+v", m.Attachments)
	}
}
