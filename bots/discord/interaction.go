package discord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// The interaction types and the types of answers.
const (
	typePing         = 1
	typeCommand      = 2
	typeComponent    = 3
	typeAutocomplete = 4
	typeModal        = 5

	answerPong     = 1
	answerMessage  = 4
	answerDeferred = 5
	answerChoices  = 8
	answerModal    = 9
)

// interaction is what the adapter reads of a payload.
type interaction struct {
	ID            string `json:"id"`
	ApplicationID string `json:"application_id"`
	Type          int    `json:"type"`
	Token         string `json:"token"`
	GuildID       string `json:"guild_id"`
	ChannelID     string `json:"channel_id"`
	Channel       struct {
		Type   int    `json:"type"`
		Parent string `json:"parent_id"`
		NSFW   bool   `json:"nsfw"`
	} `json:"channel"`
	Locale         string `json:"locale"`
	AppPermissions string `json:"app_permissions"`
	Member         *struct {
		User  person   `json:"user"`
		Roles []string `json:"roles"`
	} `json:"member"`
	User   *person           `json:"user"`
	Owners map[string]string `json:"authorizing_integration_owners"`
	Data   struct {
		Name       string   `json:"name"`
		CustomID   string   `json:"custom_id"`
		Values     []string `json:"values"`
		Options    []option `json:"options"`
		Components []struct {
			Components []struct {
				CustomID string `json:"custom_id"`
				Value    string `json:"value"`
			} `json:"components"`
		} `json:"components"`
		Resolved struct {
			Attachments map[string]struct {
				Filename string `json:"filename"`
				Size     int64  `json:"size"`
				URL      string `json:"url"`
			} `json:"attachments"`
		} `json:"resolved"`
	} `json:"data"`
}

type person struct {
	ID         string `json:"id"`
	Username   string `json:"username"`
	GlobalName string `json:"global_name"`
}

type option struct {
	Name    string          `json:"name"`
	Type    int             `json:"type"`
	Value   json.RawMessage `json:"value"`
	Focused bool            `json:"focused"`
	Options []option        `json:"options"`
}

// text is the value as a person would type it, whatever JSON type it has.
func (o *option) text() string {
	var s string
	if json.Unmarshal(o.Value, &s) == nil {
		return s
	}
	return string(o.Value)
}

// The permissions that posting needs.
const (
	viewChannel  = 1 << 10
	sendMessages = 1 << 11
)

// command begins the command of an interaction: who, where, and whether the bot
// may speak there.
func (in *interaction) command() (bots.Command, error) {
	var c bots.Command
	who := in.User
	if in.Member != nil {
		who, c.Roles = &in.Member.User, in.Member.Roles
	}
	if who == nil || in.ID == "" {
		return c, errors.New("the interaction names nobody")
	}
	name := who.GlobalName
	if name == "" {
		name = who.Username
	}
	c.From = queue.Requester{Platform: "discord", ID: who.ID, Name: parse.Clean(name)}
	c.Key, c.Locale, c.Space = in.ID, in.Locale, ""
	if in.GuildID != "" {
		c.Space = "discord:" + in.GuildID
	}
	c.Origin = queue.Origin{Platform: "discord", Extra: map[string]string{"locale": in.Locale}}
	at := in.spot()
	c.Origin.Channel, c.Origin.Thread = at.Channel, at.Thread
	c.Adult = in.Channel.NSFW
	if in.GuildID != "" && !in.maySpeak() {
		c.Origin.Extra["dm"] = "1"
	}
	return c, nil
}

// spot is where the interaction took place; of a thread its channel is known too.
func (in *interaction) spot() bots.Spot {
	if t := in.Channel.Type; t >= 10 && t <= 12 && in.Channel.Parent != "" {
		return bots.Spot{Channel: in.Channel.Parent, Thread: in.ChannelID}
	}
	return bots.Spot{Channel: in.ChannelID}
}

// maySpeak tells whether the bot can post in the channel when the token is dead.
func (in *interaction) maySpeak() bool {
	if in.Owners != nil && in.Owners["0"] == "" && in.Owners["1"] != "" {
		return false // installed by the person alone: the bot is no member
	}
	if in.AppPermissions == "" {
		return true
	}
	p, err := strconv.ParseUint(in.AppPermissions, 10, 64)
	return err != nil || p&viewChannel != 0 && p&sendMessages != 0
}

// answer is how an interaction is answered: by callback or in an HTTP body.
type answer interface {
	first(ctx context.Context, kind int, data any, files []upload) (*posted, error)
}

// callbackAnswer answers through the REST API, within the time that is left.
type callbackAnswer struct {
	b        *Bot
	in       *interaction
	received time.Time
}

