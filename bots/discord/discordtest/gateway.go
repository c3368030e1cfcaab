package discordtest

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// gateway is the WebSocket side: sessions that survive connections.
type gateway struct {
	mu       sync.Mutex
	sessions map[string]*session
	seq      int64
	identify int // today's identifies
	resumes  int
	total    int
	script   GatewayScript
	refuse   []int // close codes for the next connections after Identify or Resume
}

// GatewayScript makes the gateway misbehave. The zero value behaves.
type GatewayScript struct {
	Heartbeat      time.Duration // interval; 0 is 41.25 s
	NoHello        bool          // never say Hello
	NoAck          bool          // never acknowledge a heartbeat: a zombie
	ReconnectFirst bool          // op 7 as the first packet after Identify or Resume
	InvalidSession bool          // op 9 d:false after Resume
	TryResume      int           // op 9 d:true after so many Resumes
	Duplicate      bool          // each dispatch twice
}

type session struct {
	id     string
	conn   *websocket.Conn
	write  *sync.Mutex
	log    []packet // for replay
	closed bool
}

type packet struct {
	Op int             `json:"op"`
	D  json.RawMessage `json:"d"`
	S  *int64          `json:"s,omitempty"`
	T  *string         `json:"t,omitempty"`
}

func (g *gateway) init() {
	g.sessions = map[string]*session{}
	g.total = 1000
}

// Script sets how the gateway behaves from now on.
func (s *Server) Script(g GatewayScript) {
	s.gw.mu.Lock()
	defer s.gw.mu.Unlock()
	s.gw.script = g
}

// RefuseNext closes the next connections with these codes once they identify.
func (s *Server) RefuseNext(codes ...int) {
	s.gw.mu.Lock()
	defer s.gw.mu.Unlock()
	s.gw.refuse = append(s.gw.refuse, codes...)
}

// Identifies and Resumes count what connections began with.
func (s *Server) Identifies() int { s.gw.mu.Lock(); defer s.gw.mu.Unlock(); return s.gw.identify }

// Resumes counts successful resumes.
func (s *Server) Resumes() int { s.gw.mu.Lock(); defer s.gw.mu.Unlock(); return s.gw.resumes }

// Connected counts open gateway sessions.
func (s *Server) Connected() int {
	s.gw.mu.Lock()
	defer s.gw.mu.Unlock()
	n := 0
	for _, x := range s.gw.sessions {
		if x.conn != nil {
			n++
		}
	}
	return n
}

// AskReconnect sends op 7 to every connection.
func (s *Server) AskReconnect() { s.gw.each(func(x *session) { x.send(packet{Op: 7}) }) }

// AskResume sends op 9 d:true to every connection: the session is to be resumed.
func (s *Server) AskResume() {
	s.gw.each(func(x *session) { x.send(packet{Op: 9, D: json.RawMessage("true")}) })
}

// AskHeartbeat sends op 1 to every connection.
func (s *Server) AskHeartbeat() { s.gw.each(func(x *session) { x.send(packet{Op: 1}) }) }

// CloseGateway closes every connection with a code; 0 drops it without one.
func (s *Server) CloseGateway(code int) {
	s.gw.each(func(x *session) {
		if code != 0 {
			_ = x.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "test"), time.Now().Add(time.Second))
		}
		x.conn.Close()
	})
}

func (g *gateway) each(f func(*session)) {
	g.mu.Lock()
	var open []*session
	for _, x := range g.sessions {
		if x.conn != nil {
			open = append(open, x)
		}
	}
	g.mu.Unlock()
	for _, x := range open {
		f(x)
	}
}

func (g *gateway) closeAll() { g.each(func(x *session) { x.conn.Close() }) }

func (g *gateway) startLimit() map[string]any {
	g.mu.Lock()
	defer g.mu.Unlock()
	return map[string]any{"total": g.total, "remaining": g.total - g.identify, "reset_after": 86_400_000, "max_concurrency": 1}
}

func (s *Server) gatewayURL() string {
	return strings.Replace(s.Address(), "http://", "ws://", 1) + "/gateway"
}

// dispatch sends an event to every session; sessions without connection get it
// when they resume. All sessions of a token get every event, as it is when two
// processes use one token.
func (g *gateway) dispatch(name string, data any) {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err) // our own data
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, x := range g.sessions {
		if x.closed {
			continue
		}
		times := 1
		if g.script.Duplicate {
			times = 2
		}
		g.seq++
		seq := g.seq
		p := packet{Op: 0, D: raw, S: &seq, T: &name}
		x.log = append(x.log, p)
		for range times {
			if x.conn != nil {
				x.send(p)
			}
		}
	}
}

func (x *session) send(p packet) {
	x.write.Lock()
	defer x.write.Unlock()
	_ = x.conn.WriteJSON(p)
}

var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

