package discord

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
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
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
)

// discordgo's Open deadlocks when op 7 comes before READY: that goroutine can
// only be abandoned, which TestGatewayTrouble does on purpose. Its Close sleeps
// for a second, which may outlast the last test.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/bwmarrin/discordgo.(*Session).Open"),
		goleak.IgnoreAnyFunction("github.com/bwmarrin/discordgo.(*Session).CloseWithCode"))
}

// patience is for a slow machine; nothing here measures speed.
const patience = 20 * time.Second

type world struct {
	t       *testing.T
	ctx     context.Context
	server  *discordtest.Server
	q       *sqliteq.Queue
	service *bots.Service
	store   storage.Store
	render  *bots.Renderer
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
func newWorld(t *testing.T) *world { return makeWorld(t, discordtest.New(), patience) }

// strictWorld allows the 3 s that Discord does.
func strictWorld(t *testing.T) *world { return makeWorld(t, discordtest.New(), 0) }

// simulatedWorld is one without a network, for testing/synctest: interactions
// are handed to the bot, and each request takes 120 ms.
func simulatedWorld(t *testing.T) *world {
	w := makeWorld(t, discordtest.Offline(), 0)
	w.bot.rest.client.Transport = w.server.Transport(120 * time.Millisecond)
	return w
}

func makeWorld(t *testing.T, server *discordtest.Server, budget time.Duration) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), server: server, log: &lockedBuffer{}, budget: budget}
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
	if w.store, err = dir.Open(dir.Config{Path: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.service, err = bots.New(bots.Config{Patience: budget, Qualities: []queue.Quality{queue.Draft, queue.Standard}, Limits: limits.Config{Admins: []string{"discord:9"}, Ingest: []string{"discord:9"}}}, w.q, w.store, lines{}, logger)
	if err != nil {
		t.Fatal(err)
	}
	w.render = &bots.Renderer{Next: w.service.Next, Results: bots.Results{
		Link: func(_ context.Context, job string, f queue.File) (string, time.Time) {
			return "https://dream.example/r/" + job + "/" + f.Name + "?exp=1&sig=x", time.Now().Add(time.Hour)
		},
		Page: func(job string) string { return "https://dream.example/jobs/" + job },
		Read: func(_ context.Context, _, _, name string, _ int64) ([]byte, error) {
			return []byte("picture " + name), nil
		},
	}}
	w.service.Present(w.render)
	w.bot = w.newBot()
	return w
}

type lines struct{}

func (lines) Ingest(_ context.Context, name string, file io.Reader, _ queue.Requester, _ queue.Origin, _ func(string) error) (string, error) {
	text, err := io.ReadAll(file)
	return fmt.Sprintf("%s: %d lines", name, bytes.Count(text, []byte("\n"))), err
}

func (w *world) newBot() *Bot {
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return New(Config{
		Token: w.server.Token, APIURL: w.server.URL(), PublicKey: w.server.PublicKey(),
		ReadyIn: patience / 2, Silent: patience / 2, AckBudget: w.budget, LockLife: 1500 * time.Millisecond,
	}, w.service, w.q, logger)
}

// impatient lets the bot notice a dead session within two seconds.
func (w *world) impatient() { w.bot.config.ReadyIn, w.bot.config.Silent = 2*time.Second, 2*time.Second }

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
	d := delivery.New(config, w.q, w.bot, w.bot, w.render, delivery.NewMetrics(nil), logger)
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
	in := w.server.Command(w.person(user), "dream", map[string]any{"prompt": prompt, "quality": "draft"})
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
