package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Silence is an operator's wish not to hear about some alerts for a while: those
// whose code and key match. A "*" in either stands for any text. It is a record
// of [State] whose life ends with it; a newer one with the same code and key
// replaces it.
type Silence struct {
	Code   string    `json:"code"`
	Key    string    `json:"key"`
	By     string    `json:"by"` // platform:id, or the user on the command line
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until"`
}

const silencePrefix = "alert/silence/"

// Record is the key of the silence's record.
func (s *Silence) Record() string { return silencePrefix + s.Code + "/" + s.Key }

// Matches tells whether it is about an alert with this code and key.
func (s *Silence) Matches(code, key string) bool { return matches(s.Code, code) && matches(s.Key, key) }

func matches(pattern, s string) bool {
	re, err := regexp.Compile("^(?s:" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + ")$")
	return err == nil && re.MatchString(s)
}

// AddSilence begins a silence; its Until must lie ahead.
func AddSilence(ctx context.Context, st State, s *Silence) error {
	life := time.Until(s.Until)
	if life <= 0 {
		return fmt.Errorf("silence %s/%s: it would end before it began", s.Code, s.Key)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("silence %s/%s: %w", s.Code, s.Key, err)
	}
	_, err = st.Put(ctx, s.Record(), text, AnyVersion, life)
	return err
}

// RemoveSilence ends the silence with exactly this code and key; CodeNotFound
// if there is none.
func RemoveSilence(ctx context.Context, st State, code, key string) error {
	s := Silence{Code: code, Key: key}
	r, err := st.Get(ctx, s.Record())
	if err != nil {
		return err
	}
	return st.Delete(ctx, s.Record(), r.Version)
}

// Silences lists those in force, by code and key.
func Silences(ctx context.Context, st State) ([]Silence, error) {
	keys, err := st.Keys(ctx, silencePrefix, "")
	if err != nil {
		return nil, err
	}
	var out []Silence
	for _, k := range keys {
		r, err := st.Get(ctx, k)
		if CodeOf(err) == CodeNotFound { // it has just ended
			continue
		}
		if err != nil {
			return nil, err
		}
		var s Silence
		if err := json.Unmarshal(r.Value, &s); err != nil {
			return nil, fmt.Errorf("read the silence %q: %w", k, err)
		}
		// The record's key decides: it is what a button writes.
		s.Code, s.Key, _ = strings.Cut(strings.TrimPrefix(k, silencePrefix), "/")
		out = append(out, s)
	}
	return out, nil
}

// Silenced tells whether a silence covers the alert.
func Silenced(ctx context.Context, st State, code, key string) (bool, error) {
	list, err := Silences(ctx, st)
	for i := range list {
		if list[i].Matches(code, key) {
			return true, nil
		}
	}
	return false, err
}
