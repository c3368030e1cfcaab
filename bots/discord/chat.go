package discord

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
)

// The lengths that Discord accepts, in code points.
const (
	maxContent = 2000
	maxURL     = 512
	maxLabel   = 80
	maxAlt     = 1024
)

// Message flags.
const (
	suppressEmbeds = 1 << 2
	ephemeral      = 1 << 6
)

// encoder writes texts for Discord: what people typed is escaped, so that it
// neither formats nor mentions nor links under another name.
var encoder = bots.Encoder{
	User:   escape,
	When:   func(t time.Time) string { return fmt.Sprintf("<t:%d:R>", t.Unix()) },
	Person: func(id string) string { return "<@" + id + ">" },
}

// escape puts a backslash before everything that Discord gives a meaning.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\*_~`|>#-[]()<:@", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// message is the body of creates and edits.
type message struct {
	Content         string        `json:"content"`
	Flags           int           `json:"flags,omitempty"`
	AllowedMentions mentions      `json:"allowed_mentions"`
	Components      []row         `json:"components"`
	Attachments     *[]attachment `json:"attachments,omitempty"`
	Nonce           string        `json:"nonce,omitempty"`
	EnforceNonce    bool          `json:"enforce_nonce,omitempty"`
}

type mentions struct {
	Parse []string `json:"parse"`
	Users []string `json:"users,omitempty"`
}

type attachment struct {
	ID          int    `json:"id"`
	Filename    string `json:"filename"`
	Description string `json:"description,omitempty"`
}

type row struct {
	Type       int       `json:"type"`
	Components []element `json:"components"`
}

type element struct {
	Type        int    `json:"type"`
	Style       int    `json:"style,omitempty"`
	Label       string `json:"label,omitempty"`
	CustomID    string `json:"custom_id,omitempty"`
	URL         string `json:"url,omitempty"`
	Placeholder string `json:"placeholder,omitempty"`
	Required    *bool  `json:"required,omitempty"`
	MinLength   int    `json:"min_length,omitempty"`
	MaxLength   int    `json:"max_length,omitempty"`
	Value       string `json:"value,omitempty"`
	Options     []pick `json:"options,omitempty"`
}

type pick struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

// build forms a message without its files. allowed_mentions is always there: an
// edit without it would read mentions anew.
func build(m *bots.Message) message {
	out := message{AllowedMentions: mentions{Parse: []string{}}, Flags: suppressEmbeds, Components: []row{}}
	text := encoder.Encode(m.Text)
	if len(m.Fields) > 0 {
		parts := make([]string, len(m.Fields))
		for i, f := range m.Fields {
			parts[i] = f.Name + ": " + encoder.Encode(f.Value)
		}
		text += "\n-# " + strings.Join(parts, " · ")
	}
	if m.Mention != "" {
		out.AllowedMentions.Users = []string{m.Mention}
	}
	var inText strings.Builder
	for _, b := range m.Buttons {
		e := element{Type: 2, Label: bots.Cut(b.Label, maxLabel)}
		switch {
		case b.URL == "":
			e.CustomID = b.ID
			e.Style = map[bots.Style]int{bots.Primary: 1, bots.Secondary: 2, bots.Danger: 4}[b.Style]
		case len(b.URL) <= maxURL && bots.Reachable(b.URL):
			e.URL, e.Style = b.URL, 5
		default: // too long for a button, as a signed address may be, or not to be reached from everywhere
			line := "\n" + b.Label + ": <" + b.URL + ">"
			if utf8.RuneCountInString(inText.String()+line) <= maxContent-minText {
				inText.WriteString(line)
			}
			continue
		}
		n := len(out.Components)
		if n == 0 || len(out.Components[n-1].Components) == 5 {
			if n == maxRows {
				continue
			}
			out.Components = append(out.Components, row{Type: 1})
			n++
		}
		last := &out.Components[n-1]
		last.Components = append(last.Components, e)
	}
	if m.Menu != nil && len(out.Components) < maxRows {
		e := element{Type: 3, CustomID: menuID, Placeholder: bots.Cut(m.Menu.Label, 150)}
		for _, o := range m.Menu.Options[:min(len(m.Menu.Options), 25)] {
			e.Options = append(e.Options, pick{bots.Cut(o.Label, 100), o.ID})
		}
		out.Components = append(out.Components, row{Type: 1, Components: []element{e}})
	}
	links := inText.String()
	out.Content = bots.Cut(text, maxContent-utf8.RuneCountInString(links)) + links
	return out
}

const (
	maxRows = 5
	minText = 500 // of a message, whatever its links need
	menuID  = "v1:menu"
)

