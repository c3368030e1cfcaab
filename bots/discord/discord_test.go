package discord

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
	"dreamcad/bots/discord/discordtest"
	"dreamcad/bots/limits"
	"dreamcad/bots/parse"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

// discordgo's Open deadlocks when op 7 comes before READY: that goroutine can
// only be abandoned, which TestGatewayTrouble does on purpose.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/bwmarrin/discordgo.(*Session).Open"))
}

// patience is for a slow machine; nothing here measures speed.
const patience = 20 * time.Second

type world struct {
	t       *testing.T
	ctx     context.Context
	server  *discordtest.Server
	q       *sqliteq.Queue
	service *bots.Service
	bot     *Bot
	channel string
	ops     string
	log     *lockedBuffer
	budget  time.Duration // for the first answer; 0: the real one
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

// newWorld is a server, a queue and a service; start adds the bot. Its time for
// an answer is long, so that a slow machine changes nothing: strictWorld has
// the real one.
func newWorld(t *testing.T) *world { return makeWorld(t, patience) }

// strictWorld allows the 3 s that Discord does.
func strictWorld(t *testing.T) *world { return makeWorld(t, 0) }

func makeWorld(t *testing.T, budget time.Duration) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), server: discordtest.New(), log: &lockedBuffer{}, budget: budget}
	t.Cleanup(w.server.Close)
	config := queue.DefaultConfig()
	if budget > 0 {
		w.server.SetAckWindow(budget)
		config.SubmitBudget = budget
	}
	w.server.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond})
	w.channel = w.server.AddChannel("guild1").ID
	w.ops = w.server.AddChannel("guild1").ID
	var err error
	w.q, err = sqliteq.Open(w.ctx, filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.q.Close() })
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.service, err = bots.New(bots.Config{Patience: budget, Limits: limits.Config{Admins: []string{"discord:9"}, Ingest: []string{"discord:9"}}}, w.q, nil, lines{}, logger)
	if err != nil {
		t.Fatal(err)
	}
	w.bot = w.newBot()
	return w
}

type lines struct{}

func (lines) Ingest(_ context.Context, name string, file io.Reader, _ queue.Requester, _ queue.Origin) (string, error) {
	text, err := io.ReadAll(file)
	return fmt.Sprintf("%s: %d lines", name, bytes.Count(text, []byte("\n"))), err
}

func (w *world) newBot() *Bot {
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return New(Config{
		Token: w.server.Token, APIURL: w.server.URL(), PublicKey: w.server.PublicKey(),
		ReadyIn: 2 * time.Second, Silent: 2 * time.Second, AckBudget: w.budget, LockLife: 1500 * time.Millisecond,
	}, w.service, w.q, logger)
}

func quick() delivery.Config {
	c := delivery.Defaults()
	c.EditEvery, c.Poll, c.RetryBase, c.LockLife = 20*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond, 1500*time.Millisecond
	return c
}

// start runs the bot and its delivery until the returned function stops them.
func (w *world) start() (stop func()) {
	w.t.Helper()
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config := quick()
	config.OpsChannel = w.ops
	renderer := &bots.Renderer{Next: w.service.Next, Results: bots.Results{
		Link: func(_ context.Context, job string, f queue.File) (string, time.Time) {
			return "https://dream.example/r/" + job + "/" + f.Name + "?exp=1&sig=x", time.Now().Add(time.Hour)
		},
		Page: func(job string) string { return "https://dream.example/jobs/" + job },
		Read: func(_ context.Context, _, _, name string, _ int64) ([]byte, error) {
			return []byte("picture " + name), nil
		},
	}}
	d := delivery.New(config, w.q, w.bot, w.bot, renderer, delivery.NewMetrics(nil), logger)
	w.bot.Learn(d.Outbound())
	ctx, cancel := context.WithCancel(w.ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = w.bot.Run(ctx) })
	parts.Go(func() { _ = d.Run(ctx) })
	if !w.server.Wait(patience, func() bool { return w.server.Connected() > 0 }) {
		w.t.Errorf("the bot does not connect; log:\n%s", w.log)
	}
	stop = sync.OnceFunc(func() { cancel(); parts.Wait() })
	w.t.Cleanup(stop)
	return stop
}

func (w *world) person(id string) discordtest.Person {
	return discordtest.Person{ID: id, Channel: w.channel}
}

