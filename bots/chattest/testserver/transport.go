package testserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"
)

// Transport brings requests to a handler within the process, for tests in
// simulated time (testing/synctest). Each takes the given time to be answered.
func Transport(h http.HandlerFunc, delay time.Duration) http.RoundTripper {
	return inProcess{h, delay}
}

type inProcess struct {
	handler http.HandlerFunc
	delay   time.Duration
}

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	t := time.NewTimer(p.delay)
	defer t.Stop()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-t.C:
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	defer func() {
		if lost := recover(); lost != nil { // the server breaks the connection
			err = fmt.Errorf("connection lost: %v", lost)
		}
	}()
	w := httptest.NewRecorder()
	p.handler(w, r)
	return w.Result(), nil
}
