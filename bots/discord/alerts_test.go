package discord

import (
	"strings"
	"testing"
	"time"

	"dreamcad/bots/discord/discordtest"
	"dreamcad/queue"
)

func TestAlerts(t *testing.T) {
	w := newWorld(t)
	w.start()
	alert := queue.Alert{Code: "gpu.hot", Key: "host1/0", Severity: queue.Warning, State: queue.Firing, Text: "GPU 0 is at 85 °C. @everyone", Since: time.Now(), Source: "host1"}
	for range 500 {
		if err := w.q.Raise(w.ctx, alert); err != nil {
			t.Fatal(err)
		}
	}
	if !w.server.Wait(patience, func() bool { return len(w.server.Messages(w.ops)) == 1 }) {
		t.Fatalf("no alert; log:\n%s", w.log)
	}
	m := w.server.Messages(w.ops)[0]
	if m.Everyone || len(m.Pinged) > 0 {
		t.Error("an alert notified people")
	}
	in := w.server.Click(discordtest.Person{ID: "42", Channel: w.ops}, m, "v1:silence:gpu.hot:host1/0")
	if _, _, a := w.server.WaitAnswer(in, patience); a == nil || !a.Ephemeral {
		t.Errorf("anybody may silence: %+v", a)
	}
	in = w.server.Click(discordtest.Person{ID: "9", Channel: w.ops}, m, "v1:silence:gpu.hot:host1/0")
	if _, _, a := w.server.WaitAnswer(in, patience); a == nil || !strings.Contains(a.Content, "Silenced by <@9>") {
		t.Errorf("silence: %+v", a)
	}
	alert.State = queue.Resolved
	if err := w.q.Raise(w.ctx, alert); err != nil {
		t.Fatal(err)
	}
	if !w.server.Wait(patience, func() bool { return strings.HasPrefix(w.server.Messages(w.ops)[0].Content, "Resolved") }) {
		t.Error("the alert is not resolved in chat")
	}
	if n := len(outcomes(w.server.Messages(w.ops), "GPU 0")); n != 1 {
		t.Errorf("%d messages about one alert", n)
	}
}
