package discord

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

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
	return append(out, b.checkChannel(ctx, opsChannel))
}

// permissionNames are those that posting an alert needs, as Discord's settings call them.
var permissionNames = []struct {
	bit  uint64
	name string
}{
	{viewChannel, "View Channel"}, {sendMessages, "Send Messages"}, {1 << 14, "Embed Links"},
	{1 << 15, "Attach Files"}, {1 << 16, "Read Message History"},
}

// checkChannel tells which permissions the bot lacks in a channel.
func (b *Bot) checkChannel(ctx context.Context, channel string) bots.Finding {
	var ch struct {
		Guild      string      `json:"guild_id"`
		Overwrites []overwrite `json:"permission_overwrites"`
	}
	if err := b.rest.do(ctx, call{method: http.MethodGet, path: "/channels/" + channel, into: &ch}); err != nil {
		return bots.Finding{Text: "The bot cannot see the channel for alerts: invite it to that server, let it view and write there, and check discord.ops_channel."}
	}
	if ch.Guild == "" {
		return bots.Finding{OK: true, Text: "The channel for alerts is a direct message."}
	}
	b.mu.Lock()
	self := b.selfID
	b.mu.Unlock()
	var roles []struct{ ID, Permissions string }
	var member struct{ Roles []string }
	err := b.rest.do(ctx, call{method: http.MethodGet, path: "/guilds/" + ch.Guild + "/roles", into: &roles})
	if err == nil {
		err = b.rest.do(ctx, call{method: http.MethodGet, path: "/guilds/" + ch.Guild + "/members/" + self, into: &member})
	}
	if err != nil {
		return bots.Finding{Text: fmt.Sprintf("The permissions in the channel for alerts cannot be read: %v.", err)}
	}
	mine := map[string]bool{ch.Guild: true} // the role of everybody has the server's id
	for _, r := range member.Roles {
		mine[r] = true
	}
	var base uint64
	for _, r := range roles {
		if mine[r.ID] {
			base |= bits(r.Permissions)
		}
	}
	have := ^uint64(0)
	if base&administrator == 0 {
		have = overwritten(base, ch.Overwrites, ch.Guild, self, mine)
	}
	var missing []string
	for _, p := range permissionNames {
		if have&p.bit == 0 {
			missing = append(missing, p.name)
		}
	}
	if missing != nil {
		return bots.Finding{Text: "In the channel for alerts the bot lacks: " + strings.Join(missing, ", ") + ". Allow it in the channel's permissions."}
	}
	return bots.Finding{OK: true, Text: "The bot may see and write in the channel for alerts."}
}

const administrator = 1 << 3

type overwrite struct {
	ID, Allow, Deny string
	Type            int // 0 role, 1 member
}

func bits(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// overwritten applies a channel's overwrites in Discord's order: everybody's
// role, the member's roles together, the member.
func overwritten(have uint64, list []overwrite, everyone, self string, mine map[string]bool) uint64 {
	var deny, allow uint64
	for _, o := range list {
		if o.ID == everyone {
			have = have&^bits(o.Deny) | bits(o.Allow)
		}
	}
	for _, o := range list {
		if o.Type == 0 && o.ID != everyone && mine[o.ID] {
			deny, allow = deny|bits(o.Deny), allow|bits(o.Allow)
		}
	}
	have = have&^deny | allow
	for _, o := range list {
		if o.Type == 1 && o.ID == self {
			have = have&^bits(o.Deny) | bits(o.Allow)
		}
	}
	return have
}
