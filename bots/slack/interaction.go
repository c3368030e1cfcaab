package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	api "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// serve answers a slash command or an interaction.
func (b *Bot) serve(ctx context.Context, kind string, payload json.RawMessage, ack func(any) error) {
	quick, cancel := context.WithTimeout(ctx, b.config.AckBudget-400*time.Millisecond)
	defer cancel()
	if kind == string(socketmode.EventTypeSlashCommand) || kind == "slash_commands" {
		var cmd api.SlashCommand
		if err := json.Unmarshal(payload, &cmd); err != nil {
			b.log.Error("a command could not be read", "err", err)
			return
		}
		b.slash(ctx, quick, &cmd, ack)
		return
	}
	var in api.InteractionCallback
	if err := json.Unmarshal(payload, &in); err != nil {
		b.log.Error("an interaction could not be read", "err", err)
		return
	}
	switch in.Type {
	case api.InteractionTypeBlockActions:
		b.acked(ack(nil))
		b.click(ctx, &in)
	case api.InteractionTypeViewSubmission:
		b.submitted(ctx, quick, &in, ack)
	default:
		b.acked(ack(nil))
	}
}

func (b *Bot) acked(err error) {
	if err != nil {
		b.log.Warn("an interaction was not acknowledged", "err", err)
	}
}

func (b *Bot) command(ctx context.Context, user, name, team, channel, key string) bots.Command {
	locale := b.locale(ctx, user)
	return bots.Command{
		From: queue.Requester{Platform: "slack", ID: user, Name: parse.Clean(name)},
		Key:  key, Locale: locale, Space: "slack:" + team,
		Origin: queue.Origin{Platform: "slack", Channel: channel, Extra: map[string]string{"locale": locale}},
	}
}

// slash executes a command and acknowledges with the answer, which only the
// person sees; a new job then gets its public message.
func (b *Bot) slash(ctx, quick context.Context, cmd *api.SlashCommand, ack func(any) error) {
	c := b.command(ctx, cmd.UserID, cmd.UserName, cmd.TeamID, cmd.ChannelID, cmd.TriggerID)
	text := unescape(cmd.Text)
	if strings.TrimSpace(text) == "" {
		b.acked(ack(nil))
		b.openForm(quick, promptForm(&c, cmd.ChannelID), cmd.TriggerID, &c, cmd.ResponseURL)
		return
	}
	var err error
	if c.Command, err = parse.Text(text); err != nil {
		b.acked(ack(answer(&bots.Reply{Message: bots.Complaint(c, err).Message})))
		return
	}
	switch c.Verb {
	case parse.Ingest:
		b.acked(ack(nil))
		b.openForm(quick, fileForm(&c, cmd.ChannelID), cmd.TriggerID, &c, cmd.ResponseURL)
		return
	case parse.Dream:
		reply := b.service.Execute(quick, c)
		b.acked(ack(answer(&reply)))
		b.show(ctx, &c, &reply)
	default:
		reply := b.service.Execute(quick, c)
		b.acked(ack(answer(&reply)))
	}
}

// unescape undoes Slack's entities in what a person typed.
func unescape(s string) string {
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(s)
}

// answer is the payload of an acknowledgement: a message for the person alone.
func answer(r *bots.Reply) map[string]any {
	return map[string]any{
		"response_type": "ephemeral", "text": bots.Cut(fallback.Encode(r.Text), maxText),
		"blocks": build(&r.Message, nil), "unfurl_links": false, "unfurl_media": false,
	}
}

// show posts the public message of a new job, in whose thread everything
// follows. Where the app may not post, the outcome comes as a direct message.
func (b *Bot) show(ctx context.Context, c *bots.Command, r *bots.Reply) {
	if r.Job == "" || r.Refused || r.Private || b.out == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	channel := c.Origin.Channel
	p, err := delivery.Ask(ctx, b.out, delivery.Result, b.Buckets(delivery.PostMessage, channel), func(ctx context.Context) (bots.Posted, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return b.Post(ctx, bots.Spot{Channel: channel}, r.Message, bots.Nonce(r.Job, "status"))
	})
	if err != nil {
		b.log.Info("a job has no public message", "job", r.Job, "err", err)
		return
	}
	p.Thread = p.ID
	if err := delivery.SaveStatus(ctx, b.state, r.Job, p); err != nil {
		b.log.Warn("progress will not be shown", "job", r.Job, "err", err)
	}
}