// dream submits a job in chat and returns its id and its status message.
func (w *world) dream(user, prompt string) (string, discordtest.Message) {
	w.t.Helper()
	in := w.server.Command(w.person(user), "dream", map[string]any{"prompt": prompt})
	kind, _, m := w.server.WaitAnswer(in, patience)
	if kind != 4 || m == nil {
		w.t.Fatalf("no answer to /dream (kind %d); log:\n%s", kind, w.log)
	}
	jobs, err := w.q.List(w.ctx, queue.Filter{User: "discord:" + user, Limit: 1})
	if err != nil || len(jobs) == 0 {
		w.t.Fatalf("no job: %v; the answer was %q", err, m.Content)
	}
	w.server.Wait(patience, func() bool {
		_, err := w.q.Get(w.ctx, "bots/msg/"+jobs[0].ID)
		return err == nil
	})
	return jobs[0].ID, *m
}

var results = []queue.File{
	{Role: "sheet", Name: "views.png", MediaType: "image/png", Bytes: 10},
	{Role: "turntable", Name: "turntable.gif", MediaType: "image/gif", Bytes: 10},
	{Role: "mesh-glb", Name: "model.glb", MediaType: "model/gltf-binary", Bytes: 12345},
	{Role: "mesh-obj", Name: "model.obj", MediaType: "model/obj", Bytes: 2345},
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

// outcomes are the new messages that mention the job's end.
func outcomes(list []discordtest.Message, words ...string) []discordtest.Message {
	return slices.DeleteFunc(list, func(m discordtest.Message) bool {
		return m.Deleted || !slices.ContainsFunc(words, func(s string) bool { return strings.Contains(m.Content, s) })
	})
}

func TestJobFromCommandToResult(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, status := w.dream("42", "a *ceramic* coffee mug @everyone")
	if !strings.Contains(status.Content, `a \*ceramic\* coffee mug \@everyone`) || !strings.Contains(string(status.Components), "v1:cancel:"+job) {
		t.Errorf("ack %q with %s", status.Content, status.Components)
	}
	l := w.lease()
	beat := func(b queue.Beat) {
		if _, err := w.q.Heartbeat(w.ctx, l.Ref(), b); err != nil {
			t.Fatal(err)
		}
	}
	beat(queue.Beat{Progress: &queue.Progress{Stage: queue.StageViews, Step: 7, Total: 30}})
	seen := func(cond func(m discordtest.Message) bool) bool {
		return w.server.Wait(patience, func() bool {
			for _, m := range w.server.Messages(w.channel) {
				if m.ID == status.ID && cond(m) {
					return true
				}
			}
			return false
		})
	}
	if !seen(func(m discordtest.Message) bool { return strings.Contains(m.Content, "step 7 of 30") }) {
		t.Errorf("no progress; log:\n%s", w.log)
	}
	beat(queue.Beat{Views: results[:1], Progress: &queue.Progress{Stage: queue.StageOptimise, Step: 1, Total: 8}})
	if !seen(func(m discordtest.Message) bool { return len(m.Attachments) == 1 && m.Attachments[0].Description != "" }) {
		t.Errorf("no grid of views; log:\n%s", w.log)
	}
	w.complete(l)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.log)
	}
	m := outcomes(w.server.Messages(w.channel), "is ready")[0]
	if !slices.Equal(m.Pinged, []string{"42"}) || m.Everyone {
		t.Errorf("the result notified %v, everyone %v", m.Pinged, m.Everyone)
	}
	if len(m.Attachments) != 2 {
		t.Errorf("%d pictures", len(m.Attachments))
	}
	for _, want := range []string{"/model.glb?", "/model.obj?", "/jobs/" + job, "v1:vary:" + job, "v1:retry:" + job, "v1:delete:" + job} {
		if !strings.Contains(string(m.Components), want) {
			t.Errorf("the result lacks %q: %s", want, m.Components)
		}
	}
	if !seen(func(m discordtest.Message) bool {
		return strings.HasPrefix(m.Content, "Ready") && !strings.Contains(string(m.Components), "cancel") && len(m.Attachments) == 1
	}) {
		t.Error("the status message still offers to cancel")
	}
	for _, r := range w.server.Requests("", "/channels") {
		if r.Method != "GET" && !bytes.Contains(r.Body, []byte(`"allowed_mentions":{"parse":[]`)) {
			t.Errorf("%s %s without allowed_mentions", r.Method, r.Path)
		}
	}
}

