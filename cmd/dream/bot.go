package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/bots/discord"
	"dreamcad/bots/limits"
	"dreamcad/bots/slack"
	"dreamcad/ops/metrics"
	"dreamcad/ops/rules"
	"dreamcad/queue"
	"dreamcad/queue/ingest"
	"dreamcad/storage"
	"dreamcad/storage/links"
	"dreamcad/storage/s3"
)

type botCmd struct {
	Run      botRunCmd      `cmd:"" default:"1" help:"Serve Discord, Slack and the web console until an interrupt (the default)."`
	Check    botCheckCmd    `cmd:"" help:"Check tokens, scopes, permissions and channels."`
	Manifest botManifestCmd `cmd:"" help:"Print the Slack app manifest."`
}

// Help is the long help.
func (*botCmd) Help() string {
	return `Takes commands from the platforms whose tokens are set (discord.token, slack.bot_token) and from the
web console, puts them on queue.url and posts what workers make of them. docs/chat.md says how to set up a platform.`
}

type botRunCmd struct{}

// Run serves until the first interrupt.
func (*botRunCmd) Run(a *app) error {
	g, err := openGround(a)
	if err != nil {
		return err
	}
	defer g.queue.Close()
	front, err := newFront(a, g)
	if err != nil {
		return err
	}
	watch, err := newWatch(a, g, watched{role: "bot", name: "bot of " + hostName(), own: rules.NoCard})
	if err != nil {
		return err
	}
	registry := metrics.NewRegistry(version(), watch.view)
	chats := front.chats(a, g, registry)
	watch.part.chats, watch.part.serves = chats.sessions, chats.consumers()
	group, ctx := errgroup.WithContext(a.ctx)
	group.Go(func() error { return front.console.Run(ctx) })
	group.Go(func() error { return queue.RunMaintenance(ctx, g.queue, queue.DefaultConfig().TickEvery, a.log) })
	group.Go(func() error { return chats.run(ctx, a.config.Chat.Listen) })
	group.Go(func() error { return watch.run(ctx) })
	group.Go(func() error { return serveMetrics(ctx, a, metrics.Handler(registry, watch.ready)) })
	group.Go(func() error { return notifySystemd(ctx) })
	fmt.Fprintf(a.stdout, "the bot serves %s and the console at %s\nStop it with Ctrl-C.\n", chats.names(), front.console.URL())
	return group.Wait()
}

// newService is the commands' service as the settings have it.
func newService(a *app, q queue.Queue, store storage.Store) (*bots.Service, error) {
	l := a.config.Chat
	return bots.New(bots.Config{
		Keep: a.config.Storage.Keep, Qualities: l.Qualities, Models: l.Models, AdultPlaces: l.AdultChannels,
		Limits: limits.Config{
			UserDay: l.UserDay, SpaceDay: l.SpaceDay, TotalDay: l.TotalDay, Cooldown: l.Cooldown,
			UserLive: l.UserLive, SpaceLive: l.SpaceLive, TotalLive: l.TotalLive,
			Admins: l.Admins, Ingest: l.Ingest, BlockFile: l.BlockFile,
		},
	}, q, store, chatIngester{&ingest.Ingester{Queue: q, Blobs: store}}, a.log)
}

// chats are the platforms whose tokens are set.
type chats struct {
	app     *app
	discord *discord.Bot
	slack   *slack.Bot
	parts   []func(context.Context) error
}

