package slacktest

import (
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Channel is a conversation.
type Channel struct {
	ID       string
	User     string // of a direct message
	Private  bool   // the bot is not in it: channel_not_found
	Outside  bool   // public, without the bot: not_in_channel
	Archived bool
	messages []*Message
}

// Message is a message as the server keeps it.
type Message struct {
	Channel   string
	TS        string
	Thread    string
	Text      string
	Blocks    json.RawMessage
	Metadata  json.RawMessage
	Edits     int
	Ephemeral string // for this user alone
	File      string // shared by this message
	Unfurl    bool
	Pinged    []string // users notified by the creation
	Everyone  bool     // channel, here or everyone
	Created   time.Time
}

// File is an uploaded file. It becomes usable in blocks a while after step 3.
type File struct {
	ID, Name, Alt string
	Data          []byte
	Complete      bool
	ReadyAt       time.Time
}

// processing is how long after completion a file's type is known.
const processing = 300 * time.Millisecond

// AddChannel makes a channel with the bot in it.
func (s *Server) AddChannel() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Channel{ID: s.id("C")}
	s.channels[c.ID] = c
	return c.ID
}

// Change edits a channel under the server's lock.
func (s *Server) Change(id string, f func(*Channel)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.channels[id])
	s.Touch()
}

// Messages returns copies of a channel's messages, oldest first.
func (s *Server) Messages(channel string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[channel]
	if c == nil {
		return nil
	}
	out := make([]Message, len(c.messages))
	for i, m := range c.messages {
		out[i] = *m
	}
	return out
}

// Direct returns the messages of the private conversation with a user.
func (s *Server) Direct(user string) []Message {
	s.mu.Lock()
	id := s.directs[user]
	s.mu.Unlock()
	return s.Messages(id)
}

// Delete deletes a message as a person would.
func (s *Server) Delete(channel, ts string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[channel]
	c.messages = slices.DeleteFunc(c.messages, func(m *Message) bool { return m.TS == ts })
}

// Views returns the modals that were opened.
func (s *Server) Views() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.views)
}

func (c *Channel) find(ts string) *Message {
	for _, m := range c.messages {
		if m.TS == ts && m.Ephemeral == "" {
			return m
		}
	}
	return nil
}

func (s *Server) route(c *call) (map[string]any, error) {
	switch c.method {
	case "auth.test":
		return map[string]any{"url": s.Address(), "team": "test", "user": "dream", "team_id": s.TeamID, "user_id": s.BotUser, "bot_id": "B0TEST"}, nil
	case "api.test":
		return nil, nil
	case "apps.connections.open":
		return map[string]any{"url": s.socketURL()}, nil
	case "chat.postMessage":
		return s.post(c)
	case "chat.update":
		return s.update(c)
	case "chat.postEphemeral":
		return s.ephemeral(c)
	case "conversations.open":
		if err := s.need("im:write"); err != nil {
			return nil, err
		}
		return map[string]any{"channel": map[string]any{"id": s.direct(c.str("users"))}}, nil
	case "conversations.info":
		ch := s.channels[c.str("channel")]
		if ch == nil || ch.Private {
			return nil, slackError("channel_not_found")
		}
		return map[string]any{"channel": map[string]any{"id": ch.ID, "is_member": !ch.Outside, "is_archived": ch.Archived}}, nil
	case "conversations.history", "conversations.replies":
		return s.history(c)
	case "users.info":
		if err := s.need("users:read"); err != nil {
			return nil, err
		}
		return map[string]any{"user": map[string]any{"id": c.str("user"), "name": "person", "locale": s.locales[c.str("user")]}}, nil
	case "views.open":
		return s.openView(c)
	case "files.getUploadURLExternal":
		return s.beginUpload(c)
	case "files.completeUploadExternal":
		return s.completeUpload(c)
	case "files.info":
		return s.fileInfo(c)
	}
	return nil, slackError("unknown_method")
}

