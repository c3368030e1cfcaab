package slack

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/delivery"
	"dreamcad/queue/sqliteq"
)

// Memory stays flat over a million interactions (DREAM_INTERACTIONS sets how
// many; the short form is 4,000): of ten, one submits a job and one cancels it,
// the others look, repeat or mean nothing. Users, channels and ids are new ones
// all the time.
func TestMemory(t *testing.T) {
	// Until half of them the languages of the people that are remembered fill up.
	chattest.Memory(t, 10, func(service *bots.Service, q *sqliteq.Queue, log *slog.Logger) chattest.Adapter {
		b := New(Config{BotToken: "t", APIURL: "http://slack.test/api/", AckBudget: patience}, service, q, log)
		b.client.Transport = chattest.AcceptAll(`{"ok":true,"channel":"C1","ts":"1.000001","user":{"id":"U1","locale":"en-US"},"view":{"id":"V1"}}`)
		return chattest.Adapter{
			Chat: b, Work: &b.work,
			Wire: func(o *delivery.Outbound, m *delivery.Metrics) { b.Through(o); b.Measure(m) },
			Handle: func(ctx context.Context, i int, job string) {
				kind, id, payload := interactionOf(i, job)
				b.handle(ctx, kind, id, payload, func(any) error { return nil })
			},
			User: func(i int) string { return fmt.Sprint("slack:U", 1_000_000+i) },
		}
	})
}

// interactionOf is the i-th interaction; job is what one before it made.
func interactionOf(i int, job string) (kind, id string, payload json.RawMessage) {
	user, channel := fmt.Sprint("U", 1_000_000+i/10*10), fmt.Sprint("C", 9_000_000+i/100)
	kind, id = "slash_commands", fmt.Sprint("trigger", i)
	command := func(text string) any {
		return map[string]any{"command": "/dream", "text": text, "trigger_id": id, "user_id": user, "user_name": "p", "team_id": "T1", "channel_id": channel,
			"response_url": "http://slack.test/respond/" + id}
	}
	click := func(value string) any {
		kind = "interactive"
		return map[string]any{"type": "block_actions", "user": map[string]any{"id": user}, "team": map[string]any{"id": "T1"}, "trigger_id": id,
			"response_url": "http://slack.test/respond/" + id, "channel": map[string]any{"id": channel}, "container": map[string]any{"message_ts": "1.1"},
			"actions": []any{map[string]any{"action_id": "b0", "block_id": "x", "type": "button", "value": value}}}
	}
	var v any
	switch i % 10 {
	case 0:
		v = command(fmt.Sprint("mug ", i))
	case 1:
		v = command("jobs")
	case 2:
		v = command("queue")
	case 3:
		v = command("quota")
	case 4:
		v = command("help")
	case 5:
		v = click("v1:show:" + job)
	case 6:
		v = click("nonsense")
	case 7:
		v = command("") // opens the form
	case 8:
		id = fmt.Sprint("trigger", i-1) // the one before, again
		v = command("help")
	case 9:
		v = click("v1:cancel:" + job)
	}
	payload, _ = json.Marshal(v)
	return kind, id, payload
}
