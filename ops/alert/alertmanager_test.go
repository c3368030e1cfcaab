package alert

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"dreamcad/queue"
)

// manager is a server with the rules of Alertmanager's api/v2/openapi.yaml for
// POST /alerts: the fields of a postableAlert and nothing else, labels by
// Prometheus' rules, times in RFC 3339, an end that is not before the begin.
type manager struct {
	*httptest.Server
	mu     sync.Mutex
	alerts []postable // every accepted one, in order
	over   bool       // the last one had ended when it came
	wrong  []string
	posts  int
	away   bool
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func newManager(t *testing.T) *manager {
	m := &manager{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		m.posts++
		if err := m.take(r); err != nil {
			m.wrong = append(m.wrong, err.Error())
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *manager) take(r *http.Request) error {
	if r.Method != http.MethodPost || r.URL.Path != "/api/v2/alerts" || r.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("%s %s %s", r.Method, r.URL.Path, r.Header)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var list []struct {
		StartsAt     string            `json:"startsAt"`
		EndsAt       string            `json:"endsAt"`
		Annotations  map[string]string `json:"annotations"`
		Labels       map[string]string `json:"labels"`
		GeneratorURL string            `json:"generatorURL"`
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return err
	}
	for _, a := range list {
		if a.Labels["alertname"] == "" {
			return fmt.Errorf("no alertname in %v", a.Labels)
		}
		for k, v := range a.Labels {
			if !labelName.MatchString(k) || v == "" {
				return fmt.Errorf("label %q is %q", k, v)
			}
		}
		begin, err := time.Parse(time.RFC3339Nano, a.StartsAt)
		if err != nil {
			return err
		}
		end, err := time.Parse(time.RFC3339Nano, a.EndsAt)
		if err != nil {
			return err
		}
		if end.Before(begin) {
			return fmt.Errorf("it ends at %v and begins at %v", end, begin)
		}
		m.over = !end.After(time.Now())
		m.alerts = append(m.alerts, postable{a.Labels, a.Annotations, begin, end})
	}
	return nil
}

func (m *manager) last() (p postable, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.alerts) == 0 {
		return p, 0
	}
	return m.alerts[len(m.alerts)-1], m.posts
}

func TestAlertmanager(t *testing.T) {
	const remind = 400 * time.Millisecond // four of them may pass between a post and the look at it
	m := newManager(t)
	s := start(t, Config{Alertmanager: m.URL + "/", Remind: remind}, nil)
	a := hot(queue.Firing)
	s.Put(a)
	eventually(t, "reminders", func() bool { _, n := m.last(); return n >= 3 })
	p, _ := m.last()
	if p.Labels["alertname"] != "gpu_hot" || p.Labels["severity"] != "critical" || p.Labels["key"] != "h/GPU-1" || p.Annotations["summary"] != hot(queue.Firing).Text ||
		!p.StartsAt.Equal(a.Since) || !p.EndsAt.After(time.Now()) {
		t.Errorf("%+v", p)
	}
	for k, v := range p.Labels {
		if v == "h" { // the process that saw it: two would make two alerts
			t.Errorf("label %s names the source", k)
		}
	}
	m.mu.Lock()
	m.away = true
	m.mu.Unlock()
	s.Put(hot(queue.Resolved))
	time.Sleep(300 * time.Millisecond)
	m.mu.Lock()
	m.away = false
	m.mu.Unlock()
	eventually(t, "the end", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.over })
	_, n := m.last()
	time.Sleep(2 * remind)
	if _, later := m.last(); later != n {
		t.Errorf("%d posts after the end", later-n)
	}
	if len(m.wrong) > 0 {
		t.Errorf("refused: %v", m.wrong)
	}
}
