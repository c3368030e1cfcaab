package alert

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"dreamcad/queue"
)

// alertmanager speaks Prometheus Alertmanager's API, version 2. What fires is
// posted again and again with an end that lies ahead, so that it ends there by
// itself should this process be gone. Alertmanager tells the same alert of
// several processes by its labels, so these name nothing of the process.
type alertmanager struct {
	url    string
	header http.Header
	period time.Duration
	firing map[id]queue.Alert
}

func newAlertmanager(base string, header http.Header, period time.Duration) *alertmanager {
	return &alertmanager{url: strings.TrimSuffix(base, "/") + "/api/v2/alerts", header: header, period: period, firing: map[id]queue.Alert{}}
}

// postable is Alertmanager's postableAlert.
type postable struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitempty"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

// missed is how many reminders may fail before Alertmanager takes an alert for over.
const missed = 4

func (m *alertmanager) postable(a *queue.Alert, now time.Time) postable {
	p := postable{
		Labels:      map[string]string{"alertname": a.Code, "key": a.Key, "severity": string(a.Severity), "service": "dreamcad"},
		Annotations: map[string]string{"summary": a.Text, "source": a.Source, "runbook": "docs/runbook.md#" + a.Code},
		StartsAt:    a.Since.UTC(), EndsAt: now.Add(missed * m.period),
	}
	if a.State == queue.Resolved {
		p.EndsAt = now
	}
	if p.EndsAt.Before(p.StartsAt) { // the clock was set back
		p.StartsAt = p.EndsAt
	}
	return p
}

func (m *alertmanager) deliver(ctx context.Context, a *queue.Alert) error {
	if err := m.post(ctx, *a); err != nil {
		return err
	}
	if a.State == queue.Firing {
		m.firing[idOf(a)] = *a
	} else {
		delete(m.firing, idOf(a))
	}
	return nil
}

func (m *alertmanager) every() time.Duration { return m.period }

func (m *alertmanager) remind(ctx context.Context) error {
	if len(m.firing) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, deliverLimit)
	defer cancel()
	return m.post(limited, slices.Collect(maps.Values(m.firing))...)
}

func (m *alertmanager) post(ctx context.Context, alerts ...queue.Alert) error {
	now := time.Now().UTC()
	out := make([]postable, len(alerts))
	for i := range alerts {
		out[i] = m.postable(&alerts[i], now)
	}
	if err := postJSON(ctx, m.url, m.header, out); err != nil {
		return fmt.Errorf("post to Alertmanager: %w", err)
	}
	return nil
}
