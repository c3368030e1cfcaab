package slacktest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// AckWindow is how long an app has for its answer; a response URL lives for
// ResponseLife and takes ResponseUses posts.
const (
	AckWindow    = 3 * time.Second
	ResponseLife = 30 * time.Minute
	ResponseUses = 5
)

// Interaction is something a person did.
type Interaction struct {
	ID        string // trigger id
	Kind      string // slash_commands or interactive
	Channel   string
	User      string
	Created   time.Time
	Acked     time.Time // zero: not yet
	Late      bool      // acknowledged after AckWindow: the person saw operation_timeout
	Ack       json.RawMessage
	Responses []json.RawMessage // what came by the response URL
	triggered bool
	payload   map[string]any
	delivered int
}

type sockets struct {
	mu     sync.Mutex
	open   []*socket
	ticket map[string]bool
	silent bool
	turn   int
}

type socket struct {
	conn  *websocket.Conn
	write sync.Mutex
}

func (k *sockets) closeAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, x := range k.open {
		x.conn.Close()
	}
}

// Connected counts open sockets.
func (s *Server) Connected() int { s.sock.mu.Lock(); defer s.sock.mu.Unlock(); return len(s.sock.open) }

// Silence stops PING frames and envelopes: a half-dead connection.
func (s *Server) Silence(on bool) { s.sock.mu.Lock(); defer s.sock.mu.Unlock(); s.sock.silent = on }

// Disconnect asks every socket to reconnect, as Slack does every few hours.
func (s *Server) Disconnect(reason string) {
	s.sock.mu.Lock()
	open := append([]*socket(nil), s.sock.open...)
	s.sock.mu.Unlock()
	for _, x := range open {
		x.send(map[string]any{"type": "disconnect", "reason": reason, "debug_info": map[string]any{"host": "test"}})
		if reason != "warning" {
			time.AfterFunc(100*time.Millisecond, func() { x.conn.Close() })
		}
	}
}

// Drop cuts every socket.
func (s *Server) Drop() { s.sock.closeAll() }

func (s *Server) socketURL() string {
	ticket := s.id("ticket")
	s.sock.mu.Lock()
	if s.sock.ticket == nil {
		s.sock.ticket = map[string]bool{}
	}
	s.sock.ticket[ticket] = true
	s.sock.mu.Unlock()
	return strings.Replace(s.Address(), "http://", "ws://", 1) + "/socket/?ticket=" + ticket
}

func (x *socket) send(v any) {
	x.write.Lock()
	defer x.write.Unlock()
	_ = x.conn.WriteJSON(v)
}

var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

// maxAck is the size from which Slack drops an acknowledgement's payload.
const maxAck = 20_000

func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	ticket := r.URL.Query().Get("ticket")
	s.sock.mu.Lock()
	ok := s.sock.ticket[ticket]
	delete(s.sock.ticket, ticket) // for one connection
	s.sock.mu.Unlock()
	if !ok {
		http.Error(w, "unknown ticket", http.StatusForbidden)
		return
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	x := &socket{conn: conn}
	s.sock.mu.Lock()
	s.sock.open = append(s.sock.open, x)
	n := len(s.sock.open)
	s.sock.mu.Unlock()
	x.send(map[string]any{"type": "hello", "num_connections": n, "connection_info": map[string]any{"app_id": s.AppID},
		"debug_info": map[string]any{"host": "test", "approximate_connection_time": 18060}})
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				s.sock.mu.Lock()
				silent := s.sock.silent
				s.sock.mu.Unlock()
				if !silent {
					_ = conn.WriteControl(websocket.PingMessage, []byte("Ping from test"), time.Now().Add(time.Second))
				}
			}
		}
	}()
	for {
		var ack struct {
			EnvelopeID string          `json:"envelope_id"`
			Payload    json.RawMessage `json:"payload"`
		}
		if err := conn.ReadJSON(&ack); err != nil {
			break
		}
		if ack.EnvelopeID != "" {
			if len(ack.Payload) >= maxAck {
				ack.Payload = nil
			}
			s.ack(ack.EnvelopeID, ack.Payload)
		}
	}
	close(done)
	s.sock.mu.Lock()
	for i, y := range s.sock.open {
		if y == x {
			s.sock.open = append(s.sock.open[:i:i], s.sock.open[i+1:]...)
			break
		}
	}
	s.sock.mu.Unlock()
}