func (s *Server) direct(user string) string {
	id := s.directs[user]
	if id == "" {
		id = s.id("D")
		s.directs[user] = id
		s.channels[id] = &Channel{ID: id, User: user}
	}
	return id
}

func (s *Server) place(id string) (*Channel, error) {
	if strings.HasPrefix(id, "U") {
		id = s.direct(id)
	}
	ch := s.channels[id]
	switch {
	case ch == nil || ch.Private:
		return nil, slackError("channel_not_found")
	case ch.Outside && !s.scopes["chat:write.public"]:
		return nil, slackError("not_in_channel")
	case ch.Archived:
		return nil, slackError("is_archived")
	}
	return ch, nil
}

var pingRE = regexp.MustCompile(`<!(channel|here|everyone)[|>]|<@([UW][A-Z0-9]+)`)

// fill checks the text and blocks of a message.
func (s *Server) fill(m *Message, c *call) error {
	m.Text, m.Blocks = c.str("text"), c.raw("blocks")
	if utf8.RuneCountInString(m.Text) > 40_000 {
		return slackError("msg_too_long")
	}
	if m.Text == "" && len(m.Blocks) == 0 {
		return slackError("no_text")
	}
	m.Unfurl = c.str("unfurl_links") == "true" || c.str("unfurl_media") == "true" || c.args["unfurl_links"] == nil
	return s.checkBlocks(m)
}

func (s *Server) post(c *call) (map[string]any, error) {
	if err := s.need("chat:write"); err != nil {
		return nil, err
	}
	ch, err := s.place(c.str("channel"))
	if err != nil {
		return nil, err
	}
	thread := c.str("thread_ts")
	if thread != "" && ch.find(thread) == nil {
		return nil, slackError("thread_not_found")
	}
	m := &Message{Channel: ch.ID, Thread: thread, Metadata: c.raw("metadata"), Created: s.Now()}
	if err := s.fill(m, c); err != nil {
		return nil, err
	}
	m.TS = s.ts()
	ch.messages = append(ch.messages, m)
	return map[string]any{"channel": ch.ID, "ts": m.TS, "message": view(m)}, nil
}

func (s *Server) update(c *call) (map[string]any, error) {
	ch, err := s.place(c.str("channel"))
	if err != nil {
		return nil, err
	}
	m := ch.find(c.str("ts"))
	if m == nil {
		return nil, slackError("message_not_found")
	}
	changed := *m
	if err := s.fill(&changed, c); err != nil {
		return nil, err
	}
	changed.Pinged, changed.Everyone = m.Pinged, m.Everyone
	changed.Edits++
	*m = changed
	return map[string]any{"channel": ch.ID, "ts": m.TS, "text": m.Text}, nil
}

func (s *Server) ephemeral(c *call) (map[string]any, error) {
	ch, err := s.place(c.str("channel"))
	if err != nil {
		return nil, err
	}
	m := &Message{Channel: ch.ID, Ephemeral: c.str("user"), Created: s.Now()}
	if err := s.fill(m, c); err != nil {
		return nil, err
	}
	m.TS = s.ts()
	ch.messages = append(ch.messages, m)
	return map[string]any{"message_ts": m.TS}, nil
}

func (s *Server) history(c *call) (map[string]any, error) {
	ch := s.channels[c.str("channel")]
	if ch == nil {
		return nil, slackError("channel_not_found")
	}
	scopes := []string{"channels:history", "groups:history"}
	if ch.User != "" {
		scopes = []string{"im:history"}
	}
	if err := s.need(scopes...); err != nil {
		return nil, err
	}
	thread := c.str("ts")
	out := []any{}
	for _, m := range slices.Backward(ch.messages) {
		if m.Ephemeral != "" || c.method == "conversations.replies" && m.Thread != thread && m.TS != thread ||
			c.method == "conversations.history" && m.Thread != "" || c.str("oldest") != "" && m.TS < c.str("oldest") {
			continue
		}
		v := view(m)
		if c.str("include_all_metadata") != "true" && c.str("include_all_metadata") != "1" {
			delete(v, "metadata")
		}
		out = append(out, v)
	}
	return map[string]any{"messages": out, "has_more": false}, nil
}

