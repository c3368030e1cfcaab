package discord

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/bots/chattest"
	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

// discordgo's Open deadlocks when op 7 comes before READY: that goroutine can
// only be abandoned, which TestGatewayTrouble does on purpose. Its Close sleeps
// for a second, which may outlast the last test.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/bwmarrin/discordgo.(*Session).Open"),
		goleak.IgnoreAnyFunction("github.com/bwmarrin/discordgo.(*Session).CloseWithCode"))
}

// patience is for a slow machine; nothing here measures speed.
const patience = chattest.Patience

type world struct {
	*chattest.World
	server *discordtest.Server
	bot    *Bot
	budget time.Duration // for the first answer; 0: the real one
}

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
	t.Cleanup(server.Close)
	w := &world{World: chattest.NewWorld(t, "discord", "9", budget), server: server, budget: budget}
	if budget > 0 {
		w.server.SetAckWindow(budget)
	}
	w.server.Script(discordtest.GatewayScript{Heartbeat: 200 * time.Millisecond})
	w.Channel, w.Ops = w.server.AddChannel("guild1").ID, w.server.AddChannel("guild1").ID
	w.bot = w.newBot()
	return w
}

func (w *world) newBot() *Bot {
	return New(Config{
		Token: w.server.Token, APIURL: w.server.URL(), PublicKey: w.server.PublicKey(),
		ReadyIn: patience / 2, Silent: patience / 2, AckBudget: w.budget, LockLife: 1500 * time.Millisecond,
	}, w.Service, w.Q, w.Logger)
}

// impatient lets the bot notice a dead session within two seconds.
func (w *world) impatient() { w.bot.config.ReadyIn, w.bot.config.Silent = 2*time.Second, 2*time.Second }

// start runs the bot and its delivery until the returned function stops them.
func (w *world) start() (stop func()) {
	w.T.Helper()
	d := w.Delivery(chattest.Quick(), w.bot)
	w.bot.Learn(d.Outbound())
	stop = w.Run(w.bot.Run, d.Run)
	if !w.server.Wait(patience, func() bool { return w.server.Connected() > 0 }) {
		w.T.Errorf("the bot does not connect; log:\n%s", w.Log)
	}
	return stop
}

func (w *world) person(id string) discordtest.Person {
	return discordtest.Person{ID: id, Channel: w.Channel}
}

// dream submits a job in chat and returns its id and its status message.
func (w *world) dream(user, prompt string) (string, discordtest.Message) {
	w.T.Helper()
	in := w.server.Command(w.person(user), "dream", map[string]any{"prompt": prompt, "quality": "draft"})
	kind, _, m := w.server.WaitAnswer(in, patience)
	if kind != 4 || m == nil {
		w.T.Fatalf("no answer to /dream (kind %d); log:\n%s", kind, w.Log)
	}
	jobs, err := w.Q.List(w.Ctx, queue.Filter{User: "discord:" + user, Limit: 1})
	if err != nil || len(jobs) == 0 {
		w.T.Fatalf("no job: %v; the answer was %q", err, m.Content)
	}
	w.server.Wait(patience, func() bool {
		_, err := w.Q.Get(w.Ctx, "bots/msg/"+jobs[0].ID)
		return err == nil
	})
	return jobs[0].ID, *m
}

// outcomes are the new messages that mention the job's end.
func outcomes(list []discordtest.Message, words ...string) []discordtest.Message {
	return slices.DeleteFunc(list, func(m discordtest.Message) bool {
		return m.Deleted || !slices.ContainsFunc(words, func(s string) bool { return strings.Contains(m.Content, s) })
	})
}
