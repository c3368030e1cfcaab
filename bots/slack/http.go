package slack

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// replayWindow is how old a signed request may be.
const replayWindow = 5 * time.Minute

// Endpoint returns the handler for commands and interactivity over HTTP, the
// alternative to Socket Mode: both request URLs of the app may point to it.
func (b *Bot) Endpoint(ctx context.Context) (http.Handler, error) {
	if b.config.SigningSecret == "" {
		return nil, errors.New("slack.signing_secret is not set: copy it from the app's Basic Information page")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The signature is over the raw body: read it before anything parses it.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil || !b.genuine(r.Header, body, time.Now()) {
			http.Error(w, "invalid request signature", http.StatusUnauthorized)
			return
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			http.Error(w, "malformed form", http.StatusBadRequest)
			return
		}
		kind, payload, id := "interactive", json.RawMessage(form.Get("payload")), ""
		if len(payload) == 0 {
			flat := map[string]string{}
			for k := range form {
				if k != "is_enterprise_install" { // text here, a boolean in Socket Mode
					flat[k] = form.Get(k)
				}
			}
			kind, id = "slash_commands", form.Get("trigger_id")
			payload, err = json.Marshal(flat)
		} else {
			var trigger struct {
				ID string `json:"trigger_id"`
			}
			err = json.Unmarshal(payload, &trigger)
			id = trigger.ID
		}
		if err != nil || id == "" {
			http.Error(w, "malformed payload", http.StatusBadRequest)
			return
		}
		answer := make(chan any, 1)
		b.handle(ctx, kind, id, payload, func(v any) error {
			select {
			case answer <- v:
			default:
			}
			return nil
		})
		select {
		case v := <-answer:
			if v == nil {
				w.WriteHeader(http.StatusOK)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		case <-time.After(b.config.AckBudget):
			w.WriteHeader(http.StatusOK) // better a late answer by the response URL than an error
		}
	}), nil
}

// genuine checks Slack's signature, version 0.
func (b *Bot) genuine(h http.Header, body []byte, now time.Time) bool {
	stamp := h.Get("X-Slack-Request-Timestamp")
	unix, err := strconv.ParseInt(stamp, 10, 64)
	if age := now.Sub(time.Unix(unix, 0)); err != nil || age > replayWindow || age < -replayWindow {
		return false
	}
	mac := hmac.New(sha256.New, []byte(b.config.SigningSecret))
	fmt.Fprintf(mac, "v0:%s:%s", stamp, body)
	return hmac.Equal([]byte("v0="+hex.EncodeToString(mac.Sum(nil))), []byte(h.Get("X-Slack-Signature")))
}
