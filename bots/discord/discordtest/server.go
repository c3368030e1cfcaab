// Package discordtest is a test server for Discord bots: the REST API and the
// gateway, as far as a bot with slash commands sees them, with Discord's limits,
// error codes and deadlines, on a clock that the test moves. It records every
// request. What it imitates follows the developer documentation (repository
// discord/discord-api-docs: interactions, messages, gateway, rate limits).
//
// Import it in Go tests ([New]), or run it (package main in cmd/discordtest) for
// bots in other languages; /_test/… then plays the person in front of the client.
package discordtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"dreamcad/bots/chattest/testserver"
)

// Server is one Discord with one application and its bot. Make it with New or
// Listen, end it with Close.
type Server struct {
	testserver.Base

	Token string // of the bot
	AppID string
	BotID string

	mu           sync.Mutex
	private      ed25519.PrivateKey
	nextID       int64
	channels     map[string]*Channel
	interactions map[string]*Interaction // by id
	tokens       map[string]*Interaction
	commands     []json.RawMessage
	created      int // commands created today
	requests     []Request
	revoked      bool
	noDirect     map[string]bool
	directs      map[string]string // user → channel
	faults       []Fault
	buckets      map[string]*bucket
	limits       map[string]Limit
	global       *bucket
	ackWindow    time.Duration
	gw           gateway
	cdn          map[string][]byte
}

// Request is one request as it came.
type Request struct {
	At     time.Time // server's clock
	Method string
	Path   string // without /api/vN
	Query  string
	Header http.Header
	Body   []byte // of multipart requests: payload_json
	Files  int
	Status int
	Answer []byte
}

// Fault answers requests in the server's place.
type Fault struct {
	Method, Path string // Path is a prefix; empty matches all
	Times        int    // how often; 0: for ever
	Status       int
	Code         int // Discord's error code
	Header       http.Header
	Body         string // instead of the JSON error
	// After performs the request first and loses the answer.
	After bool
	// Delay holds the answer back, in real time.
	Delay time.Duration
}

// New starts a server on a free loopback port.
func New() *Server { return Listen(nil) }

// Listen starts a server on the given listener.
func Listen(l net.Listener) *Server {
	s := build()
	s.Start(l)
	return s
}

// Offline makes a server without a network: requests reach it through Transport.
func Offline() *Server {
	s := build()
	s.StayOffline("http://discord.test")
	return s
}

func build() *Server {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // no randomness: nothing can be tested
	}
	s := &Server{
		Token: "MTE.test." + rand.Text(), AppID: "1100000000000000001", BotID: "1100000000000000001",
		private: private, nextID: 1_200_000_000_000_000_000,
		channels: map[string]*Channel{}, interactions: map[string]*Interaction{}, tokens: map[string]*Interaction{},
		noDirect: map[string]bool{}, directs: map[string]string{},
		buckets: map[string]*bucket{}, limits: map[string]Limit{}, cdn: map[string][]byte{},
		ackWindow: AckWindow,
	}
	s.gw.init()
	s.Init(s.serve)
	return s
}

// Close ends the server and its gateway connections.
func (s *Server) Close() {
	s.gw.closeAll()
	s.Shut()
}

// URL is the base address: the API is below /api/v9 and /api/v10.
func (s *Server) URL() string { return s.Address() }

// PublicKey is the application's key for signed HTTP interactions, in hex.
func (s *Server) PublicKey() string {
	return hex.EncodeToString(s.private.Public().(ed25519.PublicKey))
}

// Revoke makes the bot token invalid.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = true
}

// Break adds a fault.
func (s *Server) Break(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Requests returns all requests so far whose path begins with prefix.
func (s *Server) Requests(method, prefix string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Request
	for _, r := range s.requests {
		if (method == "" || r.Method == method) && strings.HasPrefix(r.Path, prefix) {
			out = append(out, r)
		}
	}
	return out
}

// Commands are the registered global commands.
func (s *Server) Commands() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]json.RawMessage(nil), s.commands...)
}

func (s *Server) id() string {
	s.nextID++
	return strconv.FormatInt(s.nextID, 10)
}

// apiError is an error as Discord words it.
type apiError struct {
	status int
	code   int
	text   string
	tree   map[string]any
	header http.Header
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.code, e.text) }

func failure(status, code int, text string) *apiError {
	return &apiError{status: status, code: code, text: text}
}

// call is one request on its way through the server.
type call struct {
	method  string
	path    []string // without /api/vN
	query   map[string][]string
	payload []byte
	files   []part
	bot     bool // carries the bot's token
}

