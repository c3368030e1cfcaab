package discord

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"
	"github.com/gorilla/websocket"

	"dreamcad/bots"
)

// errRevoked ends the supervision: only a person can help.
var errRevoked = errors.New("discord refuses the bot token")

// fatalClose are the close codes after which trying again cannot help.
var fatalClose = map[int]string{
	4004: "Discord refuses the bot token", 4010: "invalid shard", 4011: "sharding is required",
	4012: "invalid gateway version", 4013: "invalid intents", 4014: "the application lacks an intent that was asked for",
}

// supervise keeps a gateway session. discordgo's own reconnecting is off: it
// ignores close codes and can hang in Open without a deadline. A session that
// does not become ready in time, or whose heartbeats are not acknowledged, is
// cut at the socket, which ends every read, and opened again; it resumes when
// Discord allows.
func (b *Bot) supervise(ctx context.Context) error {
	var s *gatewaySession
	failures := 0
	for ctx.Err() == nil {
		if err := b.checkToken(ctx); err != nil {
			if errors.Is(err, errRevoked) {
				return err
			}
			b.log.Warn("Discord cannot be reached", "err", err)
			b.setConnected(false, err)
			failures++
			wait(ctx, failures)
			continue
		}
		if s == nil {
			s = b.newSession(ctx)
		}
		began := time.Now()
		err := s.runOnce(ctx)
		b.setConnected(false, err)
		if ctx.Err() != nil {
			break
		}
		if text := fatalClose[s.closeCode()]; text != "" {
			return errors.New(text)
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		failures++
		b.log.Warn("the gateway session ended; opening it again", "err", err, "code", s.closeCode(), "failures", failures)
		// A code that ends the session, a hanging Open or repeated failures
		// need a new object: the old one may hold its lock for ever.
		if c := s.closeCode(); err != nil && errors.Is(err, errHung) || c == 4007 || c == 4009 || failures > 2 {
			s = nil
		}
		wait(ctx, failures)
	}
	return nil
}

// wait backs off: 0.5 s, 1 s, 2 s … 2 min.
func wait(ctx context.Context, failures int) {
	d := min(250*time.Millisecond<<min(failures, 16), 2*time.Minute)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (b *Bot) checkToken(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := b.identity(ctx)
	if e, ok := errors.AsType[*bots.ChatError](err); ok && e.Trouble == bots.TroubleRevoked {
		return errRevoked
	}
	if err != nil {
		return err
	}
	return b.register(ctx)
}

func (b *Bot) setConnected(up bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.health.Connected = up
	b.health.Problem = ""
	if err != nil {
		b.health.Problem = err.Error()
	}
	if up {
		b.health.LastEvent = time.Now()
	}
}

// gatewaySession is a discordgo session with a hand on its socket.
type gatewaySession struct {
	b    *Bot
	s    *discordgo.Session
	lost chan struct{}

	mu   sync.Mutex
	conn net.Conn
	code int
}

var errHung = errors.New("the session did not become ready in time")

func (b *Bot) newSession(ctx context.Context) *gatewaySession {
	hearCloseCodes.Do(func() { discordgo.Logger = closeCodes })
	s, _ := discordgo.New("Bot " + b.config.Token) // its error is always nil
	g := &gatewaySession{b: b, s: s, lost: make(chan struct{}, 1)}
	s.Identify.Intents = 0 // interactions belong to no intent
	s.StateEnabled = false
	s.ShouldReconnectOnError = false
	s.ShouldRetryOnRateLimit = false
	s.LogLevel = discordgo.LogWarning
	s.Client = &http.Client{Timeout: 20 * time.Second, Transport: &redirect{to: b.config.APIURL, gateway: b.config.GatewayURL, next: b.rest.client.Transport}}
	s.Dialer = &websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 20 * time.Second,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				g.mu.Lock()
				g.conn, g.code = conn, 0
				g.mu.Unlock()
				gatewaySessions.Store(addr, g)
			}
			return conn, err
		},
	}
	s.AddHandler(func(*discordgo.Session, *discordgo.Disconnect) {
		select {
		case g.lost <- struct{}{}:
		default:
		}
	})
	s.AddHandler(func(_ *discordgo.Session, e *discordgo.Event) {
		b.mu.Lock()
		b.health.LastEvent = time.Now()
		b.mu.Unlock()
		if e.Type == "INTERACTION_CREATE" {
			b.handle(ctx, append(json.RawMessage(nil), e.RawData...))
		}
	})
	return g
}

