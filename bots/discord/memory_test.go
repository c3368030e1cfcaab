package discord

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

// acceptAll answers every request as Discord would and keeps nothing.
type acceptAll struct{}

func (acceptAll) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	body := `{"id":"5","channel_id":"7","resource":{"message":{"id":"5","channel_id":"7"}}}`
	return &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{}, Body: io.NopCloser(bytes.NewReader([]byte(body))), Request: r}, nil
}

// Memory stays flat over a million interactions (DREAM_INTERACTIONS sets how
// many; the short form is 4,000): of ten, one submits a job and one cancels it,
// the others complete, look, repeat or mean nothing. Users, channels, ids and
// tokens are new ones all the time; the queue is a real one without its syncs,
// which would take most of the time.
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
	b := New(Config{Token: "t", APIURL: "http://discord.test", AckBudget: patience}, service, q, slog.New(slog.DiscardHandler))
	b.rest.client.Transport = acceptAll{}
	metrics := delivery.NewMetrics(nil)
	d := delivery.New(quick(), q, b, chattest.NoPace{}, &bots.Renderer{}, metrics, slog.New(slog.DiscardHandler))
	b.Learn(d.Outbound())
	b.Measure(metrics)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	defer func() { stop(); <-done }()

	last := ""
	chattest.FlatHeap(t, chattest.Interactions(), 4, func(i int) {
		b.handle(ctx, interactionOf(i, last))
		switch i % 10 {
		case 0: // the next ones are about this job
			b.work.Wait()
			jobs, err := q.List(ctx, queue.Filter{User: fmt.Sprint("discord:", 1_000_000+i), Limit: 1})
			if err != nil || len(jobs) != 1 {
				t.Fatalf("interaction %d made %d jobs: %v", i, len(jobs), err)
			}
			last = jobs[0].ID
		case 9:
			b.work.Wait()
		}
	}, func() { b.work.Wait(); chattest.Tidy(ctx, q) })
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
