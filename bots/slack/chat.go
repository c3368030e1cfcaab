package slack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	api "github.com/slack-go/slack"

	"dreamcad/bots"
	"dreamcad/bots/delivery"
)

// The lengths that Slack accepts, in characters.
const (
	maxText   = 4000 // of a message's text; longer ones are cut
	maxLabel  = 75
	maxAlt    = 2000
	maxURL    = 3000
	maxInRow  = 25
	maxBlocks = 8000 // of all text in blocks, well below what Slack refuses
)

// fallback writes texts for notifications, where blocks are not shown: & < > as
// entities, mentions and dates in Slack's mark-up.
var fallback = bots.Encoder{
	Plain: escape,
	User:  escape,
	When: func(t time.Time) string {
		return fmt.Sprintf("<!date^%d^{date_short_pretty} {time}|%s>", t.Unix(), t.UTC().Format(time.RFC1123))
	},
	Person: func(id string) string { return "<@" + id + ">" },
}

var entities = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func escape(s string) string { return entities.Replace(s) }

// rich turns a text into literal elements, mentions and dates.
func rich(text string) []api.RichTextSectionElement {
	var out []api.RichTextSectionElement
	left := maxBlocks
	for _, p := range bots.Parts(text) {
		switch p.Kind {
		case bots.PartWhen:
			date := p.Time.UTC().Format(time.RFC1123)
			out = append(out, api.NewRichTextSectionDateElement(p.Time.Unix(), "{date_short_pretty} {time}", nil, &date))
		case bots.PartPerson:
			out = append(out, api.NewRichTextSectionUserElement(p.Text, nil))
		default:
			words := bots.Cut(p.Text, max(left, 1))
			left -= len([]rune(words))
			out = append(out, api.NewRichTextSectionTextElement(words, nil))
		}
	}
	return out
}

// build forms the blocks of a message; images are uploaded files.
func build(m *bots.Message, images []image) []api.Block {
	text := m.Text
	for i, f := range m.Fields {
		if i == 0 {
			text += "\n"
		} else {
			text += " · "
		}
		text += f.Name + ": " + f.Value
	}
	// Slack wants a fresh block_id when a message is updated.
	tag := rand.Text()[:8]
	blocks := []api.Block{api.NewRichTextBlock("t"+tag, api.NewRichTextSection(rich(text)...))}
	for i, img := range images {
		blocks = append(blocks, api.NewImageBlockSlackFile(&api.SlackFileObject{ID: img.id}, img.alt, fmt.Sprintf("i%d%s", i, tag), nil))
	}
	var row []api.BlockElement
	for i, b := range m.Buttons {
		if len(b.URL) > maxURL || len(row) == maxInRow {
			continue
		}
		e := api.NewButtonBlockElement(fmt.Sprintf("b%d", i), b.ID, api.NewTextBlockObject(api.PlainTextType, bots.Cut(b.Label, maxLabel), false, false))
		e.URL = b.URL
		switch b.Style {
		case bots.Primary:
			e.Style = api.StylePrimary
		case bots.Danger:
			e.Style = api.StyleDanger
		}
		if b.Confirm != "" {
			e.Confirm = api.NewConfirmationBlockObject(plain(bots.Cut(b.Label, 100)), plain(bots.Cut(b.Confirm, 300)), plain(bots.Cut(b.Label, 30)), plain("✕"))
		}
		row = append(row, e)
	}
	if m.Menu != nil && len(row) < maxInRow {
		var list []*api.OptionBlockObject
		for _, o := range m.Menu.Options {
			list = append(list, api.NewOptionBlockObject(o.ID, plain(bots.Cut(o.Label, maxLabel)), nil))
		}
		row = append(row, api.NewOptionsSelectBlockElement(api.OptTypeStatic, plain(bots.Cut(m.Menu.Label, 150)), "menu", list...))
	}
	if row != nil {
		blocks = append(blocks, api.NewActionBlock("a"+tag, row...))
	}
	return blocks
}

// options are those of every message: no unfurling, no parsing of names.
func options(m *bots.Message, images []image) []api.MsgOption {
	return []api.MsgOption{
		api.MsgOptionText(bots.Cut(fallback.Encode(m.Text), maxText), false),
		api.MsgOptionBlocks(build(m, images)...),
		api.MsgOptionDisableLinkUnfurl(), api.MsgOptionDisableMediaUnfurl(),
		api.MsgOptionLinkNames(false),
	}
}

// nonceEvent is the metadata type by which a message is found again.
const nonceEvent = "dream_message"