func (s *Server) serveGateway(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetReadLimit(4096)
	s.gw.mu.Lock()
	script := s.gw.script
	s.gw.mu.Unlock()
	if script.NoHello {
		_, _, _ = conn.ReadMessage()
		return
	}
	beat := script.Heartbeat
	if beat == 0 {
		beat = 41250 * time.Millisecond
	}
	write := &sync.Mutex{}
	x := &session{conn: conn, write: write}
	hello, _ := json.Marshal(map[string]any{"heartbeat_interval": beat.Milliseconds()})
	if r.URL.Query().Get("compress") == "zlib-stream" { // discord.js may ask for it; it is not offered
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4000, "no compression here"), time.Now().Add(time.Second))
		return
	}
	x.send(packet{Op: 10, D: hello})
	for {
		var p packet
		if err := conn.ReadJSON(&p); err != nil {
			break
		}
		next, code := s.receive(x, p)
		if code != 0 {
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "test"), time.Now().Add(time.Second))
			time.Sleep(50 * time.Millisecond)
			break
		}
		x = next
	}
	s.gw.mu.Lock()
	if x.conn == conn {
		x.conn = nil
	}
	s.gw.mu.Unlock()
	s.mu.Lock()
	s.Touch()
	s.mu.Unlock()
}

// receive handles one packet; code closes the connection.
func (s *Server) receive(x *session, p packet) (next *session, code int) {
	g := &s.gw
	g.mu.Lock()
	script := g.script
	g.mu.Unlock()
	switch p.Op {
	case 1:
		if !script.NoAck {
			x.send(packet{Op: 11})
		}
		return x, 0
	case 2:
		return s.identifySession(x, p, script)
	case 6:
		return s.resumeSession(x, p, script)
	case 3, 4, 8:
		return x, 0
	}
	return x, 4001
}

func (s *Server) refusal(token string) int {
	s.mu.Lock()
	bad := s.revoked || token != s.Token && token != "Bot "+s.Token
	s.mu.Unlock()
	if bad {
		return 4004
	}
	s.gw.mu.Lock()
	defer s.gw.mu.Unlock()
	if len(s.gw.refuse) > 0 {
		code := s.gw.refuse[0]
		s.gw.refuse = s.gw.refuse[1:]
		return code
	}
	return 0
}

func (s *Server) identifySession(x *session, p packet, script GatewayScript) (*session, int) {
	var in struct {
		Token   string `json:"token"`
		Intents *int   `json:"intents"`
	}
	if err := json.Unmarshal(p.D, &in); err != nil || in.Intents == nil {
		return x, 4002
	}
	if x.id != "" {
		return x, 4005 // it has identified
	}
	s.gw.mu.Lock()
	s.gw.identify++
	s.gw.mu.Unlock()
	if code := s.refusal(in.Token); code != 0 {
		return x, code
	}
	if script.ReconnectFirst {
		x.send(packet{Op: 7})
		return x, 0
	}
	s.mu.Lock()
	x.id = "session" + s.id()
	ready, _ := json.Marshal(map[string]any{
		"v": 10, "user": s.botUser(), "guilds": []any{}, "session_id": x.id, "resume_gateway_url": s.gatewayURL(),
		"application": map[string]any{"id": s.AppID, "flags": 0},
	})
	s.mu.Unlock()
	s.gw.mu.Lock()
	s.gw.sessions[x.id] = x
	s.gw.seq++
	seq, name := s.gw.seq, "READY"
	s.gw.mu.Unlock()
	x.send(packet{Op: 0, D: ready, S: &seq, T: &name})
	s.mu.Lock()
	s.Touch()
	s.mu.Unlock()
	return x, 0
}

func (s *Server) resumeSession(x *session, p packet, script GatewayScript) (*session, int) {
	var in struct {
		Token   string `json:"token"`
		Session string `json:"session_id"`
		Seq     int64  `json:"seq"`
	}
	if err := json.Unmarshal(p.D, &in); err != nil {
		return x, 4002
	}
	if code := s.refusal(in.Token); code != 0 {
		return x, code
	}
	s.gw.mu.Lock()
	old := s.gw.sessions[in.Session]
	s.gw.mu.Unlock()
	if script.TryResume > 0 {
		s.gw.mu.Lock()
		s.gw.script.TryResume--
		s.gw.mu.Unlock()
		x.send(packet{Op: 9, D: json.RawMessage("true")})
		return x, 0
	}
	if old == nil || script.InvalidSession {
		x.send(packet{Op: 9, D: json.RawMessage("false")})
		return x, 0
	}
	if script.ReconnectFirst {
		x.send(packet{Op: 7})
		return x, 0
	}
	s.gw.mu.Lock()
	old.conn, old.write = x.conn, x.write
	replay := append([]packet(nil), old.log...)
	s.gw.resumes++
	s.gw.seq++
	seq, name := s.gw.seq, "RESUMED"
	s.gw.mu.Unlock()
	for _, m := range replay {
		if *m.S > in.Seq {
			old.send(m)
		}
	}
	old.send(packet{Op: 0, D: json.RawMessage("{}"), S: &seq, T: &name})
	return old, 0
}
