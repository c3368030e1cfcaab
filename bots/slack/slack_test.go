package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/bots/limits"
	"dreamcad/bots/parse"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for a slow machine; nothing here measures speed.
const patience = 20 * time.Second

type world struct {
	t       *testing.T
	ctx     context.Context
	server  *slacktest.Server
	q       *sqliteq.Queue
	service *bots.Service
	bot     *Bot
	channel string
	ops     string
	log     *lockedBuffer
	logger  *slog.Logger
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

type lines struct{}

func (lines) Ingest(_ context.Context, name string, file io.Reader, _ queue.Requester, _ queue.Origin) (string, error) {
	text, err := io.ReadAll(file)
	return fmt.Sprintf("%s: %d lines", name, bytes.Count(text, []byte("\n"))), err
}

// newWorld is a server, a queue, a service and the bot. Its time for an answer
// is long, so that a slow machine changes nothing: strictWorld has the real one.
func newWorld(t *testing.T) *world { return makeWorld(t, patience) }

// strictWorld allows the 3 s that Slack does.
func strictWorld(t *testing.T) *world { return makeWorld(t, 0) }

func makeWorld(t *testing.T, budget time.Duration) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), server: slacktest.New(), log: &lockedBuffer{}}
	t.Cleanup(w.server.Close)
	w.channel, w.ops = w.server.AddChannel(), w.server.AddChannel()
	w.logger = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config := queue.DefaultConfig()
	if budget > 0 {
		config.SubmitBudget = budget
	}
	var err error
	w.q, err = sqliteq.Open(w.ctx, filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.q.Close() })
	w.service, err = bots.New(bots.Config{Patience: budget, Limits: limits.Config{Admins: []string{"slack:U9"}, Ingest: []string{"slack:U9"}}}, w.q, nil, lines{}, w.logger)
	if err != nil {
		t.Fatal(err)
	}
	w.bot = New(Config{
		BotToken: w.server.BotToken, AppToken: w.server.AppToken, SigningSecret: w.server.Secret, APIURL: w.server.URL(), Silent: 3 * time.Second, AckBudget: budget,
	}, w.service, w.q, w.logger)
	return w
}

func quick() delivery.Config {
	c := delivery.Defaults()
	c.EditEvery, c.Poll, c.RetryBase, c.LockLife = 20*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond, 1500*time.Millisecond
	return c
}

