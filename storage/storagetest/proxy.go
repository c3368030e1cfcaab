package storagetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is one way in which a server can fail a request.
type Fault string

// The faults.
const (
	Error500  Fault = "500"            // an S3 error with that status
	Error503  Fault = "503"            // SlowDown
	Error403  Fault = "403"            // AccessDenied
	Skewed403 Fault = "403 clock"      // RequestTimeTooSkewed
	Slow      Fault = "slow"           // 10 kB/s to the server
	Reset     Fault = "reset"          // the connection breaks in the middle of the request's body
	CutBody   Fault = "cut body"       // the answer's body ends early
	FalseOK   Fault = "200 with error" // status 200 and an error text as body
	LostReply Fault = "lost reply"     // the request takes effect, its answer never comes
)

// Proxy stands between a client and an S3 server and fails requests on command.
type Proxy struct {
	Endpoint string

	mu     sync.Mutex
	fault  Fault
	left   int // requests that still fail
	match  func(*http.Request) bool
	failed int
	ended  chan struct{}
}

// StartProxy starts a proxy before a server; it ends with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{ended: make(chan struct{})}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			host := r.In.Host // is signed
			r.SetURL(u)
			r.Out.Host = host
		},
		Transport:    &http.Transport{DisableKeepAlives: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, rp) }))
	t.Cleanup(func() { close(p.ended); srv.Close() })
	p.Endpoint = srv.URL
	return p
}

// Fail lets the next n requests that match fail; nil matches all.
func (p *Proxy) Fail(f Fault, n int, match func(*http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.left, p.match, p.failed = f, n, match, 0
}

// Failed counts the requests that were failed since Fail.
func (p *Proxy) Failed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *Proxy) take(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 || p.match != nil && !p.match(r) {
		return ""
	}
	p.left--
	p.failed++
	return p.fault
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch f := p.take(r); f {
	case "":
		next.ServeHTTP(w, r)
	case Error500:
		answer(w, r, http.StatusInternalServerError, "InternalError")
	case Error503:
		answer(w, r, http.StatusServiceUnavailable, "SlowDown")
	case Error403:
		answer(w, r, http.StatusForbidden, "AccessDenied")
	case Skewed403:
		answer(w, r, http.StatusForbidden, "RequestTimeTooSkewed")
	case FalseOK:
		answer(w, r, http.StatusOK, "InternalError")
	case Slow:
		r.Body = &slowBody{r.Body, p.ended}
		next.ServeHTTP(w, r)
	case Reset:
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		panic(http.ErrAbortHandler)
	case LostReply:
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		panic(http.ErrAbortHandler)
	case CutBody:
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		panic(http.ErrAbortHandler)
	default:
		panic("unknown fault " + string(f))
	}
}

func answer(w http.ResponseWriter, r *http.Request, status int, code string) {
	_, _ = io.Copy(io.Discard, r.Body)
	body := fmt.Sprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>told to fail</Message></Error>", code)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, strings.NewReader(body))
	}
}

type slowBody struct {
	io.ReadCloser
	ended <-chan struct{}
}

func (s *slowBody) Read(b []byte) (int, error) {
	select {
	case <-s.ended:
		return 0, io.ErrClosedPipe
	case <-time.After(100 * time.Millisecond):
	}
	return s.ReadCloser.Read(b[:min(len(b), 1000)])
}
