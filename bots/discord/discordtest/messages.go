package discordtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Channel is a place with messages.
type Channel struct {
	ID       string
	Guild    string // "" is a direct message
	User     string // whom a direct message is with
	Parent   string // of a thread: the channel that it belongs to
	Adult    bool   // age-restricted
	Archived bool
	Closed   bool // VIEW_CHANNEL is missing: 50001
	Mute     bool // SEND_MESSAGES is missing: 50013
	Gone     bool // deleted: 10003
	Filter   func(content string) bool
	messages []*Message

	overwrites []overwrite
}

// Message is a message as the server keeps it.
type Message struct {
	ID          string
	Channel     string
	Author      string
	Content     string
	Components  json.RawMessage
	Embeds      json.RawMessage
	Attachments []Attachment
	Nonce       string
	Flags       int
	Ephemeral   bool // shown to For alone
	For         string
	Reference   string
	Created     time.Time
	Edited      time.Time
	Edits       int
	Deleted     bool
	Deferred    bool // "is thinking…"
	// Who was notified by the creation.
	Pinged   []string
	Everyone bool
	// WouldPing is set when an edit showed mentions that a client would render
	// as such because allowed_mentions was missing.
	WouldPing bool
}

// Attachment is a file of a message.
type Attachment struct {
	ID          string `json:"id"`
	Filename    string `json:"filename"`
	Description string `json:"description,omitempty"`
	Size        int    `json:"size"`
	ContentType string `json:"content_type,omitempty"`
	URL         string `json:"url"`
	Data        []byte `json:"-"`
}

// AddChannel makes a channel and returns it; change its fields with Edit.
func (s *Server) AddChannel(guild string) *Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Channel{ID: s.id(), Guild: guild}
	s.channels[c.ID] = c
	return c
}

// AddThread makes a thread of a channel.
func (s *Server) AddThread(parent string) *Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Channel{ID: s.id(), Guild: s.channels[parent].Guild, Parent: parent}
	s.channels[c.ID] = c
	return c
}

// Change edits a channel under the server's lock.
func (s *Server) Change(id string, f func(*Channel)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.channels[id])
	s.Touch()
}

// overwrite is a permission overwrite of a channel.
type overwrite struct {
	ID    string `json:"id"`
	Type  int    `json:"type"` // 0 role, 1 member
	Allow string `json:"allow"`
	Deny  string `json:"deny"`
}

// Deny takes permissions from everybody in a channel.
func (s *Server) Deny(id string, permissions uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[id]
	c.overwrites = append(c.overwrites, overwrite{ID: c.Guild, Allow: "0", Deny: strconv.FormatUint(permissions, 10)})
}

// RefuseDirect makes a user refuse direct messages.
func (s *Server) RefuseDirect(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noDirect[user] = true
}

// Messages returns copies of a channel's messages, oldest first, deleted ones too.
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

func (c *Channel) view() map[string]any {
	v := map[string]any{"id": c.ID, "type": 0, "name": "test", "nsfw": c.Adult}
	switch {
	case c.Parent != "":
		v["type"], v["parent_id"] = 11, c.Parent
	case c.Guild == "":
		v["type"] = 1
	}
	if c.Guild != "" {
		v["guild_id"] = c.Guild
		v["permission_overwrites"] = append([]overwrite{}, c.overwrites...)
	}
	return v
}

func (c *Channel) find(id string) *Message {
	for _, m := range c.messages {
		if m.ID == id && !m.Deleted {
			return m
		}
	}
	return nil
}

// input is the body of creates and edits. Pointers tell absent from empty.
type input struct {
	Content         *string          `json:"content"`
	Embeds          *json.RawMessage `json:"embeds"`
	Components      *json.RawMessage `json:"components"`
	Attachments     *[]Attachment    `json:"attachments"`
	AllowedMentions *mentions        `json:"allowed_mentions"`
	Nonce           json.RawMessage  `json:"nonce"`
	EnforceNonce    bool             `json:"enforce_nonce"`
	Flags           *int             `json:"flags"`
	Reference       *struct {
		MessageID string `json:"message_id"`
		FailIfNot *bool  `json:"fail_if_not_exists"`
	} `json:"message_reference"`
}