func (w *world) start() (stop func()) {
	w.t.Helper()
	config := quick()
	config.OpsChannel = w.ops
	renderer := &bots.Renderer{Next: w.service.Next, Results: bots.Results{
		Link: func(_ context.Context, job string, f queue.File) (string, time.Time) {
			return "https://dream.example/r/" + job + "/" + f.Name, time.Now().Add(time.Hour)
		},
		Page: func(job string) string { return "https://dream.example/jobs/" + job },
		Read: func(_ context.Context, _, _, name string, _ int64) ([]byte, error) {
			return []byte("picture " + name), nil
		},
	}}
	d := delivery.New(config, w.q, w.bot, w.bot, renderer, delivery.NewMetrics(nil), w.logger)
	w.bot.Through(d.Outbound())
	ctx, cancel := context.WithCancel(w.ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = w.bot.Run(ctx) })
	parts.Go(func() { _ = d.Run(ctx) })
	if !w.server.Wait(patience, func() bool { return w.server.Connected() == 2 }) {
		w.t.Errorf("the bot does not connect; log:\n%s", w.log)
	}
	stop = sync.OnceFunc(func() { cancel(); parts.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// dream submits a job in chat and waits for its public message.
func (w *world) dream(user, text string) (string, slacktest.Message) {
	w.t.Helper()
	in := w.server.WaitAck(w.server.Command(user, w.channel, text), patience)
	jobs, err := w.q.List(w.ctx, queue.Filter{User: "slack:" + user, Limit: 1})
	if err != nil || len(jobs) == 0 {
		w.t.Fatalf("no job: %v; ack %s; log:\n%s", err, in.Ack, w.log)
	}
	var status slacktest.Message
	if !w.server.Wait(patience, func() bool {
		r, err := w.q.Get(w.ctx, "bots/msg/"+jobs[0].ID)
		if err != nil {
			return false
		}
		var p bots.Posted
		if err := json.Unmarshal(r.Value, &p); err != nil {
			return false
		}
		for _, m := range w.server.Messages(w.channel) {
			if m.TS == p.ID {
				status = m
				return true
			}
		}
		return false
	}) {
		w.t.Fatalf("no public message; log:\n%s", w.log)
	}
	return jobs[0].ID, status
}

var results = []queue.File{
	{Role: "sheet", Name: "views.png", MediaType: "image/png", Bytes: 10},
	{Role: "turntable", Name: "turntable.gif", MediaType: "image/gif", Bytes: 10},
	{Role: "mesh-glb", Name: "model.glb", MediaType: "model/gltf-binary", Bytes: 12345},
}

func (w *world) lease() *queue.Lease {
	w.t.Helper()
	l, err := w.q.Lease(w.ctx, queue.Capabilities{Worker: "w1", Name: "w1", Models: []string{"mini"}, Wait: 5 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) complete(l *queue.Lease) {
	w.t.Helper()
	if err := w.q.Complete(w.ctx, l.Ref(), queue.Result{Winner: l.ID, Files: results}); err != nil {
		w.t.Fatal(err)
	}
}

func outcomes(list []slacktest.Message, word string) []slacktest.Message {
	return slices.DeleteFunc(list, func(m slacktest.Message) bool { return !strings.Contains(m.Text, word) })
}

func TestJobFromCommandToResult(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, status := w.dream("U42", "a *ceramic* coffee mug &lt;!channel&gt; --seed 7")
	if !bytes.Contains(status.Blocks, []byte("v1:cancel:"+job)) || status.Everyone {
		t.Errorf("public message %s", status.Blocks)
	}
	l := w.lease()
	beat := func(b queue.Beat) {
		if _, err := w.q.Heartbeat(w.ctx, l.Ref(), b); err != nil {
			t.Fatal(err)
		}
	}
	beat(queue.Beat{Progress: &queue.Progress{Stage: queue.StageViews, Step: 7, Total: 30}})
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "step 7 of 30")) == 1 }) {
		t.Errorf("no progress; log:\n%s", w.log)
	}
	beat(queue.Beat{Views: results[:1], Progress: &queue.Progress{Stage: queue.StageOptimise, Step: 1, Total: 8}})
	if !w.server.Wait(patience, func() bool {
		return slices.ContainsFunc(w.server.Messages(w.channel), func(m slacktest.Message) bool {
			return m.Thread == status.TS && bytes.Contains(m.Blocks, []byte("slack_file"))
		})
	}) {
		t.Errorf("no grid of views; log:\n%s", w.log)
	}
	w.complete(l)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.log)
	}
	m := outcomes(w.server.Messages(w.channel), "is ready")[0]
	if m.Thread != status.TS || !slices.Equal(m.Pinged, []string{"U42"}) || m.Everyone || m.Unfurl {
		t.Errorf("result in thread %q, notified %v, everyone %v, unfurled %v", m.Thread, m.Pinged, m.Everyone, m.Unfurl)
	}
	for _, want := range []string{"/model.glb", "/jobs/" + job, "v1:vary:" + job, "v1:delete:" + job, `"confirm"`} {
		if !bytes.Contains(m.Blocks, []byte(want)) {
			t.Errorf("the result lacks %q: %s", want, m.Blocks)
		}
	}
	if bytes.Count(m.Blocks, []byte("slack_file")) != 2 {
		t.Errorf("pictures: %s", m.Blocks)
	}
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "Ready:")) == 1 }) {
		t.Error("the status message still offers to cancel")
	}
}

