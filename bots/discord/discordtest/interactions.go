package discordtest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// The interaction types.
const (
	typePing         = 1
	typeCommand      = 2
	typeComponent    = 3
	typeAutocomplete = 4
	typeModal        = 5
)

// The lives of an interaction's token.
const (
	AckWindow = 3 * time.Second
	TokenLife = 15 * time.Minute
)

// SetAckWindow widens the time for the first answer, for tests that measure
// something else on a machine of any speed.
func (s *Server) SetAckWindow(d time.Duration) { s.mu.Lock(); defer s.mu.Unlock(); s.ackWindow = d }

// Interaction is something a person did.
type Interaction struct {
	ID, Token string
	Type      int
	Channel   string
	User      string
	Created   time.Time
	Answered  time.Time // zero: not yet
	Kind      int       // of the answer (callback type)
	Data      json.RawMessage
	Original  *Message
	source    *Message // whose component was used
	deferred  bool
	follows   int
	payload   map[string]any
}

// Person is who does something, and where.
type Person struct {
	ID      string
	Channel string
	Locale  string
	Roles   []string
	// Permissions of the bot in the channel; empty grants all that it needs.
	AppPermissions string
	// UserInstall: the application was installed by the person alone.
	UserInstall bool
	Attachments map[string]Upload // option attachments by id
}

// Upload is a file that a person attaches to a command.
type Upload struct {
	Name string
	Data []byte
}

// enough is every permission that a bot needs to answer.
const enough = "274878024704"

func (s *Server) begin(p Person, kind int, data map[string]any) *Interaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.channels[p.Channel]
	if ch == nil {
		id := s.directs[p.ID]
		if id == "" {
			id = s.id()
			s.directs[p.ID] = id
			s.channels[id] = &Channel{ID: id, User: p.ID}
		}
		ch = s.channels[id]
	}
	id := s.id()
	in := &Interaction{ID: id, Token: "aW50" + id, Type: kind, Channel: ch.ID, User: p.ID, Created: s.Now()}
	user := map[string]any{"id": p.ID, "username": "person" + p.ID, "discriminator": "0", "global_name": nil, "avatar": nil}
	locale := p.Locale
	if locale == "" {
		locale = "en-US"
	}
	perms := p.AppPermissions
	if perms == "" {
		perms = enough
	}
	v := map[string]any{
		"id": id, "application_id": s.AppID, "type": kind, "token": in.Token, "version": 1,
		"channel_id": ch.ID, "channel": ch.view(), "locale": locale, "app_permissions": perms,
		"entitlements": []any{}, "attachment_size_limit": MaxFile,
		"authorizing_integration_owners": map[string]string{"0": ch.Guild},
	}
	if data != nil {
		v["data"] = data
	}
	if p.UserInstall {
		v["authorizing_integration_owners"] = map[string]string{"1": p.ID}
	}
	if ch.Guild != "" {
		v["guild_id"], v["context"], v["guild_locale"] = ch.Guild, 0, "en-US"
		v["guild"] = map[string]any{"id": ch.Guild, "locale": "en-US", "features": []string{}}
		v["member"] = map[string]any{"user": user, "roles": append([]string{}, p.Roles...), "permissions": "2147483647",
			"joined_at": "2024-01-01T00:00:00Z", "deaf": false, "mute": false, "flags": 0, "pending": false,
			"avatar": nil, "nick": nil, "premium_since": nil, "communication_disabled_until": nil}
	} else {
		v["user"], v["context"] = user, 1
	}
	in.payload = v
	s.interactions[id], s.tokens[in.Token] = in, in
	return in
}

// Command lets a person use a slash command; the names in options may be
// "sub.option" for a subcommand. It is sent through the gateway.
func (s *Server) Command(p Person, name string, options map[string]any) *Interaction {
	return s.send(s.begin(p, typeCommand, s.commandData(p, name, options, "")))
}

// Autocomplete sends what a person typed so far in one option.
func (s *Server) Autocomplete(p Person, name string, options map[string]any, focused string) *Interaction {
	return s.send(s.begin(p, typeAutocomplete, s.commandData(p, name, options, focused)))
}

