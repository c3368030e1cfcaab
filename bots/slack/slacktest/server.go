// Package slacktest is a test server for Slack apps: the Web API, Socket Mode,
// signed HTTP requests, response URLs and uploads, as far as an app with a slash
// command sees them, with Slack's limits and deadlines, on a clock that the test
// moves. It records every request. What it imitates follows docs.slack.dev.
//
// Import it in Go tests ([New]), or run it (package main in cmd/slacktest) for
// apps in other languages; /_test/… then plays the person in front of the client.
package slacktest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dreamcad/bots/chattest/testserver"
)

// Server is one Slack workspace with one app. End it with Close.
type Server struct {
	testserver.Base

	BotToken, AppToken, Secret string
	AppID, TeamID, BotUser     string

	mu        sync.Mutex
	next      int64
	lastTS    int64
	channels  map[string]*Channel
	directs   map[string]string
	files     map[string]*File
	uploads   map[string]string // upload path → file id
	commands  map[string]*Interaction
	views     []json.RawMessage
	requests  []Request
	faults    []Fault
	limits    map[string]Limit
	used      map[string][]time.Time
	revoked   bool
	scopes    map[string]bool
	locales   map[string]string
	sock      sockets
	unlimited bool
}

// Request is one request as it came.
type Request struct {
	At     time.Time
	Method string // Web API method, or the path for others
	Form   url.Values
	JSON   json.RawMessage
	Status int
	Answer json.RawMessage
}

// Fault answers a Web API method in the server's place.
type Fault struct {
	Method     string
	Times      int // 0: for ever
	Status     int // 0: breaks the connection, 200: ok:false with Error
	Error      string
	RetryAfter int
	After      bool // performs the call first
}

// Limit is so many calls in a window.
type Limit struct {
	Calls  int
	Window time.Duration
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
	s.StayOffline("http://slack.test")
	return s
}

func build() *Server {
	s := &Server{
		BotToken: "xoxb-test-" + rand.Text(), AppToken: "xapp-test-" + rand.Text(), Secret: rand.Text(),
		AppID: "A0TEST", TeamID: "T0TEST", BotUser: "U0BOT",
		channels: map[string]*Channel{}, directs: map[string]string{}, files: map[string]*File{}, uploads: map[string]string{},
		commands: map[string]*Interaction{}, used: map[string][]time.Time{}, locales: map[string]string{},
		limits: map[string]Limit{
			"chat.postMessage": {600, time.Minute}, "chat.update": {50, time.Minute}, "chat.postEphemeral": {100, time.Minute},
			"conversations.open": {50, time.Minute}, "conversations.history": {50, time.Minute}, "conversations.replies": {50, time.Minute},
			"files.getUploadURLExternal": {100, time.Minute}, "files.completeUploadExternal": {100, time.Minute},
			"files.info": {100, time.Minute}, "apps.connections.open": {20, time.Minute}, "users.info": {100, time.Minute}, "views.open": {100, time.Minute},
		},
		scopes: map[string]bool{},
	}
	for _, sc := range strings.Fields("commands chat:write files:write files:read im:write channels:history groups:history im:history users:read") {
		s.scopes[sc] = true
	}
	s.Init(s.serve)
	return s
}

// Close ends the server and its sockets.
func (s *Server) Close() {
	s.sock.closeAll()
	s.Shut()
}

// URL is the base of the Web API, with the slash at its end.
func (s *Server) URL() string { return s.Address() + "/api/" }

// Revoke makes the tokens invalid.
func (s *Server) Revoke() { s.mu.Lock(); defer s.mu.Unlock(); s.revoked = true }

// Unlimited lifts all rate limits.
func (s *Server) Unlimited() { s.mu.Lock(); defer s.mu.Unlock(); s.unlimited = true }

// DropScope takes a scope away from the bot.
func (s *Server) DropScope(scope string) { s.mu.Lock(); defer s.mu.Unlock(); delete(s.scopes, scope) }

// Break adds a fault.
func (s *Server) Break(f Fault) { s.mu.Lock(); defer s.mu.Unlock(); s.faults = append(s.faults, f) }

// SetLocale is the language of a person's client.
func (s *Server) SetLocale(user, locale string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locales[user] = locale
}

// Requests returns the requests of a method so far; "" all.
func (s *Server) Requests(method string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Request
	for _, r := range s.requests {
		if method == "" || r.Method == method {
			out = append(out, r)
		}
	}
	return out
}

