package slack

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/delivery"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

// deliver runs the delivery of a simulated world until the test ends.
func (w *world) deliver(c delivery.Config) {
	w.T.Cleanup(w.bot.work.Wait)
	d := w.Delivery(c, w.bot)
	w.bot.Through(d.Outbound())
	w.Run(d.Run)
	time.Sleep(time.Second)
}

// ask hands a command to the app and returns its acknowledgement.
func (w *world) ask(user, channel, text string) []byte {
	in := w.server.Command(user, channel, text)
	var mu sync.Mutex
	var answered []byte
	w.bot.handle(w.Ctx, "slash_commands", in.ID, w.server.Payload(in), func(v any) error {
		mu.Lock()
		defer mu.Unlock()
		answered = fmt.Append(nil, v)
		return nil
	})
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	return answered
}

// refused lists what the server did not take.
func refused(s *slacktest.Server) (out []string) {
	for _, r := range s.Requests("") {
		if r.Status >= 400 || bytes.Contains(r.Answer, []byte(`"ok":false`)) {
			out = append(out, fmt.Sprintf("%s: %d %s", r.Method, r.Status, r.Answer))
		}
	}
	return out
}

// Jobs that outlast the response URL (30 min) end with one message in the
// thread of the job, by the bot token.
func TestLongJobs(t *testing.T) {
	times := []time.Duration{16 * time.Minute, 2 * time.Hour}
	if testing.Short() {
		times = times[:1]
	}
	for _, long := range times {
		t.Run(long.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := simulatedWorld(t)
				w.deliver(delivery.Defaults())
				start := time.Now()
				if a := w.ask("U42", w.Channel, "a mug"); !bytes.Contains(a, []byte("Queued")) {
					t.Fatalf("ack %s; log:\n%s", a, w.Log)
				}
				time.Sleep(time.Second)
				l := w.Lease()
				w.Work(l, long)
				w.Complete(l)
				time.Sleep(20 * time.Second)
				list := outcomes(w.server.Messages(w.Channel), "is ready")
				if len(list) != 1 || list[0].Thread == "" || !slices.Equal(list[0].Pinged, []string{"U42"}) {
					t.Fatalf("results %+v; log:\n%s", list, w.Log)
				}
				for _, r := range w.server.Requests("chat.update") {
					if age := r.At.Sub(start); age > 56*time.Minute {
						t.Errorf("an edit after %v", age)
					}
				}
				if bad := refused(w.server); len(bad) > 0 {
					t.Errorf("refused: %v", bad)
				}
			})
		})
	}
}

// A response URL takes five messages within thirty minutes; the sixth, and one
// that comes later, go by the bot token to the person alone.
func TestResponseURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulatedWorld(t)
		say := func(in *slacktest.Interaction, text string) {
			url := strings.TrimSuffix(w.server.URL(), "api/") + "respond/" + in.ID
			c := bots.Command{From: queue.Requester{Platform: "slack", ID: "U42"}, Origin: queue.Origin{Channel: w.Channel}}
			w.bot.respond(w.Ctx, url, &c, &bots.Reply{Message: bots.Message{Text: text}})
		}
		in := w.server.Command("U42", w.Channel, "help")
		for i := range 6 {
			say(in, fmt.Sprint("answer ", i))
		}
		if n := len(w.server.Answered(in).Responses); n != 5 {
			t.Errorf("%d messages by the URL", n)
		}
		late := w.server.Command("U42", w.Channel, "help")
		time.Sleep(31 * time.Minute)
		say(late, "answer 6")
		if n := len(w.server.Answered(late).Responses); n != 0 {
			t.Errorf("%d messages by an old URL", n)
		}
		list := w.server.Messages(w.Channel)
		if len(list) != 2 || list[0].Ephemeral != "U42" || list[0].Text != "answer 5" || list[1].Text != "answer 6" {
			t.Errorf("messages %+v; log:\n%s", list, w.Log)
		}
	})
}

// 200 jobs with 5,000 progress events a minute: every tier is kept (a refusal
// would be counted), no result comes later than 5 s, an alert in the middle
// neither.
func TestLoad(t *testing.T) {
	jobs, events, channels := 200, 5000, 40
	if testing.Short() {
		jobs, events, channels = 20, 400, 4
	}
	synctest.Test(t, func(t *testing.T) {
		w := simulatedWorld(t)
		w.deliver(delivery.Defaults())
		places := make([]string, channels)
		for i := range places {
			places[i] = w.server.AddChannel()
		}
		load := chattest.Load{Queue: w.Q, Jobs: jobs, Events: events, Files: chattest.Results, Submit: func(i int) {
			w.ask(fmt.Sprint("U", 1000+i), places[i%channels], fmt.Sprintf("mug %d", i))
		}}
		ended, raised := load.Run(w.Ctx, t)
		var worst time.Duration
		n, pictures := 0, 0
		for _, place := range places {
			for _, m := range outcomes(w.server.Messages(place), "is ready") {
				n++
				pictures += bytes.Count(m.Blocks, []byte("slack_file"))
				for id, at := range ended {
					if bytes.Contains(m.Blocks, []byte(id)) {
						worst = max(worst, m.Created.Sub(at))
					}
				}
			}
		}
		if n != len(ended) {
			t.Errorf("%d results of %d jobs; log:\n%s", n, len(ended), w.Log)
		}
		alerts := w.server.Messages(w.Ops)
		if len(alerts) != 1 || alerts[0].Created.Sub(raised) > 5*time.Second {
			t.Errorf("alerts %+v", alerts)
		}
		if worst > 5*time.Second {
			t.Errorf("a result came %v late", worst)
		}
		if bad := refused(w.server); len(bad) > 0 {
			t.Errorf("%d refusals, the first: %s", len(bad), bad[0])
		}
		t.Logf("%d results with %d pictures, the slowest %v after its job's end; %d edits; alert after %v", n, pictures, worst,
			len(w.server.Requests("chat.update")), alerts[0].Created.Sub(raised))
	})
}