func (s *Server) commandData(p Person, name string, options map[string]any, focused string) map[string]any {
	data := map[string]any{"id": "1", "name": name, "type": 1}
	var list, subs []any
	var sub string
	for _, k := range slices.Sorted(maps.Keys(options)) {
		v, kind := options[k], 3
		switch x := v.(type) {
		case bool:
			kind = 5
		case int:
			kind = 4
		case Upload:
			kind = 11
			s.mu.Lock()
			id := s.id()
			path := "/cdn/" + id + "/" + x.Name
			s.cdn[path] = x.Data
			data["resolved"] = map[string]any{"attachments": map[string]any{id: map[string]any{
				"id": id, "filename": x.Name, "size": len(x.Data), "url": s.Address() + path, "proxy_url": s.Address() + path}}}
			s.mu.Unlock()
			v = id
		}
		bare := k
		for i := range k {
			if k[i] == '.' {
				sub, bare = k[:i], k[i+1:]
			}
		}
		o := map[string]any{"name": bare, "type": kind, "value": v}
		if k == focused {
			o["focused"] = true
		}
		if bare == "" { // "sub." is a subcommand without options
			continue
		}
		if sub != "" {
			subs = append(subs, o)
		} else {
			list = append(list, o)
		}
	}
	if sub != "" {
		list = append(list, map[string]any{"name": sub, "type": 1, "options": append([]any{}, subs...)})
	}
	data["options"] = append([]any{}, list...)
	return data
}

// Click lets a person use a component of a message.
func (s *Server) Click(p Person, m Message, customID string) *Interaction {
	in := s.begin(p, typeComponent, map[string]any{"custom_id": customID, "component_type": typeButton, "values": []string{}})
	s.mu.Lock()
	if ch := s.channels[m.Channel]; ch != nil {
		in.source = ch.find(m.ID)
	}
	in.payload["message"] = s.messageView(&m)
	s.mu.Unlock()
	return s.send(in)
}

// Pick lets a person choose from a select menu of a message.
func (s *Server) Pick(p Person, m Message, customID, value string) *Interaction {
	in := s.begin(p, typeComponent, map[string]any{"custom_id": customID, "component_type": typeSelect, "values": []string{value}})
	s.mu.Lock()
	in.payload["message"] = s.messageView(&m)
	s.mu.Unlock()
	return s.send(in)
}

// Submit sends a filled-in modal.
func (s *Server) Submit(p Person, customID string, values map[string]string) *Interaction {
	var rows []any
	for _, k := range slices.Sorted(maps.Keys(values)) {
		rows = append(rows, map[string]any{"type": typeRow, "components": []any{map[string]any{"type": typeInput, "custom_id": k, "value": values[k]}}})
	}
	return s.send(s.begin(p, typeModal, map[string]any{"custom_id": customID, "components": rows}))
}

func (s *Server) send(in *Interaction) *Interaction {
	s.gw.dispatch("INTERACTION_CREATE", in.payload)
	return in
}

// Payload is the interaction as it is sent, for applications that are fed by hand.
func (s *Server) Payload(in *Interaction) json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(in.payload)
	if err != nil {
		panic(err) // our own data
	}
	return text
}

// Answer is the state of an interaction's answer: callback type (0: none yet),
// its data, and the message that shows it.
func (s *Server) Answer(in *Interaction) (kind int, data json.RawMessage, original *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Original != nil {
		m := *in.Original
		original = &m
	}
	return in.Kind, in.Data, original
}

// WaitAnswer waits until the interaction is answered with more than a defer.
func (s *Server) WaitAnswer(in *Interaction, d time.Duration) (kind int, data json.RawMessage, original *Message) {
	s.Wait(d, func() bool {
		k, _, m := s.Answer(in)
		return k != 0 && (m == nil || !m.Deferred)
	})
	return s.Answer(in)
}

// AckTime is how long the application took to answer, on the server's clock.
func (s *Server) AckTime(in *Interaction) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Answered.IsZero() {
		return -1
	}
	return in.Answered.Sub(in.Created)
}