func TestSubwordsButtonsForms(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, text := range []string{"help", "queue", "quota", "history", "jobs", "privacy", "forget-me", "--sed 3 mug", "admin pause"} {
		in := w.server.WaitAck(w.server.Command("U42", w.channel, text), patience)
		if !bytes.Contains(in.Ack, []byte(`"ephemeral"`)) || !bytes.Contains(in.Ack, []byte("rich_text")) {
			t.Errorf("%q: ack %s; log:\n%s", text, in.Ack, w.log)
		}
	}
	if jobs, _ := w.q.List(w.ctx, queue.Filter{}); len(jobs) != 0 {
		t.Fatalf("%d jobs of subwords", len(jobs))
	}
	job, status := w.dream("U42", "cancel culture statue")
	in := w.server.Click("U7", status, "v1:cancel:"+job)
	if !w.server.Wait(patience, func() bool { return len(w.server.Answered(in).Responses) == 1 }) || !bytes.Contains(w.server.Answered(in).Responses[0], []byte("Only the person")) {
		t.Errorf("a stranger's click: %s; log:\n%s", w.server.Answered(in).Responses, w.log)
	}
	in = w.server.Click("U42", status, "v1:cancel:"+job)
	w.server.Wait(patience, func() bool { return len(w.server.Answered(in).Responses) == 1 })
	if j, _ := w.q.Job(w.ctx, job); j.Status != queue.Cancelled {
		t.Errorf("the job is %s; log:\n%s", j.Status, w.log)
	}
	// An empty command opens a form; mistakes are shown in it.
	w.server.WaitAck(w.server.Command("U42", w.channel, "  "), patience)
	if !w.server.Wait(patience, func() bool { return len(w.server.Views()) == 1 }) {
		t.Fatalf("no form; log:\n%s", w.log)
	}
	value := func(v string) map[string]any {
		return map[string]any{"x": map[string]any{"type": "plain_text_input", "value": v}}
	}
	in = w.server.Submit("U42", "dream", w.channel, map[string]map[string]any{"prompt": value("a vase"), "seed": value("x")})
	if a := w.server.WaitAck(in, patience); !bytes.Contains(a.Ack, []byte(`"errors"`)) || !bytes.Contains(a.Ack, []byte(`"seed"`)) {
		t.Errorf("a mistake in the form: %s", a.Ack)
	}
	in = w.server.Submit("U42", "dream", w.channel, map[string]map[string]any{"prompt": value("a vase\nwith flowers"), "seed": value("5")})
	w.server.WaitAck(in, patience)
	if !w.server.Wait(patience, func() bool {
		jobs, _ := w.q.List(w.ctx, queue.Filter{User: "slack:U42", Status: []queue.Status{queue.Queued}})
		return len(jobs) == 1 && jobs[0].Prompt == "a vase with flowers" && *jobs[0].Seed == 5
	}) {
		t.Errorf("the form made no job; log:\n%s", w.log)
	}
	file := w.server.AddFile("p.txt", []byte("a\nb\n"))
	in = w.server.Submit("U9", "ingest", w.channel, map[string]map[string]any{"file": {"file": map[string]any{"type": "file_input", "files": []any{map[string]any{"id": file}}}}})
	w.server.WaitAck(in, patience)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "2 lines")) == 1 }) {
		t.Errorf("no ingest; log:\n%s", w.log)
	}
}

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
			w.server.Change(w.channel, change)
			w.complete(w.lease())
			if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct("U42"), "is ready")) == 1 }) {
				t.Errorf("no direct message; log:\n%s", w.log)
			}
		})
	}
	t.Run("status deleted", func(t *testing.T) {
		w := newWorld(t)
		w.start()
		_, status := w.dream("U42", "a mug")
		w.server.Delete(w.channel, status.TS)
		w.complete(w.lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "is ready")) == 1 }) {
			t.Errorf("no result in the channel; log:\n%s", w.log)
		}
	})
	t.Run("private job", func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.server.WaitAck(w.server.Command("U42", w.channel, "a mug --private"), patience)
		w.complete(w.lease())
		if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Direct("U42"), "is ready")) == 1 }) {
			t.Errorf("no direct message; log:\n%s", w.log)
		}
		if n := len(w.server.Messages(w.channel)); n != 0 {
			t.Errorf("%d messages in the channel about a private job", n)
		}
	})
}