func (s *Server) ack(id string, payload json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.commands[id]
	if in == nil || !in.Acked.IsZero() {
		return
	}
	s.answered(in, payload)
	s.Touch()
}

// answered notes an acknowledgement; the lock is held.
func (s *Server) answered(in *Interaction, payload json.RawMessage) {
	in.Acked, in.Ack = s.Now(), payload
	in.Late = in.Acked.Sub(in.Created) > AckWindow
}

// deliver sends the envelope to one of the sockets, and again to another if it
// is not acknowledged.
func (s *Server) deliver(in *Interaction) {
	s.sock.mu.Lock()
	var x *socket
	if n := len(s.sock.open); n > 0 && !s.sock.silent {
		s.sock.turn++
		x = s.sock.open[s.sock.turn%n]
	}
	s.sock.mu.Unlock()
	s.mu.Lock()
	again := in.Acked.IsZero() && in.delivered < 4
	envelope := map[string]any{"envelope_id": in.ID, "type": in.Kind, "payload": in.payload, "accepts_response_payload": true}
	if in.delivered > 0 {
		envelope["retry_attempt"], envelope["retry_reason"] = in.delivered, "timeout"
	}
	if again {
		in.delivered++
	}
	s.mu.Unlock()
	if !again {
		return
	}
	if x != nil {
		x.send(envelope)
	}
	if in.Kind != "slash_commands" { // slash commands are sent once
		time.AfterFunc(AckWindow, func() { s.deliver(in) })
	}
}

// Payload is the interaction as it is sent, for apps that are fed by hand.
func (s *Server) Payload(in *Interaction) json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(in.payload)
	if err != nil {
		panic(err) // our own data
	}
	return text
}

// Resend delivers an interaction again.
func (s *Server) Resend(in *Interaction) {
	s.mu.Lock()
	in.Acked = time.Time{}
	s.mu.Unlock()
	s.deliver(in)
}

func (s *Server) begin(kind, user, channel string) *Interaction {
	in := &Interaction{ID: s.id("trigger."), Kind: kind, User: user, Channel: channel, Created: s.Now()}
	s.commands[in.ID] = in
	return in
}

func (s *Server) responseURL(in *Interaction) string { return s.Address() + "/respond/" + in.ID }

func (s *Server) command(user, channel, text string) *Interaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	if channel == "" {
		channel = s.direct(user)
	}
	in := s.begin("slash_commands", user, channel)
	in.payload = map[string]any{
		"command": "/dream", "text": text, "response_url": s.responseURL(in), "trigger_id": in.ID, "user_id": user, "user_name": "person",
		"team_id": s.TeamID, "team_domain": "test", "channel_id": channel, "channel_name": "general", "api_app_id": s.AppID, "is_enterprise_install": "false",
	}
	return in
}

// Command lets a person type /dream and the text, over Socket Mode.
func (s *Server) Command(user, channel, text string) *Interaction {
	in := s.command(user, channel, text)
	s.deliver(in)
	return in
}

// Click lets a person press a button of a message, by its value.
func (s *Server) Click(user string, m Message, value string) *Interaction {
	return s.act(user, m, map[string]any{"type": "button", "action_id": "b0", "value": value, "text": map[string]any{"type": "plain_text", "text": "x"}})
}

// Pick lets a person choose from a select menu of a message.
func (s *Server) Pick(user string, m Message, value string) *Interaction {
	return s.act(user, m, map[string]any{"type": "static_select", "action_id": "menu",
		"selected_option": map[string]any{"value": value, "text": map[string]any{"type": "plain_text", "text": "x"}}})
}

func (s *Server) act(user string, m Message, action map[string]any) *Interaction {
	s.mu.Lock()
	action["block_id"], action["action_ts"] = "x", s.ts()
	in := s.begin("interactive", user, m.Channel)
	in.payload = map[string]any{
		"type": "block_actions", "user": map[string]any{"id": user, "username": "person", "team_id": s.TeamID}, "team": map[string]any{"id": s.TeamID, "domain": "test"},
		"api_app_id": s.AppID, "trigger_id": in.ID, "response_url": s.responseURL(in), "channel": map[string]any{"id": m.Channel, "name": "general"},
		"container": map[string]any{"type": "message", "message_ts": m.TS, "channel_id": m.Channel}, "message": view(&m),
		"actions": []any{action},
	}
	s.mu.Unlock()
	s.deliver(in)
	return in
}

