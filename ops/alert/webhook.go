package alert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"dreamcad/queue"
)

// webhook posts each begin and each end as JSON. Processes that share a queue and
// a URL tell it once; while the queue is away each tells for itself, but for what
// [Config.Defer] leaves to another.
type webhook struct {
	url    string
	header http.Header
	queue  Queue       // may be nil
	record string      // of the records about this URL, which may be a secret
	firing map[id]bool // firing, as this URL knows
	stale  map[id]told // told without the queue, whose records may be older
}

// told is what was told last, and when it was so.
type told struct {
	state queue.AlertState // "": nothing
	at    time.Time
}

func (r told) text() []byte {
	return []byte(string(r.state) + " " + r.at.UTC().Format(time.RFC3339Nano))
}

func newWebhook(url string, header http.Header, q Queue) *webhook {
	sum := sha256.Sum256([]byte(url))
	return &webhook{url: url, header: header, queue: q, record: "told-" + hex.EncodeToString(sum[:6]), firing: map[id]bool{}, stale: map[id]told{}}
}

// askLimit bounds what the queue is asked before a delivery goes out without it.
const askLimit = time.Second

// toldLife is how long a record of what was told stays: longer than alerts fire.
const toldLife = 30 * 24 * time.Hour

func (w *webhook) deliver(ctx context.Context, a *queue.Alert) error {
	if a.State == queue.Firing && w.firing[idOf(a)] {
		return nil // a new text only
	}
	if w.queue == nil {
		return w.post(ctx, a)
	}
	ask, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	asked := false
	err := alone(ask, w.queue, w.record, a, func() error {
		last, err := w.last(ask, a)
		if err != nil {
			return err
		}
		asked = true
		// Told by another process, begin and end perhaps, or its begin was told to nobody.
		if last.state == a.State || last.state == "" && a.State == queue.Resolved || over(a, last.at) {
			w.remember(a)
			return nil
		}
		if err := w.post(ctx, a); err != nil {
			return err
		}
		w.write(ctx, a, told{a.State, a.At})
		return nil
	})
	if asked {
		return err
	}
	if err = w.post(ctx, a); err == nil {
		w.stale[idOf(a)] = told{a.State, a.At}
	}
	return err
}

// last is what was told last by whichever process.
func (w *webhook) last(ctx context.Context, a *queue.Alert) (told, error) {
	r, err := w.queue.Get(ctx, lockName(w.record, a))
	if err != nil && queue.CodeOf(err) != queue.CodeNotFound {
		return told{}, err
	}
	state, at, _ := strings.Cut(string(r.Value), " ")
	out := told{state: queue.AlertState(state)}
	out.at, _ = time.Parse(time.RFC3339Nano, at)
	if own, ok := w.stale[idOf(a)]; ok && own.at.After(out.at) {
		return own, nil
	}
	return out, nil
}

// write notes what was told. What cannot be written now is written later.
func (w *webhook) write(ctx context.Context, a *queue.Alert, r told) {
	if _, err := w.queue.Put(ctx, lockName(w.record, a), r.text(), queue.AnyVersion, toldLife); err != nil {
		w.stale[idOf(a)] = r
		return
	}
	delete(w.stale, idOf(a))
}

// every and remind write the records that could not be written.
func (w *webhook) every() time.Duration { return 10 * time.Second }

func (w *webhook) remind(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, deliverLimit)
	defer cancel()
	for k := range w.stale {
		a := &queue.Alert{Code: k[0], Key: k[1]}
		err := alone(limited, w.queue, w.record, a, func() error {
			last, err := w.last(limited, a)
			if err == nil {
				w.write(limited, a, last) // the newer of both
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *webhook) remember(a *queue.Alert) {
	if a.State == queue.Firing {
		w.firing[idOf(a)] = true
	} else {
		delete(w.firing, idOf(a))
	}
}

func (w *webhook) post(ctx context.Context, a *queue.Alert) error {
	if err := postJSON(ctx, w.url, w.header, a); err != nil {
		return fmt.Errorf("post to the webhook: %w", err)
	}
	w.remember(a)
	return nil
}

func postJSON(ctx context.Context, url string, header http.Header, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the alert: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16)) // read to the end, so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %s: %.200s", resp.Status, bytes.TrimSpace(text))
	}
	return nil
}
