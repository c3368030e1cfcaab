package slack

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/parse"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

// A hundred commands at once are all acknowledged within the 3 s that Slack allows.
func TestParallelCommands(t *testing.T) {
	w, n := strictWorld(t), 100
	if testing.Short() { // under the race detector the real deadlines mean nothing
		w, n = newWorld(t), 12
	}
	w.start()
	var ins []*slacktest.Interaction
	for i := range n {
		ins = append(ins, w.server.Command(fmt.Sprintf("U%d", 1000+i), w.Channel, fmt.Sprintf("mug %d", i)))
	}
	var times []time.Duration
	queued := 0
	for i, in := range ins {
		a := w.server.WaitAck(in, patience)
		switch {
		case bytes.Contains(a.Ack, []byte("Queued")):
			queued++
		case !bytes.Contains(a.Ack, []byte("not accepted")): // which a queue too slow for the deadline makes of it
			t.Fatalf("command %d: ack %s; log:\n%s", i, a.Ack, w.Log)
		}
		if a.Late && !testing.Short() {
			t.Errorf("command %d was acknowledged after %v", i, a.Acked.Sub(a.Created))
		}
		times = append(times, a.Acked.Sub(a.Created))
	}
	jobs, err := w.Q.List(w.Ctx, queue.Filter{Limit: 1000})
	if err != nil || queued == 0 || len(jobs) < queued || len(jobs) > n {
		t.Errorf("%d commands were taken, %d jobs, %v", queued, len(jobs), err)
	}
	chattest.Spread(t, times, queued)
}

// Hostile prompts neither notify nor format: they are literal text elements.
func TestHostilePrompts(t *testing.T) {
	w := newWorld(t)
	w.server.Unlimited()
	for i, prompt := range []string{
		"<!channel> free mugs", "<!here>", "<!everyone|x>", "<@U99>", "<!subteam^S1>", "*bold* _it_ ~no~", "<https://evil.example|click>",
		"`code`", "> quote", "<!date^0^{date}|x>", "@channel", "&lt;!channel&gt;", "\u202egnp.exe", "a\u200bb", "mug\\", strings.Repeat("ä", 500),
		"{\"type\":\"section\"}", "'; DROP TABLE jobs; --", ":smile:", "# heading",
	} {
		reply := w.Service.Execute(w.Ctx, bots.Command{
			Command: parse.Command{Verb: parse.Dream, Prompt: parse.Clean(prompt)},
			From:    queue.Requester{Platform: "slack", ID: fmt.Sprintf("U%d", i)}, Origin: queue.Origin{Platform: "slack", Channel: w.Channel},
		})
		if reply.Refused {
			t.Errorf("%q was refused: %s", prompt, reply.Text)
			continue
		}
		if _, err := w.bot.Post(w.Ctx, bots.Spot{Channel: w.Channel}, reply.Message, ""); err != nil {
			t.Errorf("%q: %v", prompt, err)
		}
	}
	for _, m := range w.server.Messages(w.Channel) {
		if m.Everyone || len(m.Pinged) > 0 {
			t.Errorf("%s notified %v, everyone %v", m.Blocks, m.Pinged, m.Everyone)
		}
		if strings.Contains(m.Text, "<!") || strings.Contains(m.Text, "<@") || strings.Contains(m.Text, "<h") {
			t.Errorf("the fallback text is not escaped: %q", m.Text)
		}
	}
	if strings.Contains(w.Log.String(), "DROP TABLE") {
		t.Error("the log holds prompts")
	}
}