func (a *callbackAnswer) first(ctx context.Context, kind int, data any, files []upload) (*posted, error) {
	var out struct {
		Resource struct {
			Message *posted `json:"message"`
		} `json:"resource"`
	}
	path := "/interactions/" + a.in.ID + "/" + a.in.Token + "/callback?with_response=true"
	body := map[string]any{"type": kind}
	if data != nil {
		body["data"] = data
	}
	var err error
	for try := range 3 { // a lost connection may be tried again while there is time
		err = a.b.rest.do(ctx, call{method: http.MethodPost, path: path, body: body, files: files, into: &out, noToken: true})
		if e, ok := err.(*bots.ChatError); !ok || e.Trouble != bots.TroubleTemporary || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(try+1) * 100 * time.Millisecond):
		}
	}
	if err == nil {
		a.b.acked(a.received)
	}
	return out.Resource.Message, err
}

// acked counts a first answer.
func (b *Bot) acked(received time.Time) {
	if b.meter != nil {
		b.meter.Acked("discord", time.Since(received))
	}
}

// serve answers an interaction.
func (b *Bot) serve(ctx context.Context, in *interaction, received time.Time, a answer) {
	quick, cancel := context.WithDeadline(ctx, received.Add(b.config.AckBudget))
	defer cancel()
	if in.Type == typeAutocomplete {
		b.autocomplete(quick, in, a)
		return
	}
	c, err := in.command()
	if err != nil {
		b.log.Error("an interaction could not be read", "err", err)
		return
	}
	modal, err := b.fill(&c, in)
	if modal != nil {
		if _, err := a.first(quick, answerModal, modal, nil); err != nil {
			b.log.Warn("a form could not be opened", "err", err)
		}
		return
	}
	var reply bots.Reply
	switch {
	case err != nil:
		reply = bots.Complaint(c, err)
	case c.Verb == parse.Ingest || c.Verb == parse.Delete || c.Verb == parse.ForgetMe && c.Confirmed:
		b.serveSlow(ctx, quick, in, c, a)
		return
	default:
		work, done := context.WithDeadline(ctx, received.Add(b.config.AckBudget-600*time.Millisecond))
		reply = b.service.Execute(work, c)
		done()
	}
	body := build(&reply.Message)
	if reply.Private {
		body.Flags |= ephemeral
	}
	p, err := a.first(quick, answerMessage, body, nil)
	b.afterAck(ctx, in, &reply, p, err, time.Since(received))
}

// afterAck remembers the message that shows a new job. When the answer did not
// arrive, the job is in the queue all the same: its outcome will be told.
func (b *Bot) afterAck(ctx context.Context, in *interaction, reply *bots.Reply, p *posted, err error, took time.Duration) {
	if err != nil {
		level := b.log.Warn
		if code(err) == 40060 {
			level = b.log.Info // answered before: another process, or a lost reply
		}
		level("an interaction was not answered", "job", reply.Job, "after", took, "err", err)
		return
	}
	if reply.Job == "" || reply.Private || p == nil || reply.Refused {
		return
	}
	save, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	at := bots.Posted{Spot: in.spot(), ID: p.ID}
	if err := delivery.SaveStatus(save, b.store, reply.Job, at); err != nil {
		b.log.Warn("progress will not be shown", "job", reply.Job, "err", err)
	}
}

// serveSlow defers the answer and edits it when the work is done.
func (b *Bot) serveSlow(ctx, quick context.Context, in *interaction, c bots.Command, a answer) {
	if _, err := a.first(quick, answerDeferred, map[string]any{"flags": ephemeral}, nil); err != nil {
		b.log.Warn("an interaction was not answered", "err", err)
		if code(err) == 40060 {
			return
		}
	}
	reply := b.service.Execute(ctx, c)
	body := build(&reply.Message)
	err := b.rest.do(ctx, call{
		method: http.MethodPatch, path: "/webhooks/" + in.ApplicationID + "/" + in.Token + "/messages/@original", body: body, noToken: true,
	})
	if err != nil {
		b.log.Warn("an answer could not be completed", "verb", c.Verb, "err", err)
	}
}

