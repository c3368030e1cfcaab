package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"dreamcad/bots"
	"dreamcad/bots/chattest"
	"dreamcad/bots/delivery"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

// acceptAll answers every request as Slack would and keeps nothing.
type acceptAll struct{}

func (acceptAll) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	body := `{"ok":true,"channel":"C1","ts":"1.000001","user":{"id":"U1","locale":"en-US"},"view":{"id":"V1"}}`
	return &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(body))), Request: r}, nil
}

// Memory stays flat over a million interactions (DREAM_INTERACTIONS sets how
// many; the short form is 4,000): of ten, one submits a job and one cancels it,
// the others look, repeat or mean nothing. Users, channels and ids are new ones
// all the time; the queue is a real one without its syncs, which would take
// most of the time.
func TestMemory(t *testing.T) {
	config := queue.DefaultConfig()
	config.KeepCount, config.KeepEvents, config.SubmitBudget = 500, 1000, patience
	ctx, stop := context.WithCancel(context.Background())
	q, err := sqliteq.Open(ctx, filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	service, err := bots.New(bots.Config{Patience: patience}, q, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := New(Config{BotToken: "t", APIURL: "http://slack.test/api/", AckBudget: patience}, service, q, slog.New(slog.DiscardHandler))
	b.client.Transport = acceptAll{}
	metrics := delivery.NewMetrics(nil)
	d := delivery.New(quick(), q, b, chattest.NoPace{}, &bots.Renderer{}, metrics, slog.New(slog.DiscardHandler))
	b.Through(d.Outbound())
	b.Measure(metrics)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	defer func() { stop(); <-done }()

	last := ""
	// Until half of them the languages of the people that are remembered fill up.
	chattest.FlatHeap(t, chattest.Interactions(), 10, func(i int) {
		kind, id, payload := interactionOf(i, last)
		b.handle(ctx, kind, id, payload, func(any) error { return nil })
		switch i % 10 {
		case 0: // the next ones are about this job
			b.work.Wait()
			jobs, err := q.List(ctx, queue.Filter{User: fmt.Sprint("slack:U", 1_000_000+i), Limit: 1})
			if err != nil || len(jobs) != 1 {
				t.Fatalf("interaction %d made %d jobs: %v", i, len(jobs), err)
			}
			last = jobs[0].ID
		case 9:
			b.work.Wait()
		}
	}, func() { b.work.Wait(); chattest.Tidy(ctx, q) })
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