type part struct {
	field, name, mediaType string
	data                   []byte
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/gateway"):
		s.serveGateway(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/_test/"):
		s.control(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/cdn/"):
		s.mu.Lock()
		data, ok := s.cdn[r.URL.Path]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/api")
	for _, v := range []string{"/v9", "/v10"} {
		path = strings.TrimPrefix(path, v)
	}
	c, err := readCall(r, path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	auth := r.Header.Get("Authorization")
	c.bot = auth != ""

	s.mu.Lock()
	f := s.fault(r.Method, path)
	header := http.Header{}
	var status int
	var answer any
	var html string
	if f == nil || f.After {
		status, answer = s.answer(c, auth, header)
	}
	if f != nil {
		status, html = f.Status, f.Body
		answer = map[string]any{"code": f.Code, "message": "fault of the test"}
		for k, v := range f.Header {
			header[k] = v
		}
		if f.Status == http.StatusTooManyRequests && html == "" {
			after, _ := strconv.ParseFloat(header.Get("Retry-After"), 64)
			answer = map[string]any{"message": "You are being rate limited.", "retry_after": after, "global": header.Get("X-RateLimit-Global") != ""}
		}
	}
	var text []byte
	if answer != nil {
		text, _ = json.Marshal(answer)
	}
	if html != "" {
		text = []byte(html)
	}
	s.requests = append(s.requests, Request{
		At: s.Now(), Method: r.Method, Path: path, Query: r.URL.RawQuery, Header: r.Header.Clone(),
		Body: c.payload, Files: len(c.files), Status: status, Answer: text,
	})
	s.Touch()
	s.mu.Unlock()

	if f != nil && f.Delay > 0 {
		time.Sleep(f.Delay)
	}
	if f != nil && f.Status == 0 { // the connection breaks
		panic(http.ErrAbortHandler)
	}
	for k, v := range header {
		w.Header()[k] = v
	}
	if html != "" {
		w.Header().Set("Content-Type", "text/html")
	} else if text != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

func (s *Server) fault(method, path string) *Fault {
	for i := range s.faults {
		f := &s.faults[i]
		if (f.Method == "" || f.Method == method) && strings.HasPrefix(path, f.Path) {
			hit := *f
			if f.Times == 1 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			} else if f.Times > 1 {
				f.Times--
			}
			return &hit
		}
	}
	return nil
}

// maxRequest is Discord's limit for a request, in bytes.
const maxRequest = 25 << 20

func readCall(r *http.Request, path string) (*call, error) {
	c := &call{method: r.Method, path: strings.Split(strings.Trim(path, "/"), "/"), query: r.URL.Query()}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return nil, err
	}
	media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media != "multipart/form-data" {
		c.payload = body
		return c, nil
	}
	in := multipart.NewReader(strings.NewReader(string(body)), params["boundary"])
	for {
		p, err := in.NextPart()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		if p.FormName() == "payload_json" {
			c.payload = data
			continue
		}
		c.files = append(c.files, part{field: p.FormName(), name: p.FileName(), mediaType: p.Header.Get("Content-Type"), data: data})
	}
}

// answer performs a call; the lock is held.
func (s *Server) answer(c *call, auth string, header http.Header) (int, any) {
	if err := s.authorise(c, auth); err != nil {
		return errorAnswer(err)
	}
	if err := s.pace(c, header); err != nil {
		for k, v := range err.header {
			header[k] = v
		}
		after, _ := strconv.ParseFloat(header.Get("Retry-After"), 64)
		return err.status, map[string]any{"message": err.text, "retry_after": after, "global": header.Get("X-RateLimit-Global") != ""}
	}
	status, out, err := s.route(c)
	if err != nil {
		return errorAnswer(err)
	}
	return status, out
}

func errorAnswer(e *apiError) (int, any) {
	out := map[string]any{"code": e.code, "message": e.text}
	if e.tree != nil {
		out["errors"] = e.tree
	}
	return e.status, out
}

func (s *Server) authorise(c *call, auth string) *apiError {
	open := c.path[0] == "interactions" || c.path[0] == "webhooks" || len(c.path) == 1 && c.path[0] == "gateway"
	if open && auth == "" {
		return nil
	}
	if s.revoked || auth != "Bot "+s.Token {
		return failure(http.StatusUnauthorized, 0, "401: Unauthorized")
	}
	return nil
}

func (s *Server) route(c *call) (int, any, *apiError) {
	p := c.path
	is := func(method string, parts ...string) bool {
		if c.method != method || len(parts) != len(p) {
			return false
		}
		for i, want := range parts {
			if want != "*" && want != p[i] {
				return false
			}
		}
		return true
	}
	switch {
	case is("GET", "gateway"):
		return 200, map[string]any{"url": s.gatewayURL()}, nil
	case is("GET", "gateway", "bot"):
		return 200, map[string]any{"url": s.gatewayURL(), "shards": 1, "session_start_limit": s.gw.startLimit()}, nil
	case is("GET", "users", "@me"):
		return 200, s.botUser(), nil
	case is("GET", "oauth2", "applications", "@me"), is("GET", "applications", "@me"):
		return 200, map[string]any{"id": s.AppID, "name": "dream", "verify_key": s.PublicKey(), "flags": 0}, nil
	case is("POST", "users", "@me", "channels"):
		return s.openDirect(c)
	case is("POST", "interactions", "*", "*", "callback"):
		return s.callback(c, p[1], p[2])
	case len(p) >= 3 && p[0] == "webhooks":
		return s.webhook(c)
	case is("GET", "applications", "*", "commands"):
		return 200, s.commandList(), nil
	case is("PUT", "applications", "*", "commands"):
		return s.overwriteCommands(c)
	case is("GET", "guilds", "*", "roles"):
		return 200, []any{map[string]any{"id": p[1], "name": "@everyone", "permissions": enough}}, nil
	case is("GET", "guilds", "*", "members", "*"):
		return 200, map[string]any{"user": s.botUser(), "roles": []string{}}, nil
	case len(p) >= 2 && p[0] == "channels":
		return s.channelCall(c)
	}
	return 0, nil, failure(http.StatusNotFound, 0, "404: Not Found")
}

func (s *Server) botUser() map[string]any {
	return map[string]any{"id": s.BotID, "username": "dream", "discriminator": "0", "global_name": nil, "avatar": nil, "bot": true}
}

func decode(c *call, into any) *apiError {
	if err := json.Unmarshal(c.payload, into); err != nil {
		return failure(http.StatusBadRequest, 50109, "The request body contains invalid JSON.")
	}
	return nil
}
