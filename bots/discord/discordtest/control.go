package discordtest

import (
	"encoding/json"
	"net/http"
	"time"
)

// control plays the person for tests in other languages and processes:
//
//	POST /_test/command  {"user","channel","name","options"}       → {"id"}
//	POST /_test/click    {"user","channel","message","custom_id"}  → {"id"}
//	POST /_test/channel  {"guild"}                                 → {"id"}
//	GET  /_test/answer?id=…       → {"kind","data","message"}
//	GET  /_test/messages?channel=…[&user=…]                        → messages
//	GET  /_test/requests          → requests
//	POST /_test/advance  {"seconds"}
//	GET  /_test/info              → {"token","app_id","public_key","connected"}
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User, Channel, Name, Message, Guild string
		CustomID                            string `json:"custom_id"`
		Options                             map[string]any
		Seconds                             float64
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	var out any = map[string]string{}
	p := Person{ID: in.User, Channel: in.Channel}
	q := r.URL.Query()
	switch r.URL.Path {
	case "/_test/info":
		out = map[string]any{"token": s.Token, "app_id": s.AppID, "public_key": s.PublicKey(), "connected": s.Connected(), "commands": s.Commands()}
	case "/_test/channel":
		out = map[string]string{"id": s.AddChannel(in.Guild).ID}
	case "/_test/command":
		out = map[string]string{"id": s.Command(p, in.Name, in.Options).ID}
	case "/_test/click":
		for _, m := range s.Messages(in.Channel) {
			if m.ID == in.Message {
				out = map[string]string{"id": s.Click(p, m, in.CustomID).ID}
			}
		}
	case "/_test/answer":
		s.mu.Lock()
		i := s.interactions[q.Get("id")]
		s.mu.Unlock()
		if i == nil {
			http.NotFound(w, r)
			return
		}
		kind, data, m := s.Answer(i)
		out = map[string]any{"kind": kind, "data": data, "message": m}
	case "/_test/messages":
		if user := q.Get("user"); user != "" {
			out = s.Direct(user)
		} else {
			out = s.Messages(q.Get("channel"))
		}
	case "/_test/requests":
		out = s.Requests("", "")
	case "/_test/advance":
		s.Advance(time.Duration(in.Seconds * float64(time.Second)))
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}
