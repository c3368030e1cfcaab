package discord

import (
	"fmt"
	"strings"
	"testing"

	"dreamcad/bots/discord/discordtest"
)

func TestPrivateAndClosedChannels(t *testing.T) {
	w := newWorld(t)
	w.start()
	in := w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug", "private": true})
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral {
		t.Fatalf("private ack: %+v", m)
	}
	w.complete(w.lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct("42"), "is ready")) == 1 }) {
		t.Fatalf("no direct message; log:\n%s", w.log)
	}
	if n := len(outcomes(w.server.Messages(w.channel), "is ready")); n != 0 {
		t.Error("a private result stands in the channel")
	}
	for i, change := range []func(*discordtest.Channel){
		func(c *discordtest.Channel) { c.Gone = true },
		func(c *discordtest.Channel) { c.Closed = true },
		func(c *discordtest.Channel) { c.Mute = true },
	} {
		w.channel = w.server.AddChannel("guild1").ID
		user := fmt.Sprint(50 + i)
		w.dream(user, "a mug")
		w.server.Change(w.channel, change)
		w.complete(w.lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct(user), "is ready")) == 1 }) {
			t.Errorf("case %d: no direct message; log:\n%s", i, w.log)
		}
	}
	// A person who takes no direct messages finds it in /history.
	w.channel = w.server.AddChannel("guild1").ID
	w.server.RefuseDirect("60")
	job, _ := w.dream("60", "a mug")
	w.server.Change(w.channel, func(c *discordtest.Channel) { c.Gone = true })
	w.complete(w.lease())
	if !w.server.Wait(patience, func() bool {
		keys, _ := w.q.Keys(w.ctx, "bots/sent/discord/"+job, "")
		due, _ := w.q.Keys(w.ctx, "bots/due/discord/", "")
		return len(keys) == 1 && len(due) == 0
	}) {
		t.Errorf("the outcome is not settled; log:\n%s", w.log)
	}
}

// A moderation filter that refuses the prompt gets a message without it.
func TestFilter(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("42", "a mug")
	w.server.Change(w.channel, func(c *discordtest.Channel) { c.Filter = func(s string) bool { return strings.Contains(s, "mug") } })
	w.complete(w.lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "is ready")) == 1 }) {
		t.Errorf("no result; log:\n%s", w.log)
	}
}