// runOnce opens the session and returns when it is lost.
func (g *gatewaySession) runOnce(ctx context.Context) error {
	select {
	case <-g.lost: // of an earlier run
	default:
	}
	opened := make(chan error, 1)
	go func() { opened <- g.s.Open() }()
	timer := time.NewTimer(g.b.config.ReadyIn)
	defer timer.Stop()
	select {
	case err := <-opened:
		if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
			g.noteCode(closed.Code)
		}
		if err != nil {
			return err
		}
	case <-timer.C:
		g.cut()
		return errHung
	case <-ctx.Done():
		g.cut()
		return ctx.Err()
	}
	g.b.setConnected(true, nil)
	g.b.log.Info("connected to the gateway")
	look := time.NewTicker(max(g.b.config.Silent/20, 10*time.Millisecond))
	defer look.Stop()
	last := time.Now()
	for {
		select {
		case <-g.lost:
			return nil
		case <-ctx.Done():
			g.end()
			return ctx.Err()
		case <-look.C:
		}
		if g.s.TryRLock() { // held for long means that discordgo hangs
			if g.s.LastHeartbeatAck.After(last) {
				last = g.s.LastHeartbeatAck
			}
			g.s.RUnlock()
		}
		if time.Since(last) > g.b.config.Silent {
			g.cut()
			select {
			case <-g.lost:
			case <-time.After(5 * time.Second):
				return errHung
			}
			return errors.New("heartbeats were not acknowledged")
		}
	}
}

// cut breaks the connection without a close frame, so that the session can be resumed.
func (g *gatewaySession) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn != nil {
		g.conn.Close()
	}
}

// end closes the session properly, but does not wait for it for ever.
func (g *gatewaySession) end() {
	done := make(chan struct{})
	go func() { _ = g.s.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		g.cut()
	}
}

func (g *gatewaySession) closeCode() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.code
}

// redirect sends discordgo's requests to the configured server, and answers the
// question for the gateway when its address is configured.
type redirect struct {
	to, gateway string
	next        http.RoundTripper
}

func (r *redirect) RoundTrip(req *http.Request) (*http.Response, error) {
	to, err := url.Parse(r.to)
	if err != nil {
		return nil, err
	}
	if r.gateway != "" && strings.HasSuffix(req.URL.Path, "/gateway") {
		body, err := json.Marshal(map[string]string{"url": r.gateway})
		return &http.Response{
			StatusCode: http.StatusOK, Status: "200 OK", Request: req, ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
		}, err
	}
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = to.Scheme, to.Host, ""
	return r.next.RoundTrip(out)
}

func (g *gatewaySession) noteCode(code int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.code = code
}

// discordgo tells close codes only to its logger, which all sessions share: a
// line holds the gateway's address, by which the session is found.
var (
	hearCloseCodes  sync.Once
	gatewaySessions sync.Map // host:port → *gatewaySession
)

func closeCodes(_, _ int, _ string, args ...any) {
	for i := 1; i < len(args); i++ {
		closed, ok := args[i].(*websocket.CloseError)
		address, isText := args[i-1].(string)
		if !ok || !isText {
			continue
		}
		u, err := url.Parse(address)
		if err != nil {
			continue
		}
		host := u.Host
		if u.Port() == "" {
			host += map[string]string{"ws": ":80"}[u.Scheme]
			if u.Scheme != "ws" {
				host += ":443"
			}
		}
		if g, ok := gatewaySessions.Load(host); ok {
			g.(*gatewaySession).noteCode(closed.Code)
		}
	}
}
