package slack

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/slack/slacktest"
	"dreamcad/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for a slow machine; nothing here measures speed.
const patience = chattest.Patience

type world struct {
	*chattest.World
	server *slacktest.Server
	bot    *Bot
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
	t.Cleanup(server.Close)
	w := &world{World: chattest.NewWorld(t, "slack", "U9", budget), server: server}
	w.Channel, w.Ops = w.server.AddChannel(), w.server.AddChannel()
	w.bot = w.newBot(budget)
	return w
}

func (w *world) newBot(budget time.Duration) *Bot {
	return New(Config{
		BotToken: w.server.BotToken, AppToken: w.server.AppToken, SigningSecret: w.server.Secret, APIURL: w.server.URL(), Silent: 3 * time.Second, AckBudget: budget,
	}, w.Service, w.Q, w.Logger)
}

// start runs the bot and its delivery until the returned function stops them.
func (w *world) start() (stop func()) {
	w.T.Helper()
	d := w.Delivery(chattest.Quick(), w.bot)
	w.bot.Through(d.Outbound())
	stop = w.Run(w.bot.Run, d.Run)
	if !w.server.Wait(patience, func() bool { return w.server.Connected() == 2 }) {
		w.T.Errorf("the bot does not connect; log:\n%s", w.Log)
	}
	return stop
}

// dream submits a job in chat and waits for its public message.
func (w *world) dream(user, text string) (string, slacktest.Message) {
	w.T.Helper()
	in := w.server.WaitAck(w.server.Command(user, w.Channel, text), patience)
	jobs, err := w.Q.List(w.Ctx, queue.Filter{User: "slack:" + user, Limit: 1})
	if err != nil || len(jobs) == 0 {
		w.T.Fatalf("no job: %v; ack %s; log:\n%s", err, in.Ack, w.Log)
	}
	var status slacktest.Message
	if !w.server.Wait(patience, func() bool {
		r, err := w.Q.Get(w.Ctx, "bots/msg/"+jobs[0].ID)
		if err != nil {
			return false
		}
		var p bots.Posted
		if err := json.Unmarshal(r.Value, &p); err != nil {
			return false
		}
		for _, m := range w.server.Messages(w.Channel) {
			if m.TS == p.ID {
				status = m
				return true
			}
		}
		return false
	}) {
		w.T.Fatalf("no public message; log:\n%s", w.Log)
	}
	return jobs[0].ID, status
}

func outcomes(list []slacktest.Message, word string) []slacktest.Message {
	return slices.DeleteFunc(list, func(m slacktest.Message) bool { return !strings.Contains(m.Text, word) })
}