// respond sends a message for the person alone by the response URL, which takes
// five of them, and by the bot token when that fails.
func (b *Bot) respond(ctx context.Context, responseURL string, c *bots.Command, r *bots.Reply) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if responseURL != "" && b.trusted(responseURL) {
		body := answer(r)
		body["replace_original"] = false
		text, err := json.Marshal(body)
		if err == nil {
			err = b.postJSON(ctx, responseURL, text)
		}
		if err == nil {
			return
		}
		b.log.Debug("a response URL did not work", "err", err)
	}
	opts := append(options(&r.Message, nil), api.MsgOptionPostEphemeral(c.From.ID))
	if _, _, err := b.api.PostMessageContext(ctx, c.Origin.Channel, opts...); err != nil {
		b.log.Warn("an answer was not delivered", "verb", c.Verb, "err", err)
	}
}

// trusted tells whether an address belongs to Slack (or the configured server).
func (b *Bot) trusted(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	base, err := url.Parse(b.config.APIURL)
	if err == nil && u.Host == base.Host {
		return true
	}
	return u.Scheme == "https" && (u.Host == "slack.com" || strings.HasSuffix(u.Host, ".slack.com"))
}

func (b *Bot) postJSON(ctx context.Context, address string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address is malformed")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.client.Do(req)
	if err != nil {
		return errors.New("no connection") // the address is a secret
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// click answers a button.
func (b *Bot) click(ctx context.Context, in *api.InteractionCallback) {
	if len(in.ActionCallback.BlockActions) == 0 {
		return
	}
	a := in.ActionCallback.BlockActions[0]
	id := a.Value
	if a.SelectedOption.Value != "" {
		id = a.SelectedOption.Value
	}
	if id == "" {
		return // a link
	}
	c := b.command(ctx, in.User.ID, in.User.Name, in.Team.ID, in.Channel.ID, in.TriggerID)
	if err := bots.ParseButton(id, &c); err != nil {
		b.log.Warn("an unknown button was pressed", "user", c.From.User())
		return
	}
	reply := b.service.Execute(ctx, c)
	if (c.Verb == parse.Ack || c.Verb == parse.Silence) && !reply.Refused {
		_, _, err := b.api.PostMessageContext(ctx, in.Channel.ID, append(options(&reply.Message, nil), api.MsgOptionTS(in.Container.MessageTs))...)
		if err == nil {
			return
		}
	}
	b.respond(ctx, in.ResponseURL, &c, &reply)
	b.show(ctx, &c, &reply)
}

// The forms.
const (
	promptCallback = "dream"
	fileCallback   = "ingest"
)

func plain(s string) *api.TextBlockObject {
	return api.NewTextBlockObject(api.PlainTextType, s, false, false)
}

func form(l bots.Lang, callback, channel string, blocks ...api.Block) api.ModalViewRequest {
	return api.ModalViewRequest{
		Type: api.VTModal, CallbackID: callback, PrivateMetadata: channel,
		Title: plain(bots.Cut(l.Say("modal.title"), 24)), Submit: plain(bots.Cut(l.Say("modal.submit"), 24)), Close: plain(bots.Cut(l.Say("modal.close"), 24)),
		Blocks: api.Blocks{BlockSet: blocks},
	}
}

func promptForm(c *bots.Command, channel string) api.ModalViewRequest {
	l := bots.Language(c.Locale)
	area := func(id, label string, required bool) *api.InputBlock {
		e := api.NewPlainTextInputBlockElement(nil, id)
		e.Multiline, e.MaxLength = true, parse.MaxPrompt
		in := api.NewInputBlock(id, plain(label), nil, e)
		in.Optional = !required
		return in
	}
	kind := func(k string) *api.OptionBlockObject {
		return api.NewOptionBlockObject(k, plain(l.Say("kind."+k)), nil)
	}
	pick := api.NewRadioButtonsBlockElement("kind", kind("mesh"), kind("views"))
	pick.InitialOption = kind("mesh")
	private := api.NewCheckboxGroupsBlockElement("private", api.NewOptionBlockObject("true", plain(l.Say("option.private")), nil))
	seed := api.NewPlainTextInputBlockElement(nil, "seed")
	seed.MaxLength = 16
	seedBlock := api.NewInputBlock("seed", plain(l.Say("done.seed")), nil, seed)
	seedBlock.Optional = true
	privateBlock := api.NewInputBlock("private", plain(l.Say("option.private")), nil, private)
	privateBlock.Optional = true
	return form(l, promptCallback, channel,
		area("prompt", l.Say("modal.prompt"), true), api.NewInputBlock("kind", plain(l.Say("option.kind")), nil, pick),
		area("negative", l.Say("modal.negative"), false), seedBlock, privateBlock)
}

func fileForm(c *bots.Command, channel string) api.ModalViewRequest {
	l := bots.Language(c.Locale)
	e := api.NewFileInputBlockElement("file")
	e.MaxFiles = 1
	return form(l, fileCallback, channel, api.NewInputBlock("file", plain(bots.Cut(l.Say("option.file"), 2000)), nil, e))
}

func (b *Bot) openForm(ctx context.Context, v api.ModalViewRequest, trigger string, c *bots.Command, responseURL string) {
	if _, err := b.api.OpenViewContext(ctx, trigger, v); err != nil {
		b.log.Warn("a form could not be opened", "err", err)
		reply := bots.Complaint(*c, &parse.Error{Code: "empty"})
		b.respond(context.WithoutCancel(ctx), responseURL, c, &reply)
	}
}

// submitted takes a filled-in form. Mistakes are shown in the form itself.
func (b *Bot) submitted(ctx, quick context.Context, in *api.InteractionCallback, ack func(any) error) {
	c := b.command(ctx, in.User.ID, in.User.Name, in.Team.ID, in.View.PrivateMetadata, in.TriggerID)
	if c.Origin.Channel == "" {
		c.Origin.Extra["dm"] = "1"
	}
	values := map[string]api.BlockAction{}
	if in.View.State != nil {
		for block, actions := range in.View.State.Values {
			for _, a := range actions {
				values[block] = a
			}
		}
	}
	if in.View.CallbackID == fileCallback {
		b.acked(ack(nil))
		c.Verb = parse.Ingest
		if files := values["file"].Files; len(files) > 0 {
			c.File = b.attachment(files[0].ID)
		}
		reply := b.service.Execute(ctx, c)
		b.respond(ctx, "", &c, &reply)
		return
	}
	c.Verb = parse.Dream
	for _, name := range []string{"prompt", "negative", "kind", "seed", "private"} {
		a := values[name]
		v := a.Value
		if a.SelectedOption.Value != "" {
			v = a.SelectedOption.Value
		}
		if len(a.SelectedOptions) > 0 {
			v = a.SelectedOptions[0].Value
		}
		if strings.TrimSpace(v) == "" && name != "prompt" {
			continue
		}
		if err := c.Set(name, v); err != nil {
			b.acked(ack(map[string]any{"response_action": "errors", "errors": map[string]string{name: bots.Complaint(c, err).Text}}))
			return
		}
	}
	reply := b.service.Execute(quick, c)
	if reply.Refused {
		b.acked(ack(map[string]any{"response_action": "errors", "errors": map[string]string{"prompt": bots.PlainText.Encode(reply.Text)}}))
		return
	}
	b.acked(ack(nil))
	b.respond(ctx, "", &c, &reply)
	b.show(ctx, &c, &reply)
}

// attachment is a file in Slack; its address is asked for when it is read.
func (b *Bot) attachment(id string) *bots.Attachment {
	return &bots.Attachment{Name: "prompts", Open: func(ctx context.Context) (io.ReadCloser, error) {
		info, _, _, err := b.api.GetFileInfoContext(ctx, id, 0, 0)
		if err != nil {
			return nil, err
		}
		if !b.trusted(info.URLPrivateDownload) {
			return nil, errors.New("the file does not lie on Slack")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, info.URLPrivateDownload, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+b.config.BotToken)
		client := *b.client
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			return nil, fmt.Errorf("reading the file: %s", resp.Status)
		}
		return resp.Body, nil
	}}
}