func TestButtons(t *testing.T) {
	w := newWorld(t)
	w.start()
	job, status := w.dream("42", "a mug")
	in := w.server.Click(w.person("7"), status, "v1:cancel:"+job)
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral || !strings.Contains(m.Content, "Only the person") {
		t.Errorf("a stranger's click: %+v", m)
	}
	in = w.server.Click(w.person("42"), status, "v1:cancel:"+job)
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !strings.Contains(m.Content, "is cancelled") {
		t.Errorf("the owner's click: %+v", m)
	}
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "was cancelled")) == 1 }) {
		t.Errorf("no outcome; log:\n%s", w.log)
	}
	in = w.server.Click(w.person("7"), status, "v1:retry:"+job)
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || m.Ephemeral || !strings.Contains(m.Content, "Queued") {
		t.Errorf("retry: %+v", m)
	}
	for _, bad := range []string{"v1:admin:pause", "nonsense", "v1:cancel:NOSUCHJOB1"} {
		in = w.server.Click(w.person("42"), status, bad)
		if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral {
			t.Errorf("button %q: %+v", bad, m)
		}
	}
}

func TestCommandsAndCompletion(t *testing.T) {
	w := newWorld(t)
	w.start()
	if n := len(w.server.Commands()); n != len(w.bot.commands()) {
		t.Fatalf("%d commands registered", n)
	}
	job, _ := w.dream("42", "a mug")
	w.dream("7", "a cup")
	in := w.server.Autocomplete(w.person("42"), "jobs", map[string]any{"cancel.job": ""}, "cancel.job")
	_, data, _ := w.server.WaitAnswer(in, patience)
	if !bytes.Contains(data, []byte(job)) || bytes.Count(data, []byte(`"value"`)) != 1 {
		t.Errorf("completion: %s", data)
	}
	for name, options := range map[string]map[string]any{
		"help": nil, "queue": nil, "quota": nil, "privacy": nil, "forget-me": nil,
		"history": {"page": 1}, "jobs": {"show.job": job}, "admin": {"status.": ""},
	} {
		in := w.server.Command(w.person("42"), name, options)
		if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral || m.Content == "" {
			t.Errorf("/%s: %+v", name, m)
		}
	}
	in = w.server.Command(w.person("42"), "dream", nil)
	kind, data, _ := w.server.WaitAnswer(in, patience)
	if kind != 9 || !bytes.Contains(data, []byte(`"prompt"`)) {
		t.Errorf("/dream without a prompt: %d %s", kind, data)
	}
	in = w.server.Submit(w.person("42"), "v1:modal:views::true:5", map[string]string{"prompt": "a vase\nwith flowers", "negative": ""})
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !m.Ephemeral || !strings.Contains(m.Content, "seed 5") || !strings.Contains(m.Content, "a vase with flowers") {
		t.Errorf("form: %+v", m)
	}
	in = w.server.Command(w.person("9"), "ingest", map[string]any{"file": discordtest.Upload{Name: "p.txt", Data: []byte("a\nb\n")}})
	if _, _, m := w.server.WaitAnswer(in, patience); m == nil || !strings.Contains(m.Content, "2 lines") {
		t.Errorf("ingest: %+v", m)
	}
}

// Commands are written once, however often a bot starts with the same definition.
func TestRegisterOnlyOnChange(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.bot = w.newBot()
		w.start()()
	}
	if n := len(w.server.Requests("PUT", "/applications")); n != 1 {
		t.Errorf("the commands were written %d times", n)
	}
}

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

// A two-hour job: the interaction's token is long dead, and edits of the status
// message have stopped before Discord begins to refuse them.
func TestLongJob(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("42", "a mug")
	l := w.lease()
	w.server.Advance(2 * time.Hour)
	if _, err := w.q.Heartbeat(w.ctx, l.Ref(), queue.Beat{Progress: &queue.Progress{Stage: queue.StageOptimise, Step: 9, Total: 10}}); err != nil {
		t.Fatal(err)
	}
	w.complete(l)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.log)
	}
}

func TestTwoBotsOnOneToken(t *testing.T) {
	w := newWorld(t)
	w.start()
	second := w.newBot()
	ctx, cancel := context.WithCancel(w.ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = second.Run(ctx) })
	defer parts.Wait()
	defer cancel()
	time.Sleep(300 * time.Millisecond)
	w.dream("42", "a mug")
	if n := w.server.Connected(); n != 1 {
		t.Errorf("%d sessions on one token", n)
	}
}

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
	for i, in := range ins {
		if kind, _, m := w.server.WaitAnswer(in, patience); kind != 4 || m == nil || !strings.Contains(m.Content, "Queued") {
			t.Fatalf("command %d: kind %d, %+v; log:\n%s", i, kind, m, w.log)
		}
		times = append(times, w.server.AckTime(in))
	}
	slices.Sort(times)
	t.Logf("%d parallel commands: p50 %v, slowest %v", n, times[n/2], times[n-1])
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
		w.complete(w.lease())
		if !w.server.Wait(patience, func() bool {
			return len(outcomes(w.server.Messages(w.channel), parse.Short(job)+" is ready")) == 1
		}) {
			t.Fatalf("%q: no result; log:\n%s", prompt, w.log)
		}
		m := outcomes(w.server.Messages(w.channel), parse.Short(job)+" is ready")[0]
		if !slices.Equal(m.Pinged, []string{user}) || m.Everyone || status.Everyone || len(status.Pinged) > 0 || m.WouldPing {
			t.Errorf("%q notified %v", prompt, m.Pinged)
		}
		for _, r := range "\u202e\u200b\U000e0041" {
			if strings.ContainsRune(m.Content, r) {
				t.Errorf("%q: %U is shown", prompt, r)
			}
		}
	}
	if strings.Contains(w.log.String(), "DROP TABLE") || strings.Contains(w.log.String(), w.server.Token) {
		t.Error("the log holds prompts or the token")
	}
}

