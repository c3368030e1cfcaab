package discord

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/delivery"
	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

// deliver runs the delivery of a simulated world until the test ends.
func (w *world) deliver(c delivery.Config) {
	w.T.Cleanup(w.bot.work.Wait)
	d := w.Delivery(c, w.bot)
	w.bot.Learn(d.Outbound())
	w.Run(d.Run)
	time.Sleep(time.Second)
}

// ask hands an interaction to the bot and lets it be answered.
func (w *world) ask(in *discordtest.Interaction) { w.bot.handle(w.Ctx, w.server.Payload(in)) }

// simulatedJob submits a job, whose lease is returned.
func (w *world) simulatedJob() *queue.Lease {
	w.T.Helper()
	in := w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug"})
	w.ask(in)
	time.Sleep(time.Second)
	if kind, _, m := w.server.Answer(in); kind != 4 || m == nil {
		w.T.Fatalf("the answer is %d, %+v; log:\n%s", kind, m, w.Log)
	}
	return w.Lease()
}

// Jobs that outlast the interaction's token (15 min) and the time in which
// messages may be edited freely (1 h): progress is edited with the bot token,
// at most every five seconds, each minute after ten, and not at all after 55;
// the result is one new message.
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
				l := w.simulatedJob()
				w.Work(l, long)
				w.Complete(l)
				time.Sleep(10 * time.Second)
				if list := outcomes(w.server.Messages(w.Channel), "is ready"); len(list) != 1 || !slices.Equal(list[0].Pinged, []string{"42"}) {
					t.Fatalf("results %+v; log:\n%s", list, w.Log)
				}
				edits := w.server.Requests(http.MethodPatch, "/channels/")
				if n := len(edits); n < 30 {
					t.Errorf("%d edits", n)
				}
				for i, e := range edits {
					age := e.At.Sub(start)
					if e.Status != 200 || age > 56*time.Minute {
						t.Errorf("an edit after %v: %d", age, e.Status)
					}
					if i == 0 || i == len(edits)-1 && long < time.Hour { // the last one takes the Cancel button off
						continue
					}
					gap, least := e.At.Sub(edits[i-1].At), 5*time.Second
					if age > 12*time.Minute {
						least = time.Minute
					}
					if gap < least-time.Second {
						t.Errorf("two edits within %v after %v", gap, age)
					}
				}
				if bad := refused(w.server); len(bad) > 0 {
					t.Errorf("refused: %v", bad)
				}
				in := w.server.Requests(http.MethodPost, "/interactions/")[0]
				token := strings.Split(in.Path, "/")[3]
				err := w.bot.rest.do(w.Ctx, call{method: http.MethodPatch, path: "/webhooks/" + w.server.AppID + "/" + token + "/messages/@original",
					body: build(&bots.Message{Text: "late"}), noToken: true})
				if code(err) != 50027 {
					t.Errorf("the token still works: %v", err)
				}
			})
		})
	}
}

// refused lists what the server did not take.
func refused(s *discordtest.Server) (out []string) {
	for _, r := range s.Requests("", "") {
		if r.Status >= 400 {
			out = append(out, fmt.Sprintf("%s %s: %d %s", r.Method, publicPath(r.Path), r.Status, r.Answer))
		}
	}
	return out
}

// Discord refuses edits of a message that is older than an hour (30046): they
// end, nothing is repeated, and the result is a new message all the same.
func TestEditsOfOldMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("ninety minutes, ten seconds at a time")
	}
	synctest.Test(t, func(t *testing.T) {
		w := simulatedWorld(t)
		c := delivery.Defaults()
		c.StopAfter = 3 * time.Hour // as if the caution were not there
		w.deliver(c)
		l := w.simulatedJob()
		w.Work(l, 90*time.Minute)
		w.Complete(l)
		time.Sleep(time.Minute)
		bad := refused(w.server)
		if len(bad) == 0 || len(bad) > 2 { // the edit, and the one that takes the Cancel button off
			t.Errorf("refused: %v", bad)
		}
		for _, b := range bad {
			if !strings.Contains(b, "30046") {
				t.Error(b)
			}
		}
		if n := len(outcomes(w.server.Messages(w.Channel), "is ready")); n != 1 {
			t.Errorf("%d results; log:\n%s", n, w.Log)
		}
	})
}