func newChats(a *app, q queue.Queue, store storage.Store, service *bots.Service, signer links.Signer, r prometheus.Registerer) *chats {
	c := &chats{app: a}
	renderer := &bots.Renderer{Results: results(a, store, signer), Next: service.Next}
	service.Present(renderer)
	metrics := delivery.NewMetrics(r)
	cfg := delivery.Defaults()
	if a.config.Chat.EditEvery > 0 {
		cfg.EditEvery = a.config.Chat.EditEvery
	}
	if d := a.config.Discord; d.Token != "" {
		own := discordConfig(a)
		own.Qualities = service.Qualities()
		c.discord = discord.New(own, service, q, a.log)
		cfg.OpsChannel = d.OpsChannel
		out := delivery.New(cfg, q, c.discord, c.discord, renderer, metrics, a.log)
		c.discord.Learn(out.Outbound())
		c.discord.Measure(metrics)
		c.parts = append(c.parts, out.Run)
		if d.PublicKey == "" { // interactions come either by gateway or by HTTP
			c.parts = append(c.parts, c.discord.Run)
		} else {
			c.parts = append(c.parts, c.discord.Register)
		}
	}
	if s := a.config.Slack; s.BotToken != "" {
		c.slack = slack.New(slackConfig(a), service, q, a.log)
		cfg.OpsChannel = s.OpsChannel
		out := delivery.New(cfg, q, c.slack, c.slack, renderer, metrics, a.log)
		c.slack.Through(out.Outbound())
		c.slack.Measure(metrics)
		c.parts = append(c.parts, out.Run)
		if s.AppToken != "" {
			c.parts = append(c.parts, c.slack.Run)
		}
	}
	return c
}

func discordConfig(a *app) discord.Config {
	d := a.config.Discord
	return discord.Config{Token: string(d.Token), APIURL: d.APIURL, GatewayURL: d.GatewayURL, PublicKey: d.PublicKey, Models: a.config.Chat.Models}
}

func slackConfig(a *app) slack.Config {
	s := a.config.Slack
	return slack.Config{BotToken: string(s.BotToken), AppToken: string(s.AppToken), SigningSecret: string(s.SigningSecret), APIURL: s.APIURL}
}

// consumers are the readers of the outbox that this process runs.
func (c *chats) consumers() []string {
	var out []string
	if c.discord != nil {
		out = append(out, "bots/"+c.discord.Platform())
	}
	if c.slack != nil {
		out = append(out, "bots/"+c.slack.Platform())
	}
	return out
}

func (c *chats) names() string {
	var names []string
	if c.discord != nil {
		names = append(names, "Discord")
	}
	if c.slack != nil {
		names = append(names, "Slack")
	}
	if names == nil {
		return "no chat platform (no token is set)"
	}
	return strings.Join(names, " and ")
}

// run serves the platforms. One that is refused for good does not take the
// others with it: the log and `dream bot check` say what is wrong.
func (c *chats) run(ctx context.Context, listen string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range c.parts {
		group.Go(func() error {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				c.app.log.Error("a chat platform is out of service; run dream bot check", "err", err)
			}
			return nil
		})
	}
	if listen != "" {
		group.Go(func() error { return c.serveHTTP(ctx, listen) })
	}
	return group.Wait()
}

// serveHTTP answers signed requests of the platforms, for set-ups without
// gateway or Socket Mode.
func (c *chats) serveHTTP(ctx context.Context, listen string) error {
	mux := http.NewServeMux()
	if c.discord != nil && c.app.config.Discord.PublicKey != "" {
		h, err := c.discord.Endpoint(ctx)
		if err != nil {
			return usageError{err}
		}
		mux.Handle("POST /discord", h)
	}
	if c.slack != nil && c.app.config.Slack.SigningSecret != "" {
		h, err := c.slack.Endpoint(ctx)
		if err != nil {
			return usageError{err}
		}
		mux.Handle("POST /slack", h)
	}
	return serveUntil(ctx, listen, mux)
}

// sessions are the standing connections: those by gateway and Socket Mode,
// without one that another process keeps.
func (c *chats) sessions() []rules.Session {
	var out []rules.Session
	if c.discord != nil && c.app.config.Discord.PublicKey == "" {
		if h := c.discord.Health(); !h.Standby {
			out = append(out, rules.Session{Platform: "Discord", Up: h.Connected, Problem: h.Problem})
		}
	}
	if c.slack != nil && c.app.config.Slack.AppToken != "" {
		h := c.slack.Health()
		out = append(out, rules.Session{Platform: "Slack", Up: h.Connected > 0, Problem: h.Problem})
	}
	return out
}

// serveUntil serves h until ctx ends; listening is called with the address.
func serveUntil(ctx context.Context, listen string, h http.Handler, listening ...func(net.Addr)) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", listen, err)
	}
	for _, f := range listening {
		f(l.Addr())
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %q: %w", listen, err)
	}
	return nil
}