func view(m *Message) map[string]any {
	v := map[string]any{"type": "message", "ts": m.TS, "text": m.Text, "user": "U0BOT", "bot_id": "B0TEST"}
	if len(m.Blocks) > 0 {
		v["blocks"] = m.Blocks
	}
	if m.Thread != "" {
		v["thread_ts"] = m.Thread
	}
	if len(m.Metadata) > 0 {
		v["metadata"] = m.Metadata
	}
	return v
}

func (s *Server) beginUpload(c *call) (map[string]any, error) {
	if err := s.need("files:write"); err != nil {
		return nil, err
	}
	if c.str("filename") == "" || c.str("length") == "" || c.str("length") == "0" {
		return nil, slackError("invalid_arguments")
	}
	f := &File{ID: s.id("F"), Name: c.str("filename"), Alt: c.str("alt_txt")}
	if f.Alt == "" {
		f.Alt = c.str("alt_text")
	}
	s.files[f.ID] = f
	path := "/upload/" + f.ID
	s.uploads[path] = f.ID
	return map[string]any{"upload_url": s.Address() + path, "file_id": f.ID}, nil
}

func (s *Server) serveUpload(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "multipart/form-data" {
		if p, err := multipart.NewReader(r.Body, params["boundary"]).NextPart(); err == nil {
			body = p
		}
	}
	data, err := io.ReadAll(io.LimitReader(body, 64<<20))
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[s.uploads[r.URL.Path]]
	if err != nil || f == nil {
		http.Error(w, "no such upload", http.StatusNotFound)
		return
	}
	f.Data = data
}

func (s *Server) completeUpload(c *call) (map[string]any, error) {
	var list []struct{ ID, Title string }
	if err := json.Unmarshal(c.raw("files"), &list); err != nil {
		return nil, slackError("invalid_arguments")
	}
	var out []any
	for _, l := range list {
		f := s.files[l.ID]
		if f == nil || len(f.Data) == 0 {
			return nil, slackError("file_not_found")
		}
		f.Complete, f.ReadyAt = true, s.Now().Add(processing)
		out = append(out, map[string]any{"id": f.ID, "title": l.Title})
	}
	if id := c.str("channel_id"); id != "" {
		if err := s.share(id, c.str("thread_ts"), list[0].ID); err != nil {
			return nil, err
		}
	}
	return map[string]any{"files": out}, nil
}

// share shows a file in a channel, as a message of its own.
func (s *Server) share(channel, thread, file string) error {
	ch, err := s.place(channel)
	if err != nil {
		return err
	}
	ch.messages = append(ch.messages, &Message{Channel: ch.ID, TS: s.ts(), Thread: thread, File: file, Created: s.Now()})
	return nil
}

// File returns an uploaded file.
func (s *Server) File(id string) File {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[id]; f != nil {
		return *f
	}
	return File{}
}

func (s *Server) fileInfo(c *call) (map[string]any, error) {
	if err := s.need("files:read"); err != nil {
		return nil, err
	}
	f := s.files[c.str("file")]
	if f == nil || !f.Complete {
		return nil, slackError("file_not_found")
	}
	v := map[string]any{"id": f.ID, "name": f.Name, "size": len(f.Data), "mimetype": "", "url_private_download": s.Address() + "/private/" + f.ID}
	if !s.Now().Before(f.ReadyAt) {
		v["mimetype"] = "image/png"
	}
	return map[string]any{"file": v}, nil
}

// AddFile is a file that a person put into a form; it returns its id.
func (s *Server) AddFile(name string, data []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &File{ID: s.id("F"), Name: name, Data: data, Complete: true}
	s.files[f.ID] = f
	return f.ID
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[strings.TrimPrefix(r.URL.Path, "/private/")]
	if f == nil || r.Header.Get("Authorization") != "Bearer "+s.BotToken {
		http.Error(w, "<html>sign in</html>", http.StatusForbidden)
		return
	}
	_, _ = w.Write(f.Data)
}
