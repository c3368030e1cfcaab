package slack

import (
	"bytes"
	"context"
	"encoding/json"
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
	"dreamcad/bots/limits"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
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
	store   storage.Store
	render  *bots.Renderer
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

func (lines) Ingest(_ context.Context, name string, file io.Reader, _ queue.Requester, _ queue.Origin, _ func(string) error) (string, error) {
	text, err := io.ReadAll(file)
	return fmt.Sprintf("%s: %d lines", name, bytes.Count(text, []byte("\n"))), err
}

// newWorld is a server, a queue, a service and the bot. Its time for an answer
// is long, so that a slow machine changes nothing: strictWorld has the real one.
func newWorld(t *testing.T) *world { return makeWorld(t, slacktest.New(), patience) }

// strictWorld allows the 3 s that Slack does.
func strictWorld(t *testing.T) *world { return makeWorld(t, slacktest.New(), 0) }

// simulatedWorld is one without a network, for testing/synctest: interactions
// are handed to the bot, and each request takes 120 ms.
func simulatedWorld(t *testing.T) *world {
	w := makeWorld(t, slacktest.Offline(), 0)
	w.bot.client.Transport = w.server.Transport(120 * time.Millisecond)
	return w
}

func makeWorld(t *testing.T, server *slacktest.Server, budget time.Duration) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), server: server, log: &lockedBuffer{}}
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
	if w.store, err = dir.Open(dir.Config{Path: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	w.service, err = bots.New(bots.Config{Patience: budget, Qualities: []queue.Quality{queue.Draft, queue.Standard}, Limits: limits.Config{Admins: []string{"slack:U9"}, Ingest: []string{"slack:U9"}}}, w.q, w.store, lines{}, w.logger)
	if err != nil {
		t.Fatal(err)
	}
	w.render = &bots.Renderer{Next: w.service.Next, Results: bots.Results{
		Link: func(_ context.Context, job string, f queue.File) (string, time.Time) {
			return "https://dream.example/r/" + job + "/" + f.Name, time.Now().Add(time.Hour)
		},
		Page: func(job string) string { return "https://dream.example/jobs/" + job },
		Read: func(_ context.Context, _, _, name string, _ int64) ([]byte, error) {
			return []byte("picture " + name), nil
		},
	}}
	w.service.Present(w.render)
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
	d := delivery.New(config, w.q, w.bot, w.bot, w.render, delivery.NewMetrics(nil), w.logger)
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
