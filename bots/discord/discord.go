// Package discord is the adapter for Discord: slash commands, buttons, modals
// and autocompletion by gateway or signed HTTP, and messages by the bot token.
//
// discordgo keeps the gateway session, under a supervisor that knows where it
// hangs. REST calls go through a small client of our own: discordgo's has no
// nonce, ignores contexts while it waits for a rate limit, takes a ban page for
// broken JSON and keeps a bucket for each interaction for ever.
//
// Sources: repository discord/discord-api-docs (interactions, messages, gateway,
// rate limits, error codes).
package discord

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/queue"
)

// DefaultAPI is Discord's own address.
const DefaultAPI = "https://discord.com"

// Config is what the adapter needs to know.
type Config struct {
	Token      string
	APIURL     string // base, without /api; empty: DefaultAPI
	GatewayURL string // empty: what the API names
	PublicKey  string // hex; for HTTP interactions only
	// Models and Qualities to offer as choices; no models: any name may be
	// typed, no qualities: all.
	Models    []string
	Qualities []queue.Quality
	// ReadyIn is how long opening a session may take; 0 is 30 s.
	ReadyIn time.Duration
	// Silent is the age of the last heartbeat's acknowledgement at which a
	// session counts as dead; 0 is 110 s.
	Silent time.Duration
	// AckBudget is the time for the first answer; 0 is 2.9 s, below Discord's 3 s.
	AckBudget time.Duration
	// LockLife of the lock that makes one process serve the token; 0 is 15 s.
	LockLife time.Duration
}

// Store is what the adapter keeps in the queue's store.
type Store interface {
	queue.State
	queue.Locks
	queue.Reader
}

// Meter counts first answers (delivery.Metrics).
type Meter interface {
	Acked(platform string, took time.Duration)
}

// Service executes commands (bots.Service).
type Service interface {
	Execute(ctx context.Context, c bots.Command) bots.Reply
}

// Bot is the adapter. It fulfils bots.Chat and delivery.Pacer.
type Bot struct {
	config  Config
	service Service
	store   Store
	log     *slog.Logger
	rest    *rest
	out     *delivery.Outbound
	meter   Meter

	mu     sync.Mutex
	appID  string
	selfID string
	seen   bots.Recent
	health Health
	work   sync.WaitGroup
}

// Health is how the session is.
type Health struct {
	Connected bool
	Standby   bool // another process serves the token
	LastEvent time.Time
	Revoked   bool
	Problem   string
}

// turn is the lock that makes one process serve a token, with an eye on
// whether another has it.
type turn struct {
	queue.Locks
	b *Bot
}

// Lock implements queue.Locks.
func (t turn) Lock(ctx context.Context, name string, life time.Duration) (queue.Lock, error) {
	l, err := t.Locks.Lock(ctx, name, life)
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	if t.b.health.Standby = queue.CodeOf(err) == queue.CodeConflict; t.b.health.Standby {
		t.b.health.Problem = ""
	}
	return l, err
}

// New makes the adapter.
func New(c Config, service Service, store Store, log *slog.Logger) *Bot {
	if c.APIURL == "" {
		c.APIURL = DefaultAPI
	}
	if c.ReadyIn == 0 {
		c.ReadyIn = 30 * time.Second
	}
	if c.Silent == 0 {
		c.Silent = 110 * time.Second
	}
	if c.AckBudget == 0 {
		c.AckBudget = 2900 * time.Millisecond
	}
	if c.LockLife == 0 {
		c.LockLife = 15 * time.Second
	}
	b := &Bot{config: c, service: service, store: store, log: log.With("platform", "discord")}
	b.rest = newRest(c.APIURL, c.Token)
	b.rest.learn = func(bucket string, until time.Time) {
		if b.out != nil {
			b.out.Block(bucket, until)
		}
	}
	return b
}

// Measure lets the adapter count its first answers.
func (b *Bot) Measure(m Meter) { b.meter = m }

// Learn lets the adapter announce rate limits that answers carry.
func (b *Bot) Learn(o *delivery.Outbound) { b.out = o }

// Health returns the state of the session.
func (b *Bot) Health() Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.health
	h.Revoked = h.Revoked || b.rest.revoked.Load()
	return h
}

// Platform is the word in queue.Origin.
func (b *Bot) Platform() string { return "discord" }

// Run serves the gateway until ctx ends. One process at a time does for a token;
// it returns an error when Discord refuses the token or the intents for good.
func (b *Bot) Run(ctx context.Context) error {
	var fatal error
	err := delivery.Exclusive(ctx, turn{b.store, b}, "discord/"+tokenName(b.config.Token), b.config.LockLife, b.log, func(ctx context.Context) {
		if err := b.supervise(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("the Discord session ended; set a valid token and restart", "err", err)
			b.mu.Lock()
			b.health.Problem = err.Error()
			b.mu.Unlock()
			<-ctx.Done() // hold the lock: another process would fail in the same way
			fatal = err
		}
	})
	b.work.Wait()
	if fatal != nil {
		return fatal
	}
	return err
}

// identity learns the ids of the application and the bot.
func (b *Bot) identity(ctx context.Context) error {
	var me struct {
		ID string `json:"id"`
	}
	if err := b.rest.do(ctx, call{method: http.MethodGet, path: "/users/@me", into: &me}); err != nil {
		return err
	}
	var app struct {
		ID string `json:"id"`
	}
	if err := b.rest.do(ctx, call{method: http.MethodGet, path: "/oauth2/applications/@me", into: &app}); err != nil {
		return err
	}
	b.mu.Lock()
	b.selfID, b.appID = me.ID, app.ID
	b.mu.Unlock()
	return nil
}

// handle takes one interaction, once, in a goroutine that cannot take the
// process with it.
func (b *Bot) handle(ctx context.Context, raw json.RawMessage) {
	received := time.Now()
	b.work.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				b.log.Error("handling an interaction panicked", "panic", r)
			}
		}()
		var in interaction
		if err := json.Unmarshal(raw, &in); err != nil {
			b.log.Error("an interaction could not be read", "err", err)
			return
		}
		b.mu.Lock()
		fresh := b.seen.Add(in.ID)
		b.mu.Unlock()
		if !fresh {
			return
		}
		b.serve(ctx, &in, received, &callbackAnswer{b: b, in: &in, received: received})
	})
}
