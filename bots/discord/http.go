package discord

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// replayWindow is how old a signed request may be. Discord names none; the
// guard is ours.
const replayWindow = 5 * time.Minute

// Endpoint returns the handler of the interactions endpoint, the alternative to
// the gateway: several processes can serve it behind one public address.
func (b *Bot) Endpoint(ctx context.Context) (http.Handler, error) {
	key, err := hex.DecodeString(b.config.PublicKey)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("discord.public_key is not a public key: copy it from the application's page (64 hex digits)")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received := time.Now()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		stamp := r.Header.Get("X-Signature-Timestamp")
		sig, sigErr := hex.DecodeString(r.Header.Get("X-Signature-Ed25519"))
		if err != nil || sigErr != nil || len(sig) != ed25519.SignatureSize || !ed25519.Verify(key, append([]byte(stamp), body...), sig) {
			http.Error(w, "invalid request signature", http.StatusUnauthorized)
			return
		}
		unix, err := strconv.ParseInt(stamp, 10, 64)
		if age := received.Sub(time.Unix(unix, 0)); err != nil || age > replayWindow || age < -replayWindow {
			http.Error(w, "request is too old", http.StatusUnauthorized)
			return
		}
		var in interaction
		if err := json.Unmarshal(body, &in); err != nil {
			http.Error(w, "malformed interaction", http.StatusBadRequest)
			return
		}
		a := &bodyAnswer{b: b, in: &in, received: received, answer: make(chan []byte, 1)}
		if in.Type == typePing {
			_, _ = a.first(ctx, answerPong, nil, nil)
		} else {
			b.mu.Lock()
			fresh := b.seen.Add(in.ID)
			b.mu.Unlock()
			if !fresh { // a captured request, played again
				http.Error(w, "interaction was answered", http.StatusConflict)
				return
			}
			b.work.Go(func() {
				defer func() {
					if r := recover(); r != nil {
						b.log.Error("handling an interaction panicked", "panic", r)
					}
				}()
				b.serve(ctx, &in, received, a)
			})
		}
		select {
		case text := <-a.answer:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(text)
		case <-time.After(b.config.AckBudget):
			http.Error(w, "no answer in time", http.StatusServiceUnavailable)
		}
	}), nil
}

// bodyAnswer answers in the HTTP response. The message's id is not in any
// answer then; it is asked for afterwards.
type bodyAnswer struct {
	b        *Bot
	in       *interaction
	received time.Time
	answer   chan []byte
	once     sync.Once
}

func (a *bodyAnswer) first(ctx context.Context, kind int, data any, _ []upload) (*posted, error) {
	body := map[string]any{"type": kind}
	if data != nil {
		body["data"] = data
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	a.once.Do(func() { a.answer <- text; a.b.acked(a.received) })
	if kind != answerMessage {
		return nil, nil
	}
	var p posted
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	path := "/webhooks/" + a.in.ApplicationID + "/" + a.in.Token + "/messages/@original"
	for range 4 { // it exists a moment after our answer arrived
		time.Sleep(250 * time.Millisecond)
		if err = a.b.rest.do(ask, call{method: http.MethodGet, path: path, into: &p, noToken: true}); err == nil {
			return &p, nil
		}
	}
	return nil, nil // the answer was given; only progress will not be shown
}