// Post makes a new message. Pictures are uploaded first; a message whose
// pictures Slack does not take goes without them.
func (b *Bot) Post(ctx context.Context, to bots.Spot, m bots.Message, nonce string) (bots.Posted, error) {
	images := b.upload(ctx, m.Files)
	for {
		opts := append(options(&m, images), api.MsgOptionMetadata(api.SlackMetadata{EventType: nonceEvent, EventPayload: map[string]any{"nonce": nonce}}))
		if to.Thread != "" {
			opts = append(opts, api.MsgOptionTS(to.Thread))
		}
		channel, ts, err := b.api.PostMessageContext(ctx, to.Channel, opts...)
		if len(images) > 0 && strings.HasPrefix(errorCode(err), "invalid_blocks") {
			b.log.Warn("a message goes without its pictures", "err", err)
			images = nil
			continue
		}
		if err != nil {
			return bots.Posted{}, b.classify("post a message", "chat.postMessage", err)
		}
		to.Channel = channel
		b.enclose(ctx, to, ts, m.Files)
		return bots.Posted{Spot: to, ID: ts}, nil
	}
}

// enclose shares those files of a message that are no pictures, in its thread.
// The message stands: what cannot be shared is only logged.
func (b *Bot) enclose(ctx context.Context, to bots.Spot, ts string, files []bots.File) {
	thread := to.Thread
	if thread == "" {
		thread = ts
	}
	for _, f := range files {
		if f.Picture() {
			continue
		}
		data, err := f.Read(ctx)
		if err == nil && len(data) > 0 {
			_, err = b.api.UploadFileContext(ctx, api.UploadFileParameters{
				Reader: bytes.NewReader(data), Filename: f.Name, FileSize: len(data), Title: f.Name, Channel: to.Channel, ThreadTimestamp: thread})
		}
		if err != nil {
			b.log.Warn("a file could not be shared", "name", f.Name, "err", err)
		}
	}
}

// Edit replaces a message. New pictures come as a reply in its thread, and the
// message itself stays as it is: they would be lost with the next edit, which
// sends all blocks again, and edits are few.
func (b *Bot) Edit(ctx context.Context, p bots.Posted, m bots.Message) error {
	if len(m.Files) == 0 {
		_, _, _, err := b.api.UpdateMessageContext(ctx, p.Channel, p.ID, options(&m, nil)...)
		return b.classify("edit a message", "chat.update", err)
	}
	images := b.upload(ctx, m.Files)
	if len(images) == 0 {
		return nil
	}
	show := bots.Message{Text: images[0].alt}
	_, _, err := b.api.PostMessageContext(ctx, p.Channel, append(options(&show, images), api.MsgOptionTS(p.ID))...)
	return b.classify("post pictures", "chat.postMessage", err)
}

// Direct opens the private conversation with a person.
func (b *Bot) Direct(ctx context.Context, user string) (bots.Spot, error) {
	ch, _, _, err := b.api.OpenConversationContext(ctx, &api.OpenConversationParameters{Users: []string{user}})
	if err != nil {
		e := b.classify("open a direct message", "conversations.open", err)
		if c, ok := errors.AsType[*bots.ChatError](e); ok && c.Trouble == bots.TroubleContent {
			c.Trouble = bots.TroublePerson
		}
		return bots.Spot{}, e
	}
	return bots.Spot{Channel: ch.ID}, nil
}

// Find looks for the nonce in the metadata of recent messages.
func (b *Bot) Find(ctx context.Context, in bots.Spot, nonce string, since time.Time) (bots.Posted, bool, error) {
	oldest := fmt.Sprintf("%d.000000", since.Unix())
	var list []api.Message
	var err error
	if in.Thread != "" {
		list, _, _, err = b.api.GetConversationRepliesContext(ctx, &api.GetConversationRepliesParameters{
			ChannelID: in.Channel, Timestamp: in.Thread, Oldest: oldest, Limit: 200, IncludeAllMetadata: true})
	} else {
		var h *api.GetConversationHistoryResponse
		h, err = b.api.GetConversationHistoryContext(ctx, &api.GetConversationHistoryParameters{
			ChannelID: in.Channel, Oldest: oldest, Limit: 200, IncludeAllMetadata: true})
		if h != nil {
			list = h.Messages
		}
	}
	if code := errorCode(err); code == "missing_scope" || code == "not_in_channel" || code == "channel_not_found" || code == "method_not_allowed_for_channel_type" {
		return bots.Posted{}, false, &bots.ChatError{Trouble: bots.TroubleLook, Doing: "look for a message", Err: err}
	}
	if err != nil {
		return bots.Posted{}, false, b.classify("look for a message", "conversations.history", err)
	}
	for _, m := range list {
		if m.Metadata.EventType == nonceEvent && m.Metadata.EventPayload["nonce"] == nonce {
			return bots.Posted{Spot: in, ID: m.Timestamp}, true, nil
		}
	}
	return bots.Posted{}, false, nil
}

// image is an uploaded picture.
type image struct{ id, alt string }

