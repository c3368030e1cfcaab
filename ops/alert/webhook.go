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
	"time"

	"dreamcad/queue"
)

// webhook posts each begin and each end as JSON. Processes that share a queue and
// a URL tell it once; while the queue is away each tells for itself.
type webhook struct {
	url    string
	header http.Header
	queue  Queue                   // may be nil
	record string                  // of the records about this URL, which may be a secret
	told   map[id]bool             // firing, as this URL knows
	stale  map[id]queue.AlertState // told without the queue, whose records are older
}

func newWebhook(url string, header http.Header, q Queue) *webhook {
	sum := sha256.Sum256([]byte(url))
	return &webhook{url: url, header: header, queue: q, record: "told-" + hex.EncodeToString(sum[:6]), told: map[id]bool{}, stale: map[id]queue.AlertState{}}
}

// askLimit bounds what the queue is asked before a delivery goes out without it.
const askLimit = time.Second

// toldLife is how long a record of what was told stays: longer than alerts fire.
const toldLife = 30 * 24 * time.Hour

func (w *webhook) deliver(ctx context.Context, a *queue.Alert) error {
	if a.State == queue.Firing && w.told[idOf(a)] {
		return nil // a new text only
	}
	if w.queue == nil {
		return w.post(ctx, a)
	}
	ask, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	asked := false
	err := alone(ask, w.queue, w.record, a, func() error {
		state, err := w.state(ask, a)
		if err != nil {
			return err
		}
		asked = true
		if state == a.State || state == "" && a.State == queue.Resolved { // told by another process, or its begin was told to nobody
			w.remember(a)
			return nil
		}
		if err := w.post(ctx, a); err != nil {
			return err
		}
		w.write(ctx, idOf(a), a.State)
		return nil
	})
	if asked {
		return err
	}
	if err = w.post(ctx, a); err == nil {
		w.stale[idOf(a)] = a.State
	}
	return err
}

// state is what was told last by whichever process; "": nothing.
func (w *webhook) state(ctx context.Context, a *queue.Alert) (queue.AlertState, error) {
	if s, ok := w.stale[idOf(a)]; ok {
		return s, nil
	}
	r, err := w.queue.Get(ctx, lockName(w.record, a))
	if queue.CodeOf(err) == queue.CodeNotFound {
		return "", nil
	}
	return queue.AlertState(r.Value), err
}

// write notes what was told. What cannot be written now is written later.
func (w *webhook) write(ctx context.Context, k id, s queue.AlertState) {
	if _, err := w.queue.Put(ctx, lockName(w.record, &queue.Alert{Code: k[0], Key: k[1]}), []byte(s), queue.AnyVersion, toldLife); err != nil {
		w.stale[k] = s
		return
	}
	delete(w.stale, k)
}

// every and remind write the records that could not be written.
func (w *webhook) every() time.Duration { return 10 * time.Second }

func (w *webhook) remind(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, deliverLimit)
	defer cancel()
	for k, s := range w.stale {
		w.write(limited, k, s)
	}
	return nil
}

func (w *webhook) remember(a *queue.Alert) {
	if a.State == queue.Firing {
		w.told[idOf(a)] = true
	} else {
		delete(w.told, idOf(a))
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