// Submit sends a filled-in modal; values are by block id and action id.
func (s *Server) Submit(user, callback, metadata string, values map[string]map[string]any) *Interaction {
	s.mu.Lock()
	in := s.begin("interactive", user, "")
	in.payload = map[string]any{
		"type": "view_submission", "user": map[string]any{"id": user, "username": "person", "team_id": s.TeamID}, "team": map[string]any{"id": s.TeamID, "domain": "test"},
		"api_app_id": s.AppID, "trigger_id": in.ID,
		"view": map[string]any{"id": s.id("V"), "type": "modal", "callback_id": callback, "private_metadata": metadata, "state": map[string]any{"values": values}},
	}
	s.mu.Unlock()
	s.deliver(in)
	return in
}

// Answered reports an interaction's state.
func (s *Server) Answered(in *Interaction) Interaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *in
}

// WaitAck waits for the acknowledgement.
func (s *Server) WaitAck(in *Interaction, d time.Duration) Interaction {
	s.Wait(d, func() bool { return !s.Answered(in).Acked.IsZero() })
	return s.Answered(in)
}

// CommandHTTP sends the command as a signed HTTP request, as of the given time.
func (s *Server) CommandHTTP(endpoint, user, channel, text string, at time.Time, good bool) (*Interaction, int, error) {
	in := s.command(user, channel, text)
	form := url.Values{}
	for k, v := range in.payload {
		form.Set(k, v.(string))
	}
	status, body, err := s.PostSigned(endpoint, []byte(form.Encode()), at, good)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && status == http.StatusOK {
		s.answered(in, body)
	}
	return in, status, err
}

// PostSigned posts a form body with Slack's signature.
func (s *Server) PostSigned(endpoint string, body []byte, at time.Time, good bool) (int, []byte, error) {
	stamp, signature := s.sign(at, body)
	if !good {
		signature = "v0=" + strings.Repeat("0", 64)
	}
	req, err := http.NewRequest(http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Slack-Request-Timestamp", stamp)
	req.Header.Set("X-Slack-Signature", signature)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return resp.StatusCode, out, err
}

func (s *Server) serveResponseURL(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.commands[strings.TrimPrefix(r.URL.Path, "/respond/")]
	s.requests = append(s.requests, Request{At: s.Now(), Method: "response_url", JSON: body, Status: 200})
	switch {
	case err != nil || in == nil:
		http.Error(w, "no such url", http.StatusNotFound)
	case s.Now().Sub(in.Created) > ResponseLife:
		http.Error(w, `{"ok":false,"error":"expired_url"}`, http.StatusNotFound)
	case len(in.Responses) >= ResponseUses:
		http.Error(w, `{"ok":false,"error":"used_url"}`, http.StatusNotFound)
	default:
		in.Responses = append(in.Responses, body)
		_, _ = io.WriteString(w, "ok")
	}
	s.Touch()
}

// control plays the person for tests in other languages and processes:
//
//	POST /_test/command  {"user","channel","text"} → {"id"}
//	POST /_test/channel  {}                        → {"id"}
//	GET  /_test/answer?id=…                        → interaction
//	GET  /_test/messages?channel=…[&user=…]        → messages
//	GET  /_test/info                               → tokens
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	var in struct{ User, Channel, Text string }
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	var out any
	q := r.URL.Query()
	switch r.URL.Path {
	case "/_test/info":
		out = map[string]any{"bot_token": s.BotToken, "app_token": s.AppToken, "secret": s.Secret, "url": s.URL(), "connected": s.Connected()}
	case "/_test/channel":
		out = map[string]string{"id": s.AddChannel()}
	case "/_test/command":
		out = map[string]string{"id": s.Command(in.User, in.Channel, in.Text).ID}
	case "/_test/answer":
		s.mu.Lock()
		i := s.commands[q.Get("id")]
		s.mu.Unlock()
		if i == nil {
			http.NotFound(w, r)
			return
		}
		out = s.Answered(i)
	case "/_test/messages":
		if user := q.Get("user"); user != "" {
			out = s.Direct(user)
		} else {
			out = s.Messages(q.Get("channel"))
		}
	case "/_test/requests":
		out = s.Requests("")
	case "/_test/advance":
		sec, _ := strconv.ParseFloat(q.Get("seconds"), 64)
		s.Advance(time.Duration(sec * float64(time.Second)))
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}