// Uploads are three calls of tier 4 (100 a minute) and at least one look at
// the file. They are not worth waiting for: beyond these rates a message goes
// without its pictures.
const (
	uploadRate  = 1.2 // a second
	uploadBurst = 15
)

// upload brings pictures to Slack and waits until it knows their type: before
// that, blocks that show them are refused. What fails is left out, and the
// second picture of a message makes way for the first ones of others.
func (b *Bot) upload(ctx context.Context, files []bots.File) []image {
	var out []image
	for _, f := range files {
		switch {
		case !f.Picture() || f.Spoiler: // Slack cannot cover it
			continue
		case len(out) > 0 && b.uploads.Tokens() < uploadBurst/2 || !b.uploads.Allow():
			b.log.Debug("a preview is left out: too many at once", "name", f.Name)
			continue
		}
		data, err := f.Read(ctx)
		if err == nil && len(data) > 0 {
			alt := bots.Cut(bots.PlainText.Encode(f.Alt), maxAlt)
			var sum *api.FileSummary
			sum, err = b.api.UploadFileContext(ctx, api.UploadFileParameters{
				Reader: bytes.NewReader(data), Filename: f.Name, FileSize: len(data), Title: f.Name, AltTxt: bots.Cut(alt, 1000)})
			if err == nil {
				err = b.processed(ctx, sum.ID)
			}
			if err == nil {
				out = append(out, image{sum.ID, alt})
			}
		}
		if err != nil {
			b.log.Warn("a preview is left out", "name", f.Name, "err", err)
		}
	}
	return out
}

// processed waits until Slack knows the type of a file.
func (b *Bot) processed(ctx context.Context, file string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for pause := 400 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if err := b.looks.Wait(ctx); err != nil {
			return err
		}
		info, _, _, err := b.api.GetFileInfoContext(ctx, file, 0, 0)
		if err != nil || info.Mimetype != "" {
			return err
		}
	}
}

// codeTrouble says what to do about an error.
var codeTrouble = map[string]bots.Trouble{
	"not_in_channel": bots.TroublePlace, "channel_not_found": bots.TroublePlace, "is_archived": bots.TroublePlace,
	"restricted_action": bots.TroublePlace, "channel_is_limited_access": bots.TroublePlace, "cannot_reply_to_message": bots.TroubleThread,
	"thread_not_found": bots.TroubleThread, "message_not_found": bots.TroubleMessage, "cant_update_message": bots.TroubleMessage,
	"edit_window_closed": bots.TroubleMessage, "msg_too_long": bots.TroubleContent, "msg_blocks_too_long": bots.TroubleContent,
	"invalid_blocks": bots.TroubleContent, "invalid_blocks_format": bots.TroubleContent, "no_text": bots.TroubleContent,
	"user_not_found": bots.TroublePerson, "user_disabled": bots.TroublePerson, "cannot_dm_bot": bots.TroublePerson,
	"missing_scope": bots.TroubleRevoked,
}

func (b *Bot) classify(doing, method string, err error) error {
	if err == nil {
		return nil
	}
	out := &bots.ChatError{Trouble: bots.TroubleTemporary, Doing: doing, Err: err}
	if limited, ok := errors.AsType[*api.RateLimitedError](err); ok {
		out.Trouble, out.RetryAfter, out.Bucket = bots.TroubleLimited, max(limited.RetryAfter, time.Second), method
		if method == "chat.postMessage" {
			out.Bucket = "" // most likely the channel's own
		}
		return out
	}
	code := errorCode(err)
	if fatal[code] {
		b.note(func(h *Health) { h.Revoked, h.Problem = true, "Slack refuses the bot token ("+code+")" })
		out.Trouble = bots.TroubleRevoked
	} else if t, ok := codeTrouble[code]; ok {
		out.Trouble = t
	} else if code != "" && code != "internal_error" && code != "fatal_error" && code != "request_timeout" && code != "service_unavailable" {
		out.Trouble = bots.TroubleContent
	}
	return out
}

// Buckets names the limits that an operation counts towards.
func (b *Bot) Buckets(k delivery.Kind, channel string) []string {
	switch k {
	case delivery.PostMessage, delivery.ShowViews: // which are posted in the thread
		return []string{"post/" + channel, "chat.postMessage"}
	case delivery.EditMessage:
		return []string{"chat.update"}
	case delivery.OpenDirect:
		return []string{"conversations.open"}
	}
	return []string{"conversations.history"}
}

// Rate is each method's tier with some room: posts one a second and channel,
// tier 3 (50 a minute) for the others.
func (b *Bot) Rate(bucket string) (perSecond float64, burst int) {
	switch {
	case strings.HasPrefix(bucket, "post/"):
		return 0.8, 1 // uploads come between the start and the post, so that posts can bunch
	case bucket == "chat.postMessage":
		return 8, 8
	}
	return 0.7, 6
}