func (s *Server) callback(c *call, id, token string) (int, any, *apiError) {
	in := s.interactions[id]
	switch {
	case in == nil || in.Token != token:
		return 0, nil, failure(http.StatusNotFound, 10062, "Unknown interaction")
	case !in.Answered.IsZero():
		return 0, nil, failure(http.StatusBadRequest, 40060, "Interaction has already been acknowledged.")
	case s.Now().Sub(in.Created) > s.ackWindow:
		return 0, nil, failure(http.StatusNotFound, 10062, "Unknown interaction")
	}
	if err := s.respond(in, c); err != nil {
		return 0, nil, err
	}
	if q := c.query["with_response"]; len(q) > 0 && q[0] == "true" && in.Original != nil {
		return 200, map[string]any{
			"interaction": map[string]any{"id": in.ID, "type": in.Type, "response_message_id": in.Original.ID},
			"resource":    map[string]any{"type": in.Kind, "message": s.messageView(in.Original)},
		}, nil
	}
	return 204, nil, nil
}

// respond takes an answer; it is the same by callback and in the HTTP body.
func (s *Server) respond(in *Interaction, c *call) *apiError {
	var body struct {
		Type int             `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	allowed := map[int][]int{
		typePing: {1}, typeCommand: {4, 5, 9}, typeComponent: {4, 5, 6, 7, 9}, typeAutocomplete: {8}, typeModal: {4, 5, 6, 7},
	}
	if !slices.Contains(allowed[in.Type], body.Type) {
		return formError("type", "INTERACTION_APPLICATION_COMMAND_CALLBACK_TYPE_INVALID", fmt.Sprintf("callback type %d does not fit interaction type %d", body.Type, in.Type))
	}
	inner := &call{method: c.method, path: c.path, payload: body.Data, files: c.files}
	if len(inner.payload) == 0 {
		inner.payload = []byte("{}")
	}
	switch body.Type {
	case 4, 5:
		if err := s.respondMessage(in, inner, body.Type == 5); err != nil {
			return err
		}
	case 7:
		if in.source != nil {
			if _, _, err := s.editMessage(in.source, inner, true); err != nil {
				return err
			}
			in.Original = in.source
		}
	case 6:
		in.Original = in.source
	case 8:
		if err := checkChoices(body.Data); err != nil {
			return err
		}
	case 9:
		if err := checkModal(body.Data); err != nil {
			return err
		}
	}
	in.Kind, in.Data, in.Answered = body.Type, body.Data, s.Now()
	return nil
}

func (s *Server) respondMessage(in *Interaction, c *call, deferred bool) *apiError {
	var msg input
	if err := decode(c, &msg); err != nil {
		return err
	}
	m := &Message{ID: s.id(), Channel: in.Channel, Author: s.BotID, Created: s.Now(), Deferred: deferred}
	if msg.Flags != nil && *msg.Flags&(1<<6) != 0 {
		m.Ephemeral, m.For = true, in.User
	}
	if !deferred {
		if err := s.apply(m, &msg, c, mentionDefaults{users: true}); err != nil {
			return err
		}
	}
	in.Original, in.deferred = m, deferred
	s.channels[in.Channel].messages = append(s.channels[in.Channel].messages, m)
	return nil
}

func checkChoices(data json.RawMessage) *apiError {
	var body struct {
		Choices []struct {
			Name  string `json:"name"`
			Value any    `json:"value"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return failure(400, 50109, "The request body contains invalid JSON.")
	}
	var c checker
	if len(body.Choices) > 25 {
		c.add("data.choices", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
	}
	for i, ch := range body.Choices {
		c.length("data.choices."+strconv.Itoa(i)+".name", ch.Name, 1, 100)
	}
	return c.err()
}

func checkModal(data json.RawMessage) *apiError {
	var body struct {
		Title      string      `json:"title"`
		CustomID   string      `json:"custom_id"`
		Components []component `json:"components"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return failure(400, 50109, "The request body contains invalid JSON.")
	}
	var c checker
	c.length("data.title", body.Title, 1, 45)
	c.length("data.custom_id", body.CustomID, 1, 100)
	if len(body.Components) == 0 {
		c.add("data.components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
	}
	c.rows(body.Components, true)
	return c.err()
}

func (c *checker) err() *apiError {
	if c.tree == nil {
		return nil
	}
	return &apiError{status: 400, code: 50035, text: "Invalid Form Body", tree: c.tree}
}

// webhook serves the token's endpoints: follow-ups and the original answer.
func (s *Server) webhook(c *call) (int, any, *apiError) {
	in := s.tokens[c.path[2]]
	switch {
	case in == nil:
		return 0, nil, failure(http.StatusNotFound, 10015, "Unknown Webhook")
	case in.Answered.IsZero():
		return 0, nil, failure(http.StatusNotFound, 10015, "Unknown Webhook")
	case s.Now().Sub(in.Created) > TokenLife:
		return 0, nil, failure(http.StatusUnauthorized, 50027, "Invalid Webhook Token")
	}
	if c.method == "POST" && len(c.path) == 3 {
		if in.deferred { // the first follow-up edits the deferred answer
			in.deferred = false
			return s.editMessage(in.Original, c, true)
		}
		if owners, _ := in.payload["authorizing_integration_owners"].(map[string]string); owners["1"] != "" && owners["0"] == "" {
			if in.follows++; in.follows > 5 {
				return 0, nil, failure(http.StatusBadRequest, 40094, "Maximum number of follow up messages reached for this interaction")
			}
		}
		var msg input
		if err := decode(c, &msg); err != nil {
			return 0, nil, err
		}
		m := &Message{ID: s.id(), Channel: in.Channel, Author: s.BotID, Created: s.Now()}
		if msg.Flags != nil && *msg.Flags&(1<<6) != 0 {
			m.Ephemeral, m.For = true, in.User
		}
		if err := s.apply(m, &msg, c, mentionDefaults{users: true}); err != nil {
			return 0, nil, err
		}
		s.channels[in.Channel].messages = append(s.channels[in.Channel].messages, m)
		return 200, s.messageView(m), nil
	}
	if len(c.path) != 5 || c.path[3] != "messages" {
		return 0, nil, failure(http.StatusNotFound, 0, "404: Not Found")
	}
	m := in.Original
	if c.path[4] != "@original" {
		m = s.channels[in.Channel].find(c.path[4])
	}
	if m == nil || m.Deleted {
		return 0, nil, failure(http.StatusNotFound, 10008, "Unknown Message")
	}
	switch c.method {
	case "GET":
		return 200, s.messageView(m), nil
	case "PATCH":
		in.deferred = false
		return s.editMessage(m, c, true)
	case "DELETE":
		m.Deleted = true
		return 204, nil, nil
	}
	return 0, nil, failure(http.StatusMethodNotAllowed, 0, "405: Method Not Allowed")
}

// SignedRequest posts a payload to an application's HTTP endpoint as Discord
// does. With a wrong signature (good false) applications must answer 401.
func (s *Server) SignedRequest(url string, payload any, at time.Time, good bool) (status int, body []byte, err error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return 0, nil, err
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	sig := ed25519.Sign(s.private, append([]byte(stamp), text...))
	if !good {
		sig[0] ^= 0xff
	}
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Signature-Ed25519", hex.EncodeToString(sig))
	req.Header.Set("X-Signature-Timestamp", stamp)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// CommandHTTP lets a person use a command when the application has an HTTP
// endpoint; the answer in the body counts as the callback.
func (s *Server) CommandHTTP(url string, p Person, name string, options map[string]any) (*Interaction, int, error) {
	in := s.begin(p, typeCommand, s.commandData(p, name, options, ""))
	status, body, err := s.SignedRequest(url, in.payload, time.Now(), true)
	if err != nil || status != http.StatusOK {
		return in, status, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if aerr := s.respond(in, &call{method: "POST", payload: body}); aerr != nil {
		return in, status, aerr
	}
	s.Touch()
	return in, status, nil
}