// results gives chat access to files: links through the console when it has a
// public address, else presigned ones. Where the storage makes none there is no
// address that works elsewhere, and messages carry the files themselves.
func results(a *app, store storage.Store, signer links.Signer) bots.Results {
	public := a.config.Web.PublicURL != ""
	return bots.Results{
		Link: func(ctx context.Context, job string, f queue.File) (string, time.Time) {
			if public {
				until := time.Now().Add(a.config.Storage.Keep)
				return signer.URL(job, f.Name, until), until
			}
			m, err := storage.ReadManifest(ctx, store, job)
			if err != nil {
				return "", time.Time{}
			}
			until := time.Now().Add(storage.MaxLinkLife)
			url, err := store.Link(ctx, m.FileKey(f.Name), storage.MaxLinkLife)
			if err != nil {
				return "", time.Time{}
			}
			return url, until
		},
		Page: func(job string) string {
			if !public {
				return ""
			}
			return strings.TrimSuffix(signer.Base, "/") + "/jobs/" + job
		},
		Read: func(ctx context.Context, job, lease, name string, limit int64) ([]byte, error) {
			return storage.ReadAll(ctx, store, storage.FileKey(job, lease, name), limit)
		},
	}
}

type botCheckCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run looks at every platform whose token is set; exit code 1 if something is wrong.
func (c *botCheckCmd) Run(a *app) error {
	ctx, cancel := context.WithTimeout(a.ctx, time.Minute)
	defer cancel()
	found := checkChats(ctx, a)
	if len(found) == 0 {
		return usagef("no chat token is set: set discord.token or slack.bot_token (docs/chat.md says how)")
	}
	bad := 0
	for _, platform := range []string{"discord", "slack", "links"} {
		for _, f := range found[platform] {
			mark := "ok  "
			switch {
			case !f.OK:
				mark, bad = "FAIL", bad+1
			case f.Note:
				mark = "note"
			}
			if !c.JSON {
				fmt.Fprintf(a.stdout, "%s %-8s %s\n", mark, platform, f.Text)
			}
		}
	}
	if c.JSON {
		if err := printJSON(a.stdout, found); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of the checks failed", bad)
	}
	return nil
}

// checkChats asks each platform whose token is set, and looks where the links
// of messages lead.
func checkChats(ctx context.Context, a *app) map[string][]bots.Finding {
	found := map[string][]bots.Finding{}
	if a.config.Discord.Token != "" {
		found["discord"] = discord.New(discordConfig(a), nil, nil, a.log).Check(ctx, a.config.Discord.OpsChannel)
	}
	if a.config.Slack.BotToken != "" {
		found["slack"] = slack.New(slackConfig(a), nil, nil, a.log).Check(ctx, a.config.Slack.OpsChannel)
	}
	if len(found) > 0 {
		found["links"] = []bots.Finding{checkLinks(a)}
	}
	return found
}

// checkLinks tells where the links of messages lead, and whether people
// elsewhere can follow them.
func checkLinks(a *app) bots.Finding {
	to, whose := a.config.Web.PublicURL, "web.public_url"
	if to == "" {
		c, err := s3.ParseURL(a.config.Storage.URL)
		if err != nil { // a folder
			return bots.Finding{OK: true, Note: true, Text: "Without web.public_url messages carry their files, up to 8 MB each, and no links."}
		}
		to, whose = cmp.Or(c.PublicEndpoint, c.Endpoint, "https://s3.amazonaws.com"), "the storage; they end after seven days"
	}
	if !bots.Reachable(to) {
		return bots.Finding{OK: true, Note: true, Text: fmt.Sprintf("Links lead to %s (%s), which people elsewhere cannot open; "+
			"in Discord, which refuses such buttons, they stand in the text. Set web.public_url to an address that everybody can reach.", to, whose)}
	}
	return bots.Finding{OK: true, Text: fmt.Sprintf("Links lead to %s (%s).", to, whose)}
}

type botManifestCmd struct {
	Command string `help:"Name of the slash command; one of a name per workspace." default:"/dream"`
	URL     string `help:"Public address of chat.listen with /slack at its end; without it the app uses Socket Mode." placeholder:"URL"`
}

// Run prints the manifest as YAML.
func (c *botManifestCmd) Run(a *app) error {
	text, err := yaml.Marshal(slack.Manifest(c.Command, c.URL))
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}