func TestSockets(t *testing.T) {
	for name, trouble := range map[string]func(*slacktest.Server){
		"refresh": func(s *slacktest.Server) { s.Disconnect("refresh_requested") },
		"warning": func(s *slacktest.Server) { s.Disconnect("warning") },
		"dropped": func(s *slacktest.Server) { s.Drop() },
		"silent":  func(s *slacktest.Server) { s.Silence(true); time.Sleep(4 * time.Second); s.Silence(false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.start()
			trouble(w.server)
			if !w.server.Wait(2*patience, func() bool {
				if w.server.Connected() == 0 {
					return false
				}
				in := w.server.WaitAck(w.server.Command("U42", w.channel, "help"), 2*time.Second)
				return !in.Acked.IsZero()
			}) {
				t.Errorf("the app does not come back; log:\n%s", w.log)
			}
		})
	}
}

// A redelivered envelope is one job.
func TestRedelivery(t *testing.T) {
	w := newWorld(t)
	w.start()
	in := w.server.Command("U42", w.channel, "a mug")
	w.server.WaitAck(in, patience)
	w.server.Resend(in)
	w.server.WaitAck(in, patience)
	time.Sleep(200 * time.Millisecond)
	if jobs, _ := w.q.List(w.ctx, queue.Filter{}); len(jobs) != 1 {
		t.Errorf("%d jobs", len(jobs))
	}
}

func TestRevoked(t *testing.T) {
	w := newWorld(t)
	done := make(chan error, 1)
	w.server.Revoke()
	go func() { done <- w.bot.Run(w.ctx) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run ends without an error")
		}
	case <-time.After(patience):
		t.Fatal("the app goes on with dead tokens")
	}
	if n := len(w.server.Requests("apps.connections.open")); n > 4 {
		t.Errorf("%d attempts with dead tokens", n)
	}
}

func TestParallelCommands(t *testing.T) {
	w, n := strictWorld(t), 100
	if testing.Short() { // under the race detector the real deadlines mean nothing
		w, n = newWorld(t), 12
	}
	w.start()
	var ins []*slacktest.Interaction
	for i := range n {
		ins = append(ins, w.server.Command(fmt.Sprintf("U%d", 1000+i), w.channel, fmt.Sprintf("mug %d", i)))
	}
	var times []time.Duration
	for i, in := range ins {
		a := w.server.WaitAck(in, patience)
		if !bytes.Contains(a.Ack, []byte("Queued")) {
			t.Fatalf("command %d: ack %s; log:\n%s", i, a.Ack, w.log)
		}
		times = append(times, a.Acked.Sub(a.Created))
	}
	slices.Sort(times)
	t.Logf("%d parallel commands: p50 %v, slowest %v", n, times[n/2], times[n-1])
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
		reply := w.service.Execute(w.ctx, bots.Command{
			Command: parse.Command{Verb: parse.Dream, Prompt: parse.Clean(prompt)},
			From:    queue.Requester{Platform: "slack", ID: fmt.Sprintf("U%d", i)}, Origin: queue.Origin{Platform: "slack", Channel: w.channel},
		})
		if reply.Refused {
			t.Errorf("%q was refused: %s", prompt, reply.Text)
			continue
		}
		if _, err := w.bot.Post(w.ctx, bots.Spot{Channel: w.channel}, reply.Message, ""); err != nil {
			t.Errorf("%q: %v", prompt, err)
		}
	}
	for _, m := range w.server.Messages(w.channel) {
		if m.Everyone || len(m.Pinged) > 0 {
			t.Errorf("%s notified %v, everyone %v", m.Blocks, m.Pinged, m.Everyone)
		}
		if strings.Contains(m.Text, "<!") || strings.Contains(m.Text, "<@") || strings.Contains(m.Text, "<h") {
			t.Errorf("the fallback text is not escaped: %q", m.Text)
		}
	}
	if strings.Contains(w.log.String(), "DROP TABLE") {
		t.Error("the log holds prompts")
	}
}

