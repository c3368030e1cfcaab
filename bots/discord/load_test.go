package discord

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"dreamcad/bots/chattest"
	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// A hundred commands at once are all answered within the 3 s that Discord allows.
func TestParallelCommands(t *testing.T) {
	w, n := strictWorld(t), 100
	if testing.Short() { // under the race detector the real deadlines mean nothing
		w, n = newWorld(t), 12
	}
	w.start()
	var ins []*discordtest.Interaction
	for i := range n {
		ins = append(ins, w.server.Command(w.person(fmt.Sprint(1000+i)), "dream", map[string]any{"prompt": fmt.Sprintf("mug %d", i)}))
	}
	var times []time.Duration
	queued := 0
	for i, in := range ins {
		kind, _, m := w.server.WaitAnswer(in, patience)
		switch {
		case kind != 4 || m == nil:
			t.Fatalf("command %d: kind %d, %+v; log:\n%s", i, kind, m, w.Log)
		case strings.Contains(m.Content, "Queued"):
			queued++
		case !strings.Contains(m.Content, "not accepted"): // which a queue too slow for the deadline makes of it
			t.Errorf("command %d: %q", i, m.Content)
		}
		times = append(times, w.server.AckTime(in))
	}
	jobs, err := w.Q.List(w.Ctx, queue.Filter{Limit: 1000})
	if err != nil || queued == 0 || len(jobs) < queued || len(jobs) > n {
		t.Errorf("%d commands were taken, %d jobs, %v", queued, len(jobs), err)
	}
	chattest.Spread(t, times, queued)
}

// Hostile prompts neither notify nor format nor break anything.
func TestHostilePrompts(t *testing.T) {
	w := newWorld(t)
	w.server.SetLimit("POST channels messages", discordtest.Limit{Requests: 1000, Window: time.Second})
	w.start()
	for i, prompt := range []string{
		"@everyone free mugs", "@here", "<@&123456>", "<@99>", "**bold** _it_ ~~no~~ ||spoiler||", "[click](https://evil.example)",
		"```\ncode\n```", "# heading\n> quote\n- list", "<t:0:F>", "<:emoji:123456789012345678>", "https://evil.example/x",
		"\u202egnp.exe", "a\u200bb\u200cc", "\U000e0041tags", "mug\\", "`back`tick", "</dream:1>", "<#123456>", strings.Repeat("ä", 500), "'; DROP TABLE jobs; --",
	} {
		user := fmt.Sprint(2000 + i)
		job, status := w.dream(user, prompt)
		w.Complete(w.Lease())
		if !w.server.Wait(patience, func() bool {
			return len(outcomes(w.server.Messages(w.Channel), parse.Short(job)+" is ready")) == 1
		}) {
			t.Fatalf("%q: no result; log:\n%s", prompt, w.Log)
		}
		m := outcomes(w.server.Messages(w.Channel), parse.Short(job)+" is ready")[0]
		if !slices.Equal(m.Pinged, []string{user}) || m.Everyone || status.Everyone || len(status.Pinged) > 0 || m.WouldPing {
			t.Errorf("%q notified %v", prompt, m.Pinged)
		}
		for _, r := range "\u202e\u200b\U000e0041" {
			if strings.ContainsRune(m.Content, r) {
				t.Errorf("%q: %U is shown", prompt, r)
			}
		}
	}
	if strings.Contains(w.Log.String(), "DROP TABLE") || strings.Contains(w.Log.String(), w.server.Token) {
		t.Error("the log holds prompts or the token")
	}
}

func TestRateLimits(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("42", "a mug")
	w.server.Break(discordtest.Fault{Method: "POST", Path: "/channels/" + w.Channel, Times: 1, Status: 429, Body: "<html>banned</html>", Header: http.Header{"Retry-After": {"1"}}})
	w.Complete(w.Lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.Log)
	}
	posts := w.server.Requests("POST", "/channels/"+w.Channel)
	if len(posts) != 2 || posts[1].At.Sub(posts[0].At) < 900*time.Millisecond {
		t.Errorf("%d posts", len(posts))
	}
}