func TestGatewayTrouble(t *testing.T) {
	for name, trouble := range map[string]func(*discordtest.Server){
		"op 7":    func(s *discordtest.Server) { s.AskReconnect() },
		"dropped": func(s *discordtest.Server) { s.CloseGateway(0) },
		"4000":    func(s *discordtest.Server) { s.CloseGateway(4000) },
		"4007":    func(s *discordtest.Server) { s.CloseGateway(4007) },
		"4009":    func(s *discordtest.Server) { s.CloseGateway(4009) },
		"op 1":    func(s *discordtest.Server) { s.AskHeartbeat() },
		"no hello": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{NoHello: true})
			s.CloseGateway(0)
			time.AfterFunc(3*time.Second, func() { s.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond}) })
		},
		"early op 7": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{ReconnectFirst: true})
			s.CloseGateway(0)
			time.AfterFunc(3*time.Second, func() { s.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond}) })
		},
		"invalid session": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{InvalidSession: true, Heartbeat: 200 * time.Millisecond})
			s.CloseGateway(0)
		},
		"zombie": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{NoAck: true, Heartbeat: 200 * time.Millisecond})
			s.CloseGateway(0)
			time.AfterFunc(3*time.Second, func() { s.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond}) })
		},
		"duplicated dispatches": func(s *discordtest.Server) {
			s.Script(discordtest.GatewayScript{Duplicate: true, Heartbeat: 200 * time.Millisecond})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.server.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond})
			w.start()
			trouble(w.server)
			// Interactions that arrive while it is away are replayed on resume
			// or lost with the session; people try again.
			var in *discordtest.Interaction
			if !w.server.Wait(2*patience, func() bool {
				if w.server.Connected() == 0 {
					return false
				}
				in = w.server.Command(w.person("42"), "dream", map[string]any{"prompt": "a mug"})
				kind, _, _ := w.server.WaitAnswer(in, 2*time.Second)
				return kind == 4
			}) {
				t.Fatalf("the bot does not come back; log:\n%s", w.log)
			}
			if name == "dropped" && w.server.Resumes() == 0 {
				t.Error("the session was not resumed")
			}
			jobs, _ := w.q.List(w.ctx, queue.Filter{})
			if name == "duplicated dispatches" && len(jobs) != 1 {
				t.Errorf("%d jobs of one command", len(jobs))
			}
		})
	}
}

// A bad token or a missing intent ends the session for good: trying on would
// burn identifies.
func TestFatalClose(t *testing.T) {
	for _, code := range []int{4004, 4014} {
		w := newWorld(t)
		w.server.RefuseNext(code)
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error, 1)
		go func() { done <- w.bot.Run(ctx) }()
		if !w.server.Wait(patience, func() bool { return w.bot.Health().Problem != "" && w.server.Identifies() > 0 }) {
			t.Errorf("%d: no problem is reported", code)
		}
		time.Sleep(time.Second)
		if n := w.server.Identifies(); n > 1 {
			t.Errorf("%d: %d identifies", code, n)
		}
		cancel()
		if err := <-done; err == nil {
			t.Errorf("%d: Run ends without an error", code)
		}
	}
}

func TestRevokedToken(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.server.Revoke()
	w.server.CloseGateway(0)
	if !w.server.Wait(patience, func() bool { return w.bot.Health().Revoked }) {
		t.Fatalf("log:\n%s", w.log)
	}
	n := len(w.server.Requests("", ""))
	time.Sleep(time.Second)
	if more := len(w.server.Requests("", "")) - n; more > 2 {
		t.Errorf("%d more requests with a dead token", more)
	}
}

