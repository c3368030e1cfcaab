// Package slack is the adapter for Slack: the slash command with subwords,
// buttons and forms over Socket Mode or signed HTTP, and messages by the bot
// token in the thread of each job.
//
// Texts are sent as rich_text blocks, whose elements are literal: what people
// typed can neither format nor mention, which Slack's mark-up, without a
// backslash escape, cannot promise.
//
// Sources: docs.slack.dev (slash commands, Socket Mode, Web API, Block Kit, rate
// limits).
package slack

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	api "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"
	"golang.org/x/time/rate"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/queue"
)

// DefaultAPI is Slack's own address.
const DefaultAPI = "https://slack.com/api/"

// Config is what the adapter needs to know.
type Config struct {
	BotToken      string
	AppToken      string // for Socket Mode
	SigningSecret string // for HTTP
	APIURL        string // empty: DefaultAPI
	Command       string // the slash command; empty: /dream
	// Sockets is how many connections are kept, so that one is there while
	// another is refreshed; 0 is 2.
	Sockets int
	// AckBudget is the time for the acknowledgement; 0 is 2.8 s, below Slack's 3 s.
	AckBudget time.Duration
	// Silent is how long a socket may be without a PING; 0 is 30 s.
	Silent time.Duration
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
	state   queue.State
	log     *slog.Logger
	client  *http.Client
	api     *api.Client
	out     *delivery.Outbound
	meter   Meter
	uploads *rate.Limiter // see uploadRate
	looks   *rate.Limiter // at files
	people  *rate.Limiter // whose language is asked for

	mu     sync.Mutex
	seen   bots.Recent
	health Health
	langs  map[string]string // user → locale
	asked  map[string]bool
	work   sync.WaitGroup
}

// Health is how the sockets are.
type Health struct {
	Connected int
	LastEvent time.Time
	Revoked   bool
	Problem   string
}

// New makes the adapter.
func New(c Config, service Service, state queue.State, log *slog.Logger) *Bot {
	if c.APIURL == "" {
		c.APIURL = DefaultAPI
	}
	if c.APIURL[len(c.APIURL)-1] != '/' {
		c.APIURL += "/"
	}
	if c.Command == "" {
		c.Command = "/dream"
	}
	if c.Sockets == 0 {
		c.Sockets = 2
	}
	if c.AckBudget == 0 {
		c.AckBudget = 2800 * time.Millisecond
	}
	if c.Silent == 0 {
		c.Silent = 30 * time.Second
	}
	b := &Bot{config: c, service: service, state: state, log: log.With("platform", "slack"), langs: map[string]string{}, asked: map[string]bool{},
		uploads: rate.NewLimiter(uploadRate, uploadBurst), looks: rate.NewLimiter(1.4, 12), people: rate.NewLimiter(1.4, 12)}
	// slack-go's default client has no timeout.
	b.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
	}}
	b.api = api.New(c.BotToken, api.OptionAPIURL(c.APIURL), api.OptionHTTPClient(b.client), api.OptionAppLevelToken(c.AppToken))
	return b
}

// Measure lets the adapter count its acknowledgements.
func (b *Bot) Measure(m Meter) { b.meter = m }

// Through sets the queue by which the adapter posts.
func (b *Bot) Through(o *delivery.Outbound) { b.out = o }

// Platform is the word in queue.Origin.
func (b *Bot) Platform() string { return "slack" }

// Health returns the state of the sockets.
func (b *Bot) Health() Health { b.mu.Lock(); defer b.mu.Unlock(); return b.health }

// Run serves Socket Mode until ctx ends. It returns an error when Slack refuses
// the tokens for good.
func (b *Bot) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, b.config.Sockets)
	for i := range b.config.Sockets {
		go func() {
			// Sockets are opened one after the other: Slack limits how often.
			wait(ctx, i)
			errs <- b.supervise(ctx)
		}()
	}
	var first error
	for range b.config.Sockets {
		if err := <-errs; err != nil && first == nil {
			first = err
			b.log.Error("Slack ended the connection for good; set valid tokens and restart", "err", err)
		}
	}
	b.work.Wait()
	return first
}

