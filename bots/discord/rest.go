package discord

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dreamcad/bots"
)

const userAgent = "DiscordBot (https://github.com/dreamcad, 1)"

// rest is a client of the REST API. It waits for nothing and repeats nothing:
// callers decide.
type rest struct {
	base    string
	token   string
	client  *http.Client
	learn   func(bucket string, until time.Time)
	revoked atomic.Bool // 401: every further call would count towards a ban
}

func newRest(base, token string) *rest {
	return &rest{
		base: strings.TrimSuffix(base, "/") + "/api/v10", token: token,
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
		}},
		learn: func(string, time.Time) {},
	}
}

// tokenName stands for the token where the token must not be seen.
func tokenName(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:8])
}

// call is one request.
type call struct {
	method  string
	path    string // below /api/v10
	body    any
	files   []upload
	into    any
	noToken bool // interaction answers carry their own token in the path
	bucket  string
}

type upload struct {
	name, mediaType, alt string
	data                 []byte
}

// do performs a call. Errors are *bots.ChatError; they never hold the path of
// a webhook, which is a secret.
func (r *rest) do(ctx context.Context, c call) error {
	doing := strings.ToLower(c.method) + " " + publicPath(c.path)
	if !c.noToken && r.revoked.Load() {
		return &bots.ChatError{Trouble: bots.TroubleRevoked, Doing: doing, Err: errors.New("the token was refused before")}
	}
	body, contentType, err := encodeBody(&c)
	if err != nil {
		return &bots.ChatError{Trouble: bots.TroubleContent, Doing: doing, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, c.method, r.base+c.path, body)
	if err != nil {
		return &bots.ChatError{Trouble: bots.TroubleContent, Doing: doing, Err: errors.New("the address is malformed")}
	}
	req.Header.Set("User-Agent", userAgent)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if !c.noToken {
		req.Header.Set("Authorization", "Bot "+r.token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return &bots.ChatError{Trouble: bots.TroubleTemporary, Doing: doing, Err: redact(err, c.path)}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return &bots.ChatError{Trouble: bots.TroubleTemporary, Doing: doing, Err: redact(err, c.path)}
	}
	if resp.Header.Get("X-RateLimit-Remaining") == "0" && c.bucket != "" {
		if s, err := strconv.ParseFloat(resp.Header.Get("X-RateLimit-Reset-After"), 64); err == nil {
			r.learn(c.bucket, time.Now().Add(time.Duration(s*float64(time.Second))))
		}
	}
	if resp.StatusCode >= 300 {
		e := r.classify(resp, text, !c.noToken)
		e.Doing = doing
		return e
	}
	if c.into != nil && len(text) > 0 {
		if err := json.Unmarshal(text, c.into); err != nil {
			return &bots.ChatError{Trouble: bots.TroubleTemporary, Doing: doing, Err: fmt.Errorf("read the answer: %w", err)}
		}
	}
	return nil
}

// publicPath leaves out the tokens in paths.
func publicPath(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) > 3 && (parts[1] == "webhooks" || parts[1] == "interactions") {
		parts[3] = "…"
	}
	return strings.Join(parts, "/")
}

func redact(err error, path string) error {
	if public := publicPath(path); public != path {
		return errors.New(strings.ReplaceAll(err.Error(), path, public))
	}
	return err
}

func encodeBody(c *call) (io.Reader, string, error) {
	if c.body == nil {
		return nil, "", nil
	}
	text, err := json.Marshal(c.body)
	if err != nil {
		return nil, "", err
	}
	if len(c.files) == 0 {
		return bytes.NewReader(text), "application/json", nil
	}
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	part, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="payload_json"`}, "Content-Type": {"application/json"}})
	if err == nil {
		_, err = part.Write(text)
	}
	for i, f := range c.files {
		if err != nil {
			break
		}
		part, err = w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf(`form-data; name="files[%d]"; filename=%q`, i, f.name)}, "Content-Type": {f.mediaType}})
		if err == nil {
			_, err = part.Write(f.data)
		}
	}
	if err == nil {
		err = w.Close()
	}
	return &buf, w.FormDataContentType(), err
}

// discordError is the body of a refusal.
type discordError struct {
	Status     int
	Code       int             `json:"code"`
	Message    string          `json:"message"`
	Errors     json.RawMessage `json:"errors"`
	RetryAfter float64         `json:"retry_after"`
	Global     bool            `json:"global"`
}

func (e *discordError) Error() string {
	s := fmt.Sprintf("%d %s (code %d)", e.Status, e.Message, e.Code)
	if len(e.Errors) > 0 {
		s += " " + string(e.Errors[:min(len(e.Errors), 300)])
	}
	return s
}

// codeTrouble says what to do about an error code.
var codeTrouble = map[int]bots.Trouble{
	10003: bots.TroublePlace, 10008: bots.TroubleMessage, 50001: bots.TroublePlace, 50013: bots.TroublePlace,
	10015: bots.TroubleMessage, 10062: bots.TroubleMessage, 50027: bots.TroubleMessage, 40060: bots.TroubleMessage,
	50007: bots.TroublePerson, 50278: bots.TroublePerson, 50083: bots.TroubleThread,
	200000: bots.TroubleContent, 240000: bots.TroubleContent, 50035: bots.TroubleContent, 50006: bots.TroubleContent,
	30046: bots.TroubleMessage, 50005: bots.TroubleMessage,
	40005: bots.TroubleSize, 50045: bots.TroubleSize, 30015: bots.TroubleSize,
	40003: bots.TroubleLimited, 20016: bots.TroubleLimited, 20028: bots.TroubleLimited,
}

func (r *rest) classify(resp *http.Response, text []byte, withToken bool) *bots.ChatError {
	e := &discordError{Status: resp.StatusCode, Message: http.StatusText(resp.StatusCode)}
	isJSON := json.Unmarshal(text, e) == nil
	out := &bots.ChatError{Trouble: bots.TroubleTemporary, Err: e}
	trouble, known := codeTrouble[e.Code]
	switch {
	case known && trouble != bots.TroubleLimited:
		out.Trouble = trouble
	case resp.StatusCode == http.StatusTooManyRequests || known:
		out.Trouble = bots.TroubleLimited
		out.RetryAfter = retryAfter(resp, e)
		if !isJSON { // a ban page in front of the API: stop everything
			out.Bucket = globalBucket
			if resp.Header.Get("Retry-After") == "" {
				out.RetryAfter = 10 * time.Minute
			}
		} else if e.Global || resp.Header.Get("X-RateLimit-Global") != "" {
			out.Bucket = globalBucket
		}
	case resp.StatusCode == http.StatusUnauthorized && withToken:
		r.revoked.Store(true)
		out.Trouble = bots.TroubleRevoked
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusNotFound:
		out.Trouble = bots.TroublePlace
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		out.Trouble = bots.TroubleSize
	case resp.StatusCode == http.StatusBadRequest:
		out.Trouble = bots.TroubleContent
	}
	return out
}

func retryAfter(resp *http.Response, e *discordError) time.Duration {
	s := e.RetryAfter
	if s == 0 {
		s, _ = strconv.ParseFloat(resp.Header.Get("Retry-After"), 64)
	}
	if s <= 0 {
		s = 1
	}
	return time.Duration(s * float64(time.Second))
}

// code returns Discord's error code in err's chain, or 0.
func code(err error) int {
	if e, ok := errors.AsType[*discordError](err); ok {
		return e.Code
	}
	return 0
}