func TestHTTPEndpoint(t *testing.T) {
	w := newWorld(t)
	h, err := w.bot.Endpoint(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h)
	defer web.Close()
	defer w.bot.work.Wait()
	for _, c := range []struct {
		age  time.Duration
		good bool
		want int
	}{{0, true, 200}, {0, false, 401}, {299 * time.Second, true, 200}, {301 * time.Second, true, 401}} {
		in, status, err := w.server.CommandHTTP(web.URL, "U42", w.channel, "help", time.Now().Add(-c.age), c.good)
		if err != nil || status != c.want || status == 200 && !bytes.Contains(in.Ack, []byte("ephemeral")) {
			t.Errorf("%v old, good %v: %d %s %v", c.age, c.good, status, in.Ack, err)
		}
	}
	in, _, err := w.server.CommandHTTP(web.URL, "U42", w.channel, "a mug", time.Now(), true)
	if err != nil || !bytes.Contains(in.Ack, []byte("Queued")) {
		t.Errorf("command: %s %v", in.Ack, err)
	}
}

func TestAlerts(t *testing.T) {
	w := newWorld(t)
	w.start()
	alert := queue.Alert{Code: "gpu.hot", Key: "host1/0", Severity: queue.Critical, State: queue.Firing, Text: "GPU 0 is at 91 °C. <!channel>", Since: time.Now(), Source: "host1"}
	for range 500 {
		if err := w.q.Raise(w.ctx, alert); err != nil {
			t.Fatal(err)
		}
	}
	if !w.server.Wait(patience, func() bool { return len(w.server.Messages(w.ops)) == 1 }) {
		t.Fatalf("no alert; log:\n%s", w.log)
	}
	m := w.server.Messages(w.ops)[0]
	if m.Everyone {
		t.Error("an alert notified everyone")
	}
	w.server.WaitAck(w.server.Click("U9", m, "v1:ack:gpu.hot:host1/0"), patience)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.ops), "Acknowledged")) == 1 }) {
		t.Errorf("no acknowledgement; log:\n%s", w.log)
	}
	alert.State = queue.Resolved
	if err := w.q.Raise(w.ctx, alert); err != nil {
		t.Fatal(err)
	}
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.ops), "Resolved")) == 1 }) {
		t.Errorf("not resolved; log:\n%s", w.log)
	}
}

// A message is found again by its nonce; where the scope is missing, it cannot be looked for.
func TestFind(t *testing.T) {
	w := newWorld(t)
	for _, thread := range []bool{false, true} {
		spot := bots.Spot{Channel: w.channel}
		if thread {
			p, err := w.bot.Post(w.ctx, spot, bots.Message{Text: "a thread"}, "root")
			if err != nil {
				t.Fatal(err)
			}
			spot.Thread = p.ID
		}
		nonce := fmt.Sprintf("nonce-%v", thread)
		since := time.Now().Add(-time.Minute)
		if _, found, err := w.bot.Find(w.ctx, spot, nonce, since); found || err != nil {
			t.Errorf("thread %v: found %v, %v", thread, found, err)
		}
		p, err := w.bot.Post(w.ctx, spot, bots.Message{Text: "hello"}, nonce)
		if err != nil {
			t.Fatal(err)
		}
		if got, found, err := w.bot.Find(w.ctx, spot, nonce, since); !found || err != nil || got.ID != p.ID {
			t.Errorf("thread %v: %+v, %v, %v", thread, got, found, err)
		}
	}
	w.server.DropScope("channels:history")
	w.server.DropScope("groups:history")
	_, _, err := w.bot.Find(w.ctx, bots.Spot{Channel: w.channel}, "x", time.Now())
	if e, ok := err.(*bots.ChatError); !ok || e.Trouble != bots.TroubleLook {
		t.Errorf("without the scope: %v", err)
	}
}
