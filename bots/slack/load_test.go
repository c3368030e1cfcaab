package slack

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dreamcad/bots/chattest"
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

// ourDate is the end of a link's life, as the bot writes it.
var ourDate = regexp.MustCompile(`<!date\^\d{10}\^\{date_short_pretty\} \{time\}\|[^>]*>`)

// Hostile prompts neither notify nor format: they are literal text elements.
func TestHostilePrompts(t *testing.T) {
	w := newWorld(t)
	w.server.Unlimited()
	w.Render.Results.Read = nil // pictures take a while
	var all []slacktest.Message
	w.start()
	escaped := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;") // as Slack hands on what people type
	for i, prompt := range []string{
		"<!channel> free mugs", "<!here>", "<!everyone|x>", "<@U99>", "<!subteam^S1>", "*bold* _it_ ~no~", "<https://evil.example|click>",
		"`code`", "> quote", "<!date^0^{date}|x>", "@channel", "&lt;!channel&gt;", "\u202egnp.exe", "a\u200bb", "mug\\", strings.Repeat("ä", 500),
		"{\"type\":\"section\"}", "'; DROP TABLE jobs; #", ":smile:", "# heading",
	} {
		user := fmt.Sprint("U", i)
		w.Channel = w.server.AddChannel()      // one of its own: each takes about a message a second
		w.dream(user, escaped.Replace(prompt)) // waits for its public message
		w.Complete(w.Lease())
		if !w.server.Wait(patience, func() bool {
			return slices.ContainsFunc(w.server.Messages(w.Channel), func(m slacktest.Message) bool { return slices.Equal(m.Pinged, []string{user}) })
		}) {
			t.Fatalf("%q: no result; log:\n%s", prompt, w.Log)
		}
		all = append(all, w.server.Messages(w.Channel)...)
	}
	for _, m := range all {
		if m.Everyone || slices.Contains(m.Pinged, "U99") || len(m.Pinged) > 0 && !strings.Contains(m.Text, "is ready") {
			t.Errorf("%s notified %v, everyone %v", m.Blocks, m.Pinged, m.Everyone)
		}
		text := ourDate.ReplaceAllString(m.Text, "")
		for _, id := range m.Pinged {
			text = strings.ReplaceAll(text, "<@"+id+">", "")
		}
		if strings.Contains(text, "<!") || strings.Contains(text, "<@") || strings.Contains(text, "<h") {
			t.Errorf("the fallback text is not escaped: %q", m.Text)
		}
		for _, r := range "\u202e\u200b" {
			if strings.ContainsRune(m.Text+string(m.Blocks), r) {
				t.Errorf("%U is shown: %s", r, m.Blocks)
			}
		}
	}
	if strings.Contains(w.Log.String(), "DROP TABLE") {
		t.Error("the log holds prompts")
	}
}