// Overruns counts the 429 answers.
func (s *Server) Overruns() int {
	n := 0
	for _, r := range s.Requests("") {
		if r.Status == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

func (s *Server) id(prefix string) string {
	s.next++
	return prefix + strconv.FormatInt(1000000+s.next, 10)
}

// ts makes a message's timestamp: unique, and the server's time.
func (s *Server) ts() string {
	us := max(s.Now().UnixMicro(), s.lastTS+1)
	s.lastTS = us
	return fmt.Sprintf("%d.%06d", us/1e6, us%1e6)
}

// call is one Web API call: form and JSON bodies look the same here.
type call struct {
	method string
	args   map[string]any
	token  string
}

func (c *call) str(name string) string {
	switch v := c.args[name].(type) {
	case string:
		return v
	case nil:
		return ""
	default:
		b, _ := json.Marshal(v)
		return string(b)
	}
}

// raw is an argument that may be JSON or a string that holds JSON.
func (c *call) raw(name string) json.RawMessage {
	switch v := c.args[name].(type) {
	case nil:
		return nil
	case string:
		return json.RawMessage(v)
	default:
		b, _ := json.Marshal(v)
		return b
	}
}

// slackError is the code in "error" of an answer with ok:false.
type slackError string

func (e slackError) Error() string { return string(e) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/socket/"):
		s.serveSocket(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/_test/"):
		s.control(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/respond/"):
		s.serveResponseURL(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/upload/"):
		s.serveUpload(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/private/"):
		s.serveFile(w, r)
		return
	}
	c := &call{method: strings.TrimPrefix(r.URL.Path, "/api/"), args: map[string]any{}}
	rec, err := readCall(r, c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		c.token = bearer
	} else {
		c.token = c.str("token")
	}
	s.mu.Lock()
	rec.At = s.Now()
	rec.Form.Del("token")
	status, header, answer := s.answer(c)
	rec.Status = status
	text, _ := json.Marshal(answer)
	rec.Answer = text
	s.requests = append(s.requests, rec)
	s.Touch()
	s.mu.Unlock()
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	for k, v := range header {
		w.Header().Set(k, v)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

func readCall(r *http.Request, c *call) (Request, error) {
	rec := Request{Method: c.method, Form: url.Values{}}
	media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return rec, err
	}
	form := r.URL.Query()
	switch media {
	case "application/json":
		if len(body) == 0 || string(body) == "null" {
			break
		}
		rec.JSON = body
		if err := json.Unmarshal(body, &c.args); err != nil {
			return rec, err
		}
	case "multipart/form-data":
		m, err := multipart.NewReader(strings.NewReader(string(body)), params["boundary"]).ReadForm(4 << 20)
		if err != nil {
			return rec, err
		}
		for k, v := range m.Value {
			form[k] = v
		}
	default:
		more, err := url.ParseQuery(string(body))
		if err != nil {
			return rec, err
		}
		for k, v := range more {
			form[k] = v
		}
	}
	for k, v := range form {
		c.args[k] = v[0]
	}
	rec.Form = form
	return rec, nil
}

func (s *Server) answer(c *call) (status int, header map[string]string, answer any) {
	failed := func(code string) (int, map[string]string, any) {
		return http.StatusOK, nil, map[string]any{"ok": false, "error": code}
	}
	f := s.fault(c.method)
	if f != nil && !f.After {
		return s.faulty(f)
	}
	if s.revoked {
		return failed("token_revoked")
	}
	want := s.BotToken
	if c.method == "apps.connections.open" {
		want = s.AppToken
	}
	if c.token == "" {
		return failed("not_authed")
	}
	if c.token != want {
		return failed("invalid_auth")
	}
	if wait := s.pace(c); wait > 0 {
		after := strconv.Itoa(int((wait + time.Second - 1) / time.Second))
		return http.StatusTooManyRequests, map[string]string{"Retry-After": after}, map[string]any{"ok": false, "error": "ratelimited"}
	}
	out, err := s.route(c)
	if e, ok := errors.AsType[slackError](err); ok {
		return failed(string(e))
	}
	if f != nil {
		return s.faulty(f)
	}
	if out == nil {
		out = map[string]any{}
	}
	out["ok"] = true
	return http.StatusOK, map[string]string{"X-OAuth-Scopes": strings.Join(slices.Sorted(maps.Keys(s.scopes)), ",")}, out
}

func (s *Server) faulty(f *Fault) (int, map[string]string, any) {
	header := map[string]string{}
	if f.RetryAfter > 0 {
		header["Retry-After"] = strconv.Itoa(f.RetryAfter)
	}
	return f.Status, header, map[string]any{"ok": false, "error": f.Error}
}

func (s *Server) fault(method string) *Fault {
	for i := range s.faults {
		f := &s.faults[i]
		if f.Method != method {
			continue
		}
		hit := *f
		if f.Times == 1 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		} else if f.Times > 1 {
			f.Times--
		}
		return &hit
	}
	return nil
}

// pace applies the method's tier and, for posts, one a second and channel with
// a short burst.
func (s *Server) pace(c *call) time.Duration {
	if s.unlimited {
		return 0
	}
	keys := map[string]Limit{}
	if l, ok := s.limits[c.method]; ok {
		keys[c.method] = l
	}
	if c.method == "chat.postMessage" {
		keys["post "+c.str("channel")] = Limit{4, 4 * time.Second}
	}
	now := s.Now()
	for key, l := range keys {
		recent := s.used[key][:0:0]
		for _, at := range s.used[key] {
			if now.Sub(at) < l.Window {
				recent = append(recent, at)
			}
		}
		s.used[key] = recent
		if len(recent) >= l.Calls {
			return l.Window - now.Sub(recent[0])
		}
	}
	for key := range keys {
		s.used[key] = append(s.used[key], now)
	}
	return 0
}

func (s *Server) need(scopes ...string) error {
	for _, sc := range scopes {
		if s.scopes[sc] {
			return nil
		}
	}
	return slackError("missing_scope")
}

// sign signs a body as Slack does.
func (s *Server) sign(at time.Time, body []byte) (stamp, signature string) {
	stamp = strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(s.Secret))
	fmt.Fprintf(h, "v0:%s:%s", stamp, body)
	return stamp, "v0=" + hex.EncodeToString(h.Sum(nil))
}
