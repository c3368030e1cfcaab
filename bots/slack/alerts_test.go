package slack

import (
	"testing"
	"time"

	"dreamcad/queue"
)

func TestAlerts(t *testing.T) {
	w := newWorld(t)
	w.start()
	alert := queue.Alert{Code: "gpu.hot", Key: "host1/0", Severity: queue.Critical, State: queue.Firing, Text: "GPU 0 is at 91 °C. <!channel>", Since: time.Now(), Source: "host1"}
	w.Raise(alert, 500)
	if !w.server.Wait(patience, func() bool { return len(w.server.Messages(w.Ops)) == 1 }) {
		t.Fatalf("no alert; log:\n%s", w.Log)
	}
	m := w.server.Messages(w.Ops)[0]
	if m.Everyone {
		t.Error("an alert notified everyone")
	}
	w.server.WaitAck(w.server.Click("U9", m, "v1:ack:gpu.hot:host1/0"), patience)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Ops), "Acknowledged")) == 1 }) {
		t.Errorf("no acknowledgement; log:\n%s", w.Log)
	}
	alert.State = queue.Resolved
	w.Raise(alert, 1)
	if !w.server.Wait(patience, func() bool { return len(outcomes(w.server.Messages(w.Ops), "Resolved")) == 1 }) {
		t.Errorf("not resolved; log:\n%s", w.Log)
	}
}