// withFiles reads the files into uploads and lists them in the message. One
// that cannot be read is left out: the message matters more.
func (b *Bot) withFiles(ctx context.Context, m *bots.Message, out *message) []upload {
	if m.Files == nil {
		return nil
	}
	var files []upload
	list := []attachment{}
	for _, f := range m.Files {
		data, err := f.Read(ctx)
		if err != nil {
			b.log.Warn("a file could not be read", "name", f.Name, "err", err)
			continue
		}
		if f.Spoiler {
			f.Name = "SPOILER_" + f.Name // which is how Discord covers a picture
		}
		alt := bots.Cut(bots.PlainText.Encode(f.Alt), maxAlt)
		list = append(list, attachment{ID: len(files), Filename: f.Name, Description: alt})
		files = append(files, upload{name: f.Name, mediaType: f.MediaType, alt: alt, data: data})
	}
	out.Attachments = &list
	return files
}

type posted struct {
	ID        string `json:"id"`
	ChannelID string `json:"channel_id"`
}

// Post makes a new message. Discord returns the first message for a nonce that
// it has seen in the last few minutes.
func (b *Bot) Post(ctx context.Context, to bots.Spot, m bots.Message, nonce string) (bots.Posted, error) {
	body := build(&m)
	files := b.withFiles(ctx, &m, &body)
	body.Nonce, body.EnforceNonce = nonce, nonce != ""
	channel := to.Channel
	if to.Thread != "" {
		channel = to.Thread
	}
	var p posted
	err := b.rest.do(ctx, call{
		method: http.MethodPost, path: "/channels/" + channel + "/messages", body: body, files: files, into: &p,
		bucket: "post/" + to.Channel,
	})
	if e, ok := err.(*bots.ChatError); ok && to.Thread != "" && code(err) == 10003 {
		e.Trouble = bots.TroubleThread // deleted; its channel may be there
	}
	return bots.Posted{Spot: to, ID: p.ID}, err
}

// Edit replaces a message by the bot token, which works at any age of it.
func (b *Bot) Edit(ctx context.Context, p bots.Posted, m bots.Message) error {
	body := build(&m)
	files := b.withFiles(ctx, &m, &body)
	channel := p.Channel
	if p.Thread != "" {
		channel = p.Thread
	}
	return b.rest.do(ctx, call{
		method: http.MethodPatch, path: "/channels/" + channel + "/messages/" + p.ID, body: body, files: files,
		bucket: "edit/" + p.Channel,
	})
}

// Direct opens the private conversation with a person.
func (b *Bot) Direct(ctx context.Context, user string) (bots.Spot, error) {
	var p posted
	err := b.rest.do(ctx, call{
		method: http.MethodPost, path: "/users/@me/channels", body: map[string]string{"recipient_id": user}, into: &p, bucket: "direct",
	})
	return bots.Spot{Channel: p.ID}, err
}

// Find looks for the nonce among the last hundred messages.
func (b *Bot) Find(ctx context.Context, in bots.Spot, nonce string, since time.Time) (bots.Posted, bool, error) {
	channel := in.Channel
	if in.Thread != "" {
		channel = in.Thread
	}
	var list []struct {
		posted
		Nonce     any       `json:"nonce"`
		Timestamp time.Time `json:"timestamp"`
		Author    posted    `json:"author"`
	}
	err := b.rest.do(ctx, call{method: http.MethodGet, path: "/channels/" + channel + "/messages?limit=100", into: &list, bucket: "find/" + in.Channel})
	if e, ok := err.(*bots.ChatError); ok && e.Trouble == bots.TroublePlace { // may not read history: the nonce still protects for minutes
		e.Trouble = bots.TroubleLook
		return bots.Posted{}, false, e
	}
	if err != nil {
		return bots.Posted{}, false, err
	}
	for _, m := range list {
		if fmt.Sprint(m.Nonce) == nonce && !m.Timestamp.Before(since) {
			return bots.Posted{Spot: in, ID: m.ID}, true, nil
		}
	}
	return bots.Posted{}, false, nil
}

// globalBucket is the limit of the whole bot.
const globalBucket = "global"

// Buckets names the limits that an operation counts towards.
func (b *Bot) Buckets(k delivery.Kind, channel string) []string {
	switch k {
	case delivery.OpenDirect:
		return []string{"direct", globalBucket}
	case delivery.ShowViews:
		k = delivery.EditMessage
	}
	return []string{string(k) + "/" + channel, globalBucket}
}

// Rate is a cautious guess until Discord says more: 50 a second in all, of which
// interaction answers need none, and 5 in 5 s a channel.
func (b *Bot) Rate(bucket string) (perSecond float64, burst int) {
	switch {
	case bucket == globalBucket:
		return 35, 10
	case bucket == "direct":
		return 1, 5
	case strings.HasPrefix(bucket, "find/"):
		return 0, 0
	}
	return 0.9, 4
}