// wait backs off: nothing, 1 s, 2 s, 4 s … 2 min.
func wait(ctx context.Context, failures int) {
	if failures == 0 {
		return
	}
	t := time.NewTimer(min(500*time.Millisecond<<min(failures, 16), 2*time.Minute))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// supervise keeps one socket. slack-go reconnects by itself when Slack asks for
// it or PINGs stay away; it returns when it gives up.
func (b *Bot) supervise(ctx context.Context) error {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := b.runSocket(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if code := errorCode(err); fatal[code] {
			b.note(func(h *Health) { h.Revoked, h.Problem = true, "Slack refuses the tokens ("+code+")" })
			return err
		}
		b.note(func(h *Health) { h.Problem = errText(err) })
		if time.Since(began) > time.Minute {
			failures = 0
		}
		b.log.Warn("the Slack connection ended; opening it again", "err", err, "failures", failures)
		wait(ctx, failures+1)
	}
	return nil
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (b *Bot) note(f func(*Health)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.health)
}

func (b *Bot) runSocket(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := socketmode.New(b.api, socketmode.OptionPingInterval(b.config.Silent))
	var parts sync.WaitGroup
	parts.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-client.Events: // must be drained, or acks stall
				b.event(ctx, client, e)
			}
		}
	})
	err := client.RunContext(ctx)
	cancel()
	parts.Wait()
	b.note(func(h *Health) { h.Connected = max(0, h.Connected-1) })
	return err
}

func (b *Bot) event(ctx context.Context, client *socketmode.Client, e socketmode.Event) {
	b.note(func(h *Health) { h.LastEvent = time.Now() })
	switch e.Type {
	case socketmode.EventTypeConnected:
		b.note(func(h *Health) { h.Connected, h.Problem = min(h.Connected+1, b.config.Sockets), "" })
		b.log.Info("connected to Slack")
	case socketmode.EventTypeInvalidAuth:
		b.note(func(h *Health) { h.Revoked = true })
	case socketmode.EventTypeSlashCommand, socketmode.EventTypeInteractive:
		if e.Request == nil {
			return
		}
		request := *e.Request
		b.handle(ctx, string(e.Type), request.EnvelopeID, request.Payload, func(payload any) error {
			if payload == nil {
				return client.AckCtx(ctx, request.EnvelopeID, nil)
			}
			return client.AckCtx(ctx, request.EnvelopeID, payload)
		})
	}
}

// handle takes one payload, once, in a goroutine that cannot take the process
// with it. ack may be called once.
func (b *Bot) handle(ctx context.Context, kind, id string, payload json.RawMessage, ack func(any) error) {
	b.mu.Lock()
	fresh := b.seen.Add(id)
	b.mu.Unlock()
	if !fresh {
		_ = ack(nil) // redelivered: the first one is being answered
		return
	}
	received := time.Now()
	b.work.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				b.log.Error("handling an interaction panicked", "panic", r)
			}
		}()
		b.serve(ctx, kind, payload, func(v any) error {
			err := ack(v)
			if err == nil && b.meter != nil {
				b.meter.Acked("slack", time.Since(received))
			}
			return err
		})
	})
}

// fatal are errors that only a person can cure.
var fatal = map[string]bool{"invalid_auth": true, "token_revoked": true, "token_expired": true, "account_inactive": true, "not_authed": true, "org_login_required": true}

// errorCode is Slack's word for an error, or "".
func errorCode(err error) string {
	if e, ok := errors.AsType[api.SlackErrorResponse](err); ok {
		return e.Err
	}
	return ""
}

// knownPeople is how many people's languages are remembered.
const knownPeople = 20_000

// locale is the language of a person's client. It is asked for in the
// background the first time, so that no command waits for it.
func (b *Bot) locale(ctx context.Context, user string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l, ok := b.langs[user]; ok || b.asked[user] || !b.people.Allow() {
		return l
	}
	if len(b.asked) >= knownPeople { // they are asked for again
		clear(b.asked)
		clear(b.langs)
	}
	b.asked[user] = true
	b.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		info, err := b.api.GetUserInfoContext(ctx, user)
		if err != nil {
			b.log.Debug("a person's language is not known", "err", err)
			if _, limited := errors.AsType[*api.RateLimitedError](err); limited {
				b.mu.Lock()
				delete(b.asked, user)
				b.mu.Unlock()
			}
			return
		}
		b.mu.Lock()
		b.langs[user] = info.Locale
		b.mu.Unlock()
	})
	return ""
}
