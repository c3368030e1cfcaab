package discord

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
// the others complete, look, repeat or mean nothing. Users, channels, ids and
// tokens are new ones all the time.
func TestMemory(t *testing.T) {
	chattest.Memory(t, 4, func(service *bots.Service, q *sqliteq.Queue, log *slog.Logger) chattest.Adapter {
		b := New(Config{Token: "t", APIURL: "http://discord.test", AckBudget: patience}, service, q, log)
		b.rest.client.Transport = chattest.AcceptAll(`{"id":"5","channel_id":"7","resource":{"message":{"id":"5","channel_id":"7"}}}`)
		return chattest.Adapter{
			Chat: b, Work: &b.work,
			Wire:   func(o *delivery.Outbound, m *delivery.Metrics) { b.Learn(o); b.Measure(m) },
			Handle: func(ctx context.Context, i int, job string) { b.handle(ctx, interactionOf(i, job)) },
			User:   func(i int) string { return fmt.Sprint("discord:", 1_000_000+i) },
		}
	})
}

// interactionOf is the i-th interaction; job is what the ninth before it made.
func interactionOf(i int, job string) json.RawMessage {
	user := map[string]any{"id": fmt.Sprint(1_000_000 + i/10*10), "username": "p"}
	v := map[string]any{
		"id": fmt.Sprint(5_000_000 + i), "application_id": "1", "token": fmt.Sprint("token", i), "guild_id": "g", "channel_id": fmt.Sprint(9_000_000 + i/100),
		"locale": "en-US", "member": map[string]any{"user": user},
	}
	command := func(name string, options ...any) {
		v["type"], v["data"] = 2, map[string]any{"name": name, "options": options}
	}
	click := func(id string) { v["type"], v["data"] = 3, map[string]any{"custom_id": id} }
	switch i % 10 {
	case 0:
		command("dream", map[string]any{"name": "prompt", "type": 3, "value": fmt.Sprint("mug ", i)})
	case 1, 2:
		v["type"], v["data"] = 4, map[string]any{"name": "jobs", "options": []any{map[string]any{"name": "show", "type": 1,
			"options": []any{map[string]any{"name": "job", "type": 3, "value": "mug", "focused": true}}}}}
	case 3:
		command("quota")
	case 4:
		command("help")
	case 5:
		click("v1:show:" + job)
	case 6:
		click("nonsense")
	case 7:
		command("dream") // opens the form
	case 8:
		v["id"] = fmt.Sprint(5_000_000 + i - 1) // the one before, again
		command("help")
	case 9:
		click("v1:cancel:" + job)
	}
	text, _ := json.Marshal(v)
	return text
}
