package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"dreamcad/bots"
)

// Needed are the permissions that the bot asks for when it is invited: view
// channels, send messages (in threads too), embed links, attach files, read history.
const Needed = 274878024704

// Check looks at token and channels with calls that change nothing.
func (b *Bot) Check(ctx context.Context, opsChannel string) []bots.Finding {
	var out []bots.Finding
	err := b.identity(ctx)
	switch e, _ := errors.AsType[*bots.ChatError](err); {
	case err == nil:
		out = append(out, bots.Finding{OK: true, Text: "Discord accepts the bot token."})
	case e != nil && e.Trouble == bots.TroubleRevoked:
		return append(out, bots.Finding{Text: "Discord refuses the bot token: make a new one on the application's Bot page and set discord.token."})
	default:
		return append(out, bots.Finding{Text: fmt.Sprintf("Discord cannot be reached: %v.", err)})
	}
	b.mu.Lock()
	app := b.appID
	b.mu.Unlock()
	out = append(out, bots.Finding{OK: true, Text: fmt.Sprintf(
		"Invite the bot with https://discord.com/oauth2/authorize?client_id=%s&scope=bot+applications.commands&permissions=%d", app, int64(Needed))})
	var gateway struct {
		Limit struct{ Remaining, Total int } `json:"session_start_limit"`
	}
	if err := b.rest.do(ctx, call{method: http.MethodGet, path: "/gateway/bot", into: &gateway}); err != nil {
		out = append(out, bots.Finding{Text: fmt.Sprintf("The gateway cannot be asked for: %v.", err)})
	} else {
		out = append(out, bots.Finding{OK: gateway.Limit.Remaining > 10, Text: fmt.Sprintf("The gateway allows %d more of %d session starts today.", gateway.Limit.Remaining, gateway.Limit.Total)})
	}
	if opsChannel == "" {
		return append(out, bots.Finding{OK: true, Text: "No channel for alerts is set (discord.ops_channel)."})
	}
	err = b.rest.do(ctx, call{method: http.MethodGet, path: "/channels/" + opsChannel})
	if err != nil {
		return append(out, bots.Finding{Text: "The bot cannot see the channel for alerts: invite it to that server, let it view and write there, and check discord.ops_channel."})
	}
	return append(out, bots.Finding{OK: true, Text: "The bot sees the channel for alerts."})
}