type mentions struct {
	Parse       []string `json:"parse"`
	Users       []string `json:"users"`
	Roles       []string `json:"roles"`
	RepliedUser bool     `json:"replied_user"`
}

func (s *Server) openDirect(c *call) (int, any, *apiError) {
	var in struct {
		Recipient string `json:"recipient_id"`
	}
	if err := decode(c, &in); err != nil {
		return 0, nil, err
	}
	id := s.directs[in.Recipient]
	if id == "" {
		id = s.id()
		s.directs[in.Recipient] = id
		s.channels[id] = &Channel{ID: id, User: in.Recipient}
	}
	return 200, map[string]any{"id": id, "type": 1}, nil
}

func (s *Server) channelCall(c *call) (int, any, *apiError) {
	ch := s.channels[c.path[1]]
	if ch == nil || ch.Gone {
		return 0, nil, failure(http.StatusNotFound, 10003, "Unknown Channel")
	}
	if ch.Closed {
		return 0, nil, failure(http.StatusForbidden, 50001, "Missing Access")
	}
	if len(c.path) == 2 && c.method == "GET" {
		return 200, ch.view(), nil
	}
	if len(c.path) < 3 || c.path[2] != "messages" {
		return 0, nil, failure(http.StatusNotFound, 0, "404: Not Found")
	}
	switch {
	case c.method == "POST" && len(c.path) == 3:
		return s.postMessage(ch, c)
	case c.method == "GET" && len(c.path) == 3:
		return 200, s.history(ch, c), nil
	}
	if len(c.path) != 4 {
		return 0, nil, failure(http.StatusNotFound, 0, "404: Not Found")
	}
	m := ch.find(c.path[3])
	if m == nil || m.Ephemeral {
		return 0, nil, failure(http.StatusNotFound, 10008, "Unknown Message")
	}
	switch c.method {
	case "GET":
		return 200, s.messageView(m), nil
	case "DELETE":
		m.Deleted = true
		return 204, nil, nil
	case "PATCH":
		if m.Author != s.BotID {
			return 0, nil, failure(http.StatusForbidden, 50005, "Cannot edit a message authored by another user")
		}
		if s.Now().Sub(m.Created) > time.Hour {
			if m.Edits >= 3 { // Discord allows few edits of old messages; the exact number is not documented
				return 0, nil, failure(http.StatusTooManyRequests, 30046, "Maximum number of edits to messages older than 1 hour reached. Try again later.")
			}
		}
		return s.editMessage(m, c, false)
	}
	return 0, nil, failure(http.StatusMethodNotAllowed, 0, "405: Method Not Allowed")
}