// fill reads the command. A modal is returned when the person has to be asked
// for a prompt first.
func (b *Bot) fill(c *bots.Command, in *interaction) (modal any, err error) {
	switch in.Type {
	case typeComponent:
		if in.Data.CustomID == menuID && len(in.Data.Values) == 1 {
			return nil, bots.ParseButton(in.Data.Values[0], c)
		}
		return nil, bots.ParseButton(in.Data.CustomID, c)
	case typeModal:
		return nil, fillModal(c, in)
	}
	options := in.Data.Options
	sub := ""
	if len(options) == 1 && options[0].Type == 1 {
		sub, options = options[0].Name, options[0].Options
	}
	values := map[string]*option{}
	for i := range options {
		values[options[i].Name] = &options[i]
	}
	value := func(name string) string {
		if o := values[name]; o != nil {
			return strings.TrimSpace(o.text())
		}
		return ""
	}
	switch in.Data.Name {
	case "dream":
		if value("prompt") == "" {
			return promptModal(c, value), nil
		}
		c.Verb = parse.Dream
		for _, o := range options {
			if err := c.Set(o.Name, o.text()); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case "jobs", "admin", "history":
		line := "/" + in.Data.Name + " " + sub
		for _, name := range []string{"job", "user", "limit", "page"} {
			line = strings.TrimSpace(line + " " + value(name))
		}
		c.Command, err = parse.Line(line)
		return nil, err
	case "ingest":
		c.Verb = parse.Ingest
		if a, ok := in.Data.Resolved.Attachments[value("file")]; ok {
			c.File = &bots.Attachment{Name: parse.Clean(a.Filename), Size: a.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
				return b.download(ctx, a.URL)
			}}
		}
		return nil, nil
	}
	c.Command, err = parse.Line("/" + in.Data.Name)
	return nil, err
}

// promptModal asks for a long prompt; the options that were given travel in its id.
func promptModal(c *bots.Command, value func(string) string) any {
	l := bots.Language(c.Locale)
	no, yes := false, true
	id := strings.Join([]string{"v1", "modal", value("kind"), value("quality"), value("private"), value("seed")}, ":")
	return map[string]any{
		"title": l.Say("modal.title"), "custom_id": id,
		"components": []row{
			{Type: 1, Components: []element{{Type: 4, Style: 2, CustomID: "prompt", Label: l.Say("modal.prompt"), MinLength: 1, MaxLength: parse.MaxPrompt, Required: &yes, Placeholder: l.Say("modal.example")}}},
			{Type: 1, Components: []element{{Type: 4, Style: 2, CustomID: "negative", Label: l.Say("modal.negative"), MaxLength: parse.MaxPrompt, Required: &no}}},
		},
	}
}

func fillModal(c *bots.Command, in *interaction) error {
	parts := strings.Split(in.Data.CustomID, ":")
	if len(parts) != 6 || parts[1] != "modal" {
		return &parse.Error{Code: "empty"}
	}
	c.Verb = parse.Dream
	for i, name := range []string{"kind", "quality", "private", "seed"} {
		if v := parts[2+i]; v != "" {
			if err := c.Set(name, v); err != nil {
				return err
			}
		}
	}
	err := c.Set("prompt", "")
	for _, r := range in.Data.Components {
		for _, x := range r.Components {
			switch {
			case x.CustomID == "prompt":
				err = c.Set("prompt", x.Value)
			case x.CustomID == "negative" && strings.TrimSpace(x.Value) != "":
				if err := c.Set("negative", x.Value); err != nil {
					return err
				}
			}
		}
	}
	return err
}

// autocomplete offers the person's own jobs.
func (b *Bot) autocomplete(ctx context.Context, in *interaction, a answer) {
	type choice struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	choices := []choice{}
	c, err := in.command()
	typed, sub := "", ""
	for _, o := range in.Data.Options {
		if o.Type == 1 {
			sub = o.Name
			for _, p := range o.Options {
				if p.Focused {
					typed = strings.ToUpper(strings.TrimSpace(p.text()))
				}
			}
		}
	}
	if err == nil {
		f := queue.Filter{User: c.From.User(), Limit: 100}
		if sub == "cancel" {
			f.Status = []queue.Status{queue.Leased, queue.Queued, queue.Scheduled}
		}
		jobs, err := b.store.List(ctx, f)
		if err != nil {
			b.log.Warn("jobs could not be listed for completion", "err", err)
		}
		for _, j := range jobs {
			short := parse.Short(j.ID)
			if len(choices) < 25 && (strings.Contains(short, typed) || strings.Contains(strings.ToUpper(j.Prompt), typed)) {
				choices = append(choices, choice{Name: bots.Cut(short+" · "+parse.Clean(j.Prompt), 100), Value: j.ID})
			}
		}
	}
	if _, err := a.first(ctx, answerChoices, map[string]any{"choices": choices}, nil); err != nil {
		b.log.Debug("a completion came too late", "err", err)
	}
}

// download reads an attachment, from Discord's own hosts (or those configured)
// and from nowhere else.
func (b *Bot) download(ctx context.Context, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the attachment's address is malformed")
	}
	api, _ := url.Parse(b.config.APIURL)
	official := u.Scheme == "https" && (u.Host == "cdn.discordapp.com" || u.Host == "media.discordapp.net")
	if !official && (api == nil || b.config.APIURL == DefaultAPI || u.Host != api.Host) {
		return nil, fmt.Errorf("attachments are not read from %q", u.Host)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := *b.rest.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("reading the attachment: %s", resp.Status)
	}
	return resp.Body, nil
}
