package slack

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	api "github.com/slack-go/slack"

	"dreamcad/bots"
)

// Check looks at tokens, scopes and channels with calls that change nothing.
func (b *Bot) Check(ctx context.Context, opsChannel string) []bots.Finding {
	var out []bots.Finding
	granted := ""
	client := api.New(b.config.BotToken, api.OptionAPIURL(b.config.APIURL), api.OptionHTTPClient(b.client),
		api.OptionOnResponseHeaders(func(_ string, h http.Header) { granted = h.Get("X-OAuth-Scopes") }))
	who, err := client.AuthTestContext(ctx)
	switch code := errorCode(err); {
	case fatal[code]:
		return append(out, bots.Finding{Text: "Slack refuses the bot token (" + code + "): install the app again and set slack.bot_token (xoxb-…)."})
	case err != nil:
		return append(out, bots.Finding{Text: fmt.Sprintf("Slack cannot be reached: %v.", err)})
	}
	out = append(out, bots.Finding{OK: true, Text: fmt.Sprintf("Slack accepts the bot token (workspace %s, user %s).", who.Team, who.User)})
	if b.config.AppToken == "" {
		ok := b.config.SigningSecret != ""
		text := "No app token is set: commands come over HTTP, signed with slack.signing_secret."
		if !ok {
			text = "Neither slack.app_token (Socket Mode) nor slack.signing_secret (HTTP) is set: set one of them."
		}
		out = append(out, bots.Finding{OK: ok, Text: text})
	} else if _, _, err := b.api.StartSocketModeContext(ctx); err != nil {
		out = append(out, bots.Finding{Text: fmt.Sprintf("Socket Mode does not open (%v): the app token (xapp-…) needs connections:write, and the app needs Socket Mode switched on.", err)})
	} else {
		out = append(out, bots.Finding{OK: true, Text: "Socket Mode opens."})
	}
	out = append(out, scopeFinding(granted))
	if opsChannel == "" {
		return append(out, bots.Finding{OK: true, Text: "No channel for alerts is set (slack.ops_channel)."})
	}
	ch, err := b.api.GetConversationInfoContext(ctx, &api.GetConversationInfoInput{ChannelID: opsChannel})
	switch {
	case errorCode(err) == "missing_scope":
		out = append(out, bots.Finding{OK: true, Text: "The channel for alerts could not be checked: that needs channels:read, which the app does without."})
	case err != nil || !ch.IsMember:
		out = append(out, bots.Finding{Text: "The app is not in the channel for alerts: type /invite @dream there and check slack.ops_channel."})
	default:
		out = append(out, bots.Finding{OK: true, Text: "The app is in the channel for alerts."})
	}
	return out
}

// scopes are those of the manifest, with what is lost without them.
var scopes = []struct{ name, lost string }{
	{"commands", "the slash command"}, {"chat:write", "messages"}, {"files:write", "previews"},
	{"files:read", "previews and prompt files"}, {"im:write", "results as direct messages"}, {"users:read", "answers in people's language"},
	// To look for a message before it is sent again after a crash.
	{"channels:history", "the look for a message before it is sent again"}, {"groups:history", "the same in private channels"},
	{"im:history", "the same in direct messages"},
}

// scopeFinding compares what Slack says that it granted with the manifest.
func scopeFinding(granted string) bots.Finding {
	have := map[string]bool{}
	for s := range strings.SplitSeq(granted, ",") {
		have[strings.TrimSpace(s)] = true
	}
	var missing []string
	for _, s := range scopes {
		if !have[s.name] {
			missing = append(missing, s.name+" ("+s.lost+")")
		}
	}
	if missing == nil {
		return bots.Finding{OK: true, Text: "All scopes of the manifest are granted."}
	}
	return bots.Finding{Text: "These scopes are missing: " + strings.Join(missing, ", ") + ". Update the app from the manifest and install it again."}
}

// Manifest is the definition of the app, for "Create an app from a manifest".
// endpoint "" uses Socket Mode; otherwise it is the public address of Endpoint.
func Manifest(command, endpoint string) map[string]any {
	slash := map[string]any{
		"command": command, "description": "Make four views and a 3D mesh from a description",
		"usage_hint":    "a ceramic coffee mug [--kind views|mesh] [--seed N] | help | jobs | cancel ID",
		"should_escape": true,
	}
	settings := map[string]any{
		"interactivity":          map[string]any{"is_enabled": true},
		"org_deploy_enabled":     false,
		"socket_mode_enabled":    endpoint == "",
		"token_rotation_enabled": false,
	}
	if endpoint != "" {
		slash["url"] = endpoint
		settings["interactivity"] = map[string]any{"is_enabled": true, "request_url": endpoint}
	}
	var names []string
	for _, s := range scopes {
		names = append(names, s.name)
	}
	return map[string]any{
		"display_information": map[string]any{
			"name": strings.TrimPrefix(command, "/"), "description": "Text to four views to a textured 3D mesh", "background_color": "#1f2430",
		},
		"features": map[string]any{
			"bot_user":       map[string]any{"display_name": strings.TrimPrefix(command, "/"), "always_online": true},
			"slash_commands": []any{slash},
		},
		"oauth_config": map[string]any{"scopes": map[string]any{"bot": names}},
		"settings":     settings,
	}
}
