package slacktest

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

type block struct {
	Type     string          `json:"type"`
	BlockID  string          `json:"block_id"`
	Text     *textObject     `json:"text"`
	Fields   []textObject    `json:"fields"`
	Elements json.RawMessage `json:"elements"`
	Alt      string          `json:"alt_text"`
	ImageURL string          `json:"image_url"`
	File     *struct {
		ID, URL string
	} `json:"slack_file"`
	Label   *textObject     `json:"label"`
	Element json.RawMessage `json:"element"`
}

type textObject struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type element struct {
	Type     string          `json:"type"`
	ActionID string          `json:"action_id"`
	Value    string          `json:"value"`
	URL      string          `json:"url"`
	Style    string          `json:"style"`
	Text     json.RawMessage `json:"text"`
	UserID   string          `json:"user_id"`
	Range    string          `json:"range"`
	Elements []element       `json:"elements"`
	Options  []struct {
		Text  textObject
		Value string
	} `json:"options"`
	Confirm *struct {
		Title, Text, Confirm, Deny textObject
	} `json:"confirm"`
}

// The limits of Block Kit.
const (
	maxBlocks     = 50
	maxViewBlocks = 100
	maxTotal      = 13_000 // characters at which msg_blocks_too_long was seen
)

// checkBlocks checks a message's blocks and works out whom it notifies.
func (s *Server) checkBlocks(m *Message) error {
	m.Pinged, m.Everyone = nil, false
	if len(m.Blocks) == 0 || string(m.Blocks) == "null" {
		for _, f := range pingRE.FindAllStringSubmatch(m.Text, -1) {
			m.notify(f[1], f[2])
		}
		return nil
	}
	var blocks []block
	if err := json.Unmarshal(m.Blocks, &blocks); err != nil {
		return slackError("invalid_blocks_format")
	}
	if len(blocks) > maxBlocks {
		return slackError("invalid_blocks")
	}
	total := 0
	seen := map[string]bool{}
	for i := range blocks {
		b := &blocks[i]
		if b.BlockID != "" && seen[b.BlockID] || len(b.BlockID) > 255 {
			return slackError("invalid_blocks")
		}
		seen[b.BlockID] = true
		n, err := s.checkBlock(b, m)
		if err != nil {
			return err
		}
		total += n
	}
	if total > maxTotal {
		return slackError("msg_blocks_too_long")
	}
	return nil
}

func (m *Message) notify(all, user string) {
	if all != "" {
		m.Everyone = true
	} else if user != "" {
		m.Pinged = append(m.Pinged, user)
	}
}

func (s *Server) checkBlock(b *block, m *Message) (int, error) {
	bad := slackError("invalid_blocks")
	switch b.Type {
	case "section":
		if b.Text == nil && len(b.Fields) == 0 || b.Text != nil && (b.Text.Text == "" || utf8.RuneCountInString(b.Text.Text) > 3000) || len(b.Fields) > 10 {
			return 0, bad
		}
		if b.Text != nil {
			if b.Text.Type == "mrkdwn" {
				for _, f := range pingRE.FindAllStringSubmatch(b.Text.Text, -1) {
					m.notify(f[1], f[2])
				}
			}
			return utf8.RuneCountInString(b.Text.Text), nil
		}
	case "context":
		var list []element
		if err := json.Unmarshal(b.Elements, &list); err != nil || len(list) == 0 || len(list) > 10 {
			return 0, bad
		}
	case "image":
		if b.Alt == "" || utf8.RuneCountInString(b.Alt) > 2000 || b.ImageURL == "" && b.File == nil {
			return 0, bad
		}
		if strings.HasPrefix(b.ImageURL, "http://127.") || strings.HasPrefix(b.ImageURL, "http://localhost") {
			return 0, bad // Slack cannot fetch it
		}
		if b.File != nil {
			f := s.files[b.File.ID]
			if f == nil || !f.Complete || s.Now().Before(f.ReadyAt) {
				return 0, bad // "invalid slack file"
			}
		}
	case "actions":
		var list []element
		if err := json.Unmarshal(b.Elements, &list); err != nil || len(list) == 0 || len(list) > 25 {
			return 0, bad
		}
		return 0, checkButtons(list)
	case "rich_text":
		var sections []element
		if err := json.Unmarshal(b.Elements, &sections); err != nil || len(sections) == 0 {
			return 0, bad
		}
		n := 0
		for _, sec := range sections {
			for _, e := range sec.Elements {
				var text string
				if e.Text != nil {
					_ = json.Unmarshal(e.Text, &text)
				}
				switch e.Type {
				case "text":
					if text == "" {
						return 0, bad
					}
				case "user":
					m.notify("", e.UserID)
				case "broadcast":
					m.notify(e.Range, "")
				case "date", "link", "emoji":
				default:
					return 0, bad
				}
				n += utf8.RuneCountInString(text)
			}
		}
		return n, nil
	case "divider", "header", "markdown":
	default:
		return 0, bad
	}
	return 0, nil
}

func checkButtons(list []element) error {
	bad := slackError("invalid_blocks")
	seen := map[string]bool{}
	for _, e := range list {
		var text textObject
		if e.Type == "button" {
			if err := json.Unmarshal(e.Text, &text); err != nil || text.Type != "plain_text" || text.Text == "" || utf8.RuneCountInString(text.Text) > 75 {
				return bad
			}
		}
		if e.Type == "static_select" {
			if len(e.Options) == 0 || len(e.Options) > 100 {
				return bad
			}
			for _, o := range e.Options {
				if o.Text.Type != "plain_text" || o.Text.Text == "" || utf8.RuneCountInString(o.Text.Text) > 75 || len(o.Value) > 150 {
					return bad
				}
			}
		}
		if seen[e.ActionID] && e.ActionID != "" || len(e.ActionID) > 255 || len(e.Value) > 2000 || len(e.URL) > 3000 {
			return bad
		}
		if e.Style != "" && e.Style != "primary" && e.Style != "danger" {
			return bad
		}
		if c := e.Confirm; c != nil && (len(c.Title.Text) > 100 || len(c.Text.Text) > 300 || len(c.Confirm.Text) > 30 || len(c.Deny.Text) > 30 || c.Title.Text == "") {
			return bad
		}
		seen[e.ActionID] = true
	}
	return nil
}

func (s *Server) openView(c *call) (map[string]any, error) {
	in := s.commands[c.str("trigger_id")]
	if in == nil || in.triggered {
		return nil, slackError("invalid_trigger_id")
	}
	if s.Now().Sub(in.Created) > AckWindow {
		return nil, slackError("expired_trigger_id")
	}
	raw := c.raw("view")
	var v struct {
		Type, CallbackID     string
		Title, Submit, Close *textObject
		Blocks               []block
		PrivateMetadata      string `json:"private_metadata"`
	}
	if err := json.Unmarshal(raw, &v); err != nil || v.Type != "modal" || v.Title == nil || len(v.Blocks) == 0 || len(v.Blocks) > maxViewBlocks {
		return nil, slackError("invalid_arguments")
	}
	for name, t := range map[string]*textObject{"title": v.Title, "submit": v.Submit, "close": v.Close} {
		if t != nil && utf8.RuneCountInString(t.Text) > 24 {
			return nil, slackError(fmt.Sprintf("invalid_arguments: %s", name))
		}
	}
	if len(v.PrivateMetadata) > 3000 {
		return nil, slackError("invalid_arguments")
	}
	in.triggered = true
	s.views = append(s.views, raw)
	return map[string]any{"view": map[string]any{"id": s.id("V")}}, nil
}