func (s *Server) postMessage(ch *Channel, c *call) (int, any, *apiError) {
	if ch.Mute {
		return 0, nil, failure(http.StatusForbidden, 50013, "Missing Permissions")
	}
	if ch.Archived {
		return 0, nil, failure(http.StatusBadRequest, 50083, "Thread is archived")
	}
	if ch.User != "" && s.noDirect[ch.User] {
		return 0, nil, failure(http.StatusForbidden, 50007, "Cannot send messages to this user")
	}
	var in input
	if err := decode(c, &in); err != nil {
		return 0, nil, err
	}
	nonce := strings.Trim(string(in.Nonce), `"`)
	if nonce == "null" {
		nonce = ""
	}
	if len(nonce) > 25 {
		return 0, nil, formError("nonce", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
	}
	if nonce != "" && in.EnforceNonce {
		for _, m := range ch.messages {
			if m.Nonce == nonce && m.Author == s.BotID && s.Now().Sub(m.Created) < 5*time.Minute {
				return 200, s.messageView(m), nil
			}
		}
	}
	m := &Message{ID: s.id(), Channel: ch.ID, Author: s.BotID, Nonce: nonce, Created: s.Now()}
	if err := s.apply(m, &in, c, mentionDefaults{everyone: true, roles: true, users: true}); err != nil {
		return 0, nil, err
	}
	if ch.Filter != nil && ch.Filter(m.Content) {
		return 0, nil, failure(http.StatusBadRequest, 200000, "Message was blocked by automatic moderation")
	}
	if in.Reference != nil {
		if ch.find(in.Reference.MessageID) == nil && (in.Reference.FailIfNot == nil || *in.Reference.FailIfNot) {
			return 0, nil, formError("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
		}
		m.Reference = in.Reference.MessageID
	}
	ch.messages = append(ch.messages, m)
	return 200, s.messageView(m), nil
}

func (s *Server) editMessage(m *Message, c *call, webhook bool) (int, any, *apiError) {
	var in input
	if err := decode(c, &in); err != nil {
		return 0, nil, err
	}
	if m.Ephemeral && !webhook {
		return 0, nil, failure(http.StatusNotFound, 10008, "Unknown Message")
	}
	changed := *m
	if err := s.apply(&changed, &in, c, mentionDefaults{everyone: !webhook, roles: !webhook, users: true}); err != nil {
		return 0, nil, err
	}
	changed.Pinged, changed.Everyone = m.Pinged, m.Everyone // edits notify nobody
	changed.WouldPing = m.WouldPing || in.AllowedMentions == nil && in.Content != nil && mentionRE.MatchString(*in.Content)
	changed.Edits, changed.Edited, changed.Deferred = m.Edits+1, s.Now(), false
	*m = changed
	return 200, s.messageView(m), nil
}

type mentionDefaults struct{ everyone, roles, users bool }

var mentionRE = regexp.MustCompile(`@everyone|@here|<@&(\d+)>|<@!?(\d+)>`)

// apply puts an input into a message after checking every limit.
func (s *Server) apply(m *Message, in *input, c *call, def mentionDefaults) *apiError {
	if in.Content != nil {
		m.Content = strings.TrimSpace(*in.Content)
	}
	if in.Embeds != nil {
		m.Embeds = *in.Embeds
	}
	if in.Components != nil {
		m.Components = *in.Components
	}
	if in.Flags != nil {
		m.Flags = *in.Flags
	}
	if err := s.attach(m, in, c); err != nil {
		return err
	}
	if tree := validateMessage(m); tree != nil {
		return &apiError{status: http.StatusBadRequest, code: 50035, text: "Invalid Form Body", tree: tree}
	}
	if m.Content == "" && len(m.Attachments) == 0 && emptyList(m.Embeds) && emptyList(m.Components) {
		return failure(http.StatusBadRequest, 50006, "Cannot send an empty message")
	}
	return m.mention(in.AllowedMentions, def)
}

func emptyList(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null" || string(raw) == "[]"
}

// mention works out who is notified.
func (m *Message) mention(a *mentions, def mentionDefaults) *apiError {
	var allowed func(kind, id string) bool
	if a == nil {
		allowed = func(kind, _ string) bool {
			return kind == "everyone" && def.everyone || kind == "roles" && def.roles || kind == "users" && def.users
		}
	} else {
		if slices.Contains(a.Parse, "users") && len(a.Users) > 0 || slices.Contains(a.Parse, "roles") && len(a.Roles) > 0 {
			return formError("allowed_mentions", "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", "parse:[\"users\"] and users: [ids...] are mutually exclusive.")
		}
		if len(a.Users) > 100 || len(a.Roles) > 100 {
			return formError("allowed_mentions", "BASE_TYPE_MAX_LENGTH", "Must be 100 or fewer in length.")
		}
		allowed = func(kind, id string) bool {
			return slices.Contains(a.Parse, kind) || kind == "users" && slices.Contains(a.Users, id) || kind == "roles" && slices.Contains(a.Roles, id)
		}
	}
	m.Pinged, m.Everyone = nil, false
	for _, f := range mentionRE.FindAllStringSubmatch(m.Content, -1) {
		switch {
		case f[2] != "" && allowed("users", f[2]):
			m.Pinged = append(m.Pinged, f[2])
		case f[1] != "" && allowed("roles", f[1]):
			m.Pinged = append(m.Pinged, "&"+f[1])
		case f[1] == "" && f[2] == "" && allowed("everyone", ""):
			m.Everyone = true
		}
	}
	return nil
}

// MaxFile is the size limit of one file, in bytes (a server without boosts).
const MaxFile = 10 << 20

func (s *Server) attach(m *Message, in *input, c *call) *apiError {
	if in.Attachments != nil { // an edit keeps only those that are listed
		kept := m.Attachments[:0:0]
		for _, a := range m.Attachments {
			if slices.ContainsFunc(*in.Attachments, func(l Attachment) bool { return l.ID == a.ID }) {
				kept = append(kept, a)
			}
		}
		m.Attachments = kept
	}
	total := 0
	for _, f := range c.files {
		total += len(f.data)
		if len(f.data) > MaxFile || total > maxRequest {
			return failure(http.StatusRequestEntityTooLarge, 40005, "Request entity too large")
		}
		n, ok := strings.CutPrefix(f.field, "files[")
		if !ok {
			return formError("files", "INVALID", "unknown form field "+f.field)
		}
		n = strings.TrimSuffix(n, "]")
		a := Attachment{ID: s.id(), Filename: f.name, Size: len(f.data), ContentType: f.mediaType, Data: f.data}
		if in.Attachments != nil {
			for _, l := range *in.Attachments {
				if l.ID == n {
					a.Description = l.Description
				}
			}
		}
		a.URL = fmt.Sprintf("%s/cdn/%s/%s", s.Address(), a.ID, a.Filename)
		s.cdn[fmt.Sprintf("/cdn/%s/%s", a.ID, a.Filename)] = f.data
		m.Attachments = append(m.Attachments, a)
	}
	if len(m.Attachments) > 10 {
		return failure(http.StatusBadRequest, 30015, "Maximum number of attachments in a message reached (10)")
	}
	return nil
}

// UnmarshalJSON takes ids as numbers, as uploads name them, and as strings.
func (a *Attachment) UnmarshalJSON(b []byte) error {
	var in struct {
		ID          any    `json:"id"`
		Filename    string `json:"filename"`
		Description string `json:"description"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	switch id := in.ID.(type) {
	case string:
		a.ID = id
	case float64:
		a.ID = strconv.Itoa(int(id))
	}
	a.Filename, a.Description = in.Filename, in.Description
	return nil
}

func (s *Server) history(ch *Channel, c *call) []any {
	limit := 50
	if l := c.query["limit"]; len(l) > 0 {
		limit, _ = strconv.Atoi(l[0])
	}
	out := []any{}
	for i := len(ch.messages) - 1; i >= 0 && len(out) < limit; i-- {
		if m := ch.messages[i]; !m.Deleted && !m.Ephemeral {
			out = append(out, s.messageView(m))
		}
	}
	return out
}

func (s *Server) messageView(m *Message) map[string]any {
	author := s.botUser()
	if m.Author != s.BotID {
		author = map[string]any{"id": m.Author, "username": "person", "discriminator": "0", "global_name": nil, "avatar": nil}
	}
	list := func(raw json.RawMessage) any {
		if emptyList(raw) {
			return []any{}
		}
		return raw
	}
	flags := m.Flags
	if m.Ephemeral {
		flags |= 1 << 6
	}
	if m.Deferred {
		flags |= 1 << 7
	}
	v := map[string]any{
		"id": m.ID, "channel_id": m.Channel, "author": author, "content": m.Content, "type": 0,
		"timestamp": m.Created.UTC().Format(time.RFC3339Nano), "edited_timestamp": nil,
		"tts": false, "mention_everyone": m.Everyone, "mentions": []any{}, "mention_roles": []any{},
		"attachments": append([]Attachment{}, m.Attachments...), "embeds": list(m.Embeds), "components": list(m.Components),
		"pinned": false, "flags": flags,
	}
	if m.Nonce != "" {
		v["nonce"] = m.Nonce
	}
	if !m.Edited.IsZero() {
		v["edited_timestamp"] = m.Edited.UTC().Format(time.RFC3339Nano)
	}
	return v
}