// An alert that is resolved after more than an hour gets a new message where
// the old one can no longer be edited.
func TestOldAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulatedWorld(t)
		w.deliver(delivery.Defaults())
		a := queue.Alert{Code: "gpu.hot", Key: "h/0", Severity: queue.Warning, State: queue.Firing, Text: "84 °C", Since: time.Now(), Source: "h"}
		raise := func(change func()) {
			t.Helper()
			change()
			w.Raise(a, 1)
			time.Sleep(5 * time.Second)
		}
		raise(func() {})
		for i := range 4 {
			raise(func() { a.Text = fmt.Sprintf("%d °C", 85+i) })
		}
		if n := len(w.server.Messages(w.Ops)); n != 1 {
			t.Fatalf("%d messages", n)
		}
		raise(func() { a.Severity = queue.Critical }) // an edit would notify nobody
		if n := len(w.server.Messages(w.Ops)); n != 2 {
			t.Fatalf("%d messages after the rise; log:\n%s", n, w.Log)
		}
		for i := range 4 {
			raise(func() { a.Text = fmt.Sprintf("%d °C", 91+i) })
		}
		time.Sleep(2 * time.Hour)
		raise(func() { a.State = queue.Resolved })
		if list := w.server.Messages(w.Ops); len(list) != 3 || !strings.HasPrefix(list[2].Content, "Resolved") {
			t.Errorf("messages %+v", list)
		}
	})
}

// 200 jobs with 5,000 progress events a minute: every limit is kept (a refusal
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
			places[i] = w.server.AddChannel("guild1").ID
		}
		load := chattest.Load{Queue: w.Q, Jobs: jobs, Events: events, Files: chattest.Results, Submit: func(i int) {
			p := discordtest.Person{ID: fmt.Sprint(1000 + i), Channel: places[i%channels]}
			w.ask(w.server.Command(p, "dream", map[string]any{"prompt": fmt.Sprintf("mug %d", i)}))
		}}
		ended, raised := load.Run(w.Ctx, t)
		var worst time.Duration
		n := 0
		for _, place := range places {
			for _, m := range outcomes(w.server.Messages(place), "is ready") {
				n++
				for id, at := range ended {
					if strings.Contains(string(m.Components), id) {
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
		t.Logf("%d results, the slowest %v after its job's end; %d edits; alert after %v", n, worst,
			len(w.server.Requests(http.MethodPatch, "/channels/")), alerts[0].Created.Sub(raised))
	})
}

// While chat is down alerts are kept, over a restart too, and each is told once
// when it is back; one that was posted just before the process ended is found.
func TestAlertsWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulatedWorld(t)
		run := func() (stop func()) {
			stop = w.Run(w.Delivery(delivery.Defaults(), w.bot).Run)
			time.Sleep(time.Second)
			return stop
		}
		raise := func(key string) {
			t.Helper()
			w.Raise(queue.Alert{Code: "disk.full", Key: key, Severity: queue.Warning, State: queue.Firing, Text: "92 %", Since: time.Now(), Source: key}, 1)
		}
		stop := run()
		raise("a")
		time.Sleep(5 * time.Second)
		w.server.Break(discordtest.Fault{Path: "/channels/", Status: 503})
		for _, key := range []string{"b", "c", "b"} {
			raise(key)
			time.Sleep(time.Minute)
		}
		stop()
		raise("d")
		stop = run()
		time.Sleep(10 * time.Minute)
		w.server.Heal()
		time.Sleep(2 * time.Minute)
		if list := w.server.Messages(w.Ops); len(list) != 4 {
			t.Errorf("%d messages about 4 alerts; log:\n%s", len(list), w.Log)
		}
		// The message is there, but the process ends before it hears of it.
		w.server.Break(discordtest.Fault{Method: http.MethodPost, Path: "/channels/" + w.Ops, Times: 1, After: true})
		raise("e")
		time.Sleep(300 * time.Millisecond)
		stop()
		time.Sleep(10 * time.Minute) // Discord has forgotten the nonce
		stop = run()
		time.Sleep(time.Minute)
		stop()
		w.bot.work.Wait()
		if list := w.server.Messages(w.Ops); len(list) != 5 {
			t.Errorf("%d messages about 5 alerts; log:\n%s", len(list), w.Log)
		}
	})
}