func TestRateLimits(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.dream("42", "a mug")
	w.server.Break(discordtest.Fault{Method: "POST", Path: "/channels/" + w.channel, Times: 1, Status: 429, Body: "<html>banned</html>", Header: http.Header{"Retry-After": {"1"}}})
	w.complete(w.lease())
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.channel), "is ready")) == 1 }) {
		t.Fatalf("no result; log:\n%s", w.log)
	}
	posts := w.server.Requests("POST", "/channels/"+w.channel)
	if len(posts) != 2 || posts[1].At.Sub(posts[0].At) < 900*time.Millisecond {
		t.Errorf("%d posts", len(posts))
	}
}

func TestAlerts(t *testing.T) {
	w := newWorld(t)
	w.start()
	alert := queue.Alert{Code: "gpu.hot", Key: "host1/0", Severity: queue.Warning, State: queue.Firing, Text: "GPU 0 is at 85 °C. @everyone", Since: time.Now(), Source: "host1"}
	for range 500 {
		if err := w.q.Raise(w.ctx, alert); err != nil {
			t.Fatal(err)
		}
	}
	if !w.server.Wait(patience, func() bool { return len(w.server.Messages(w.ops)) == 1 }) {
		t.Fatalf("no alert; log:\n%s", w.log)
	}
	m := w.server.Messages(w.ops)[0]
	if m.Everyone || len(m.Pinged) > 0 {
		t.Error("an alert notified people")
	}
	in := w.server.Click(discordtest.Person{ID: "42", Channel: w.ops}, m, "v1:silence:gpu.hot:host1/0")
	if _, _, a := w.server.WaitAnswer(in, patience); a == nil || !a.Ephemeral {
		t.Errorf("anybody may silence: %+v", a)
	}
	in = w.server.Click(discordtest.Person{ID: "9", Channel: w.ops}, m, "v1:silence:gpu.hot:host1/0")
	if _, _, a := w.server.WaitAnswer(in, patience); a == nil || !strings.Contains(a.Content, "Silenced by <@9>") {
		t.Errorf("silence: %+v", a)
	}
	alert.State = queue.Resolved
	if err := w.q.Raise(w.ctx, alert); err != nil {
		t.Fatal(err)
	}
	if !w.server.Wait(patience, func() bool { return strings.HasPrefix(w.server.Messages(w.ops)[0].Content, "Resolved") }) {
		t.Error("the alert is not resolved in chat")
	}
	if n := len(outcomes(w.server.Messages(w.ops), "GPU 0")); n != 1 {
		t.Errorf("%d messages about one alert", n)
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
	ping := map[string]any{"type": 1}
	for _, c := range []struct {
		at   time.Time
		good bool
		want int
	}{
		{time.Now(), true, 200}, {time.Now(), false, 401}, {time.Now().Add(-299 * time.Second), true, 200}, {time.Now().Add(-301 * time.Second), true, 401},
	} {
		status, body, err := w.server.SignedRequest(web.URL, ping, c.at, c.good)
		if err != nil || status != c.want || status == 200 && string(body) != `{"type":1}` {
			t.Errorf("PING at %v, good %v: %d %s %v", time.Since(c.at), c.good, status, body, err)
		}
	}
	in, status, err := w.server.CommandHTTP(web.URL, w.person("42"), "dream", map[string]any{"prompt": "a mug"})
	if err != nil || status != 200 {
		t.Fatalf("command: %d, %v; log:\n%s", status, err, w.log)
	}
	if _, _, m := w.server.Answer(in); m == nil || !strings.Contains(m.Content, "Queued") {
		t.Errorf("answer %+v", m)
	}
	jobs, _ := w.q.List(w.ctx, queue.Filter{User: "discord:42"})
	if len(jobs) != 1 || !w.server.Wait(patience, func() bool { _, err := w.q.Get(w.ctx, "bots/msg/"+jobs[0].ID); return err == nil }) {
		t.Errorf("%d jobs, or the message is not known", len(jobs))
	}
	var payload json.RawMessage
	if payload, err = json.Marshal(map[string]any{"type": 2, "id": "1", "token": "x", "data": map[string]any{"name": "help"}}); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := w.server.SignedRequest(web.URL, payload, time.Now(), false); status != 401 {
		t.Errorf("a forged command got %d", status)
	}
}

// Memory stays flat over many interactions: nothing is kept for each of them.
func TestRecent(t *testing.T) {
	var r recent
	for i := range 100_000 {
		if !r.add(fmt.Sprint(i)) || r.add(fmt.Sprint(i)) {
			t.Fatal("an id is not known at once")
		}
	}
	if len(r.young)+len(r.old) > 2*recentSize {
		t.Errorf("%d ids are kept", len(r.young)+len(r.old))
	}
}
