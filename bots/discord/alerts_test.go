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
	w.Raise(alert, 500)
	if !w.server.Wait(patience, func() bool { return len(w.server.Messages(w.Ops)) == 1 }) {
		t.Fatalf("no alert; log:\n%s", w.Log)
	}
	m := w.server.Messages(w.Ops)[0]
	if m.Everyone || len(m.Pinged) > 0 {
		t.Error("an alert notified people")
	}
	in := w.server.Click(discordtest.Person{ID: "42", Channel: w.Ops}, m, "v1:silence:gpu.hot:host1/0")
	if _, _, a := w.server.WaitAnswer(in, patience); a == nil || !a.Ephemeral {
		t.Errorf("anybody may silence: %+v", a)
	}
	in = w.server.Click(discordtest.Person{ID: "9", Channel: w.Ops}, m, "v1:silence:gpu.hot:host1/0")
	if _, _, a := w.server.WaitAnswer(in, patience); a == nil || !strings.Contains(a.Content, "Silenced by <@9>") {
		t.Errorf("silence: %+v", a)
	}
	alert.State = queue.Resolved
	w.Raise(alert, 1)
	if !w.server.Wait(patience, func() bool { return strings.HasPrefix(w.server.Messages(w.Ops)[0].Content, "Resolved") }) {
		t.Error("the alert is not resolved in chat")
	}
	if n := len(outcomes(w.server.Messages(w.Ops), "GPU 0")); n != 1 {
		t.Errorf("%d messages about one alert", n)
	}
}
