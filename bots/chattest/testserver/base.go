// Package testserver is what the test servers of the chat platforms share: a
// listener or none, a clock that the test moves, a way to wait for what happens,
// and a main program.
package testserver

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"
)

// Base is a server without its answers. Embed it; end it with Shut.
type Base struct {
	http   *httptest.Server
	handle http.HandlerFunc
	offset atomic.Int64 // of the clock

	mu      sync.Mutex
	changed chan struct{}
}

// Init must be called once, before anything else.
func (b *Base) Init(h http.HandlerFunc) {
	b.handle, b.changed = h, make(chan struct{})
	b.http = httptest.NewUnstartedServer(h)
}

// Start listens on l; nil: on a free loopback port.
func (b *Base) Start(l net.Listener) {
	if l != nil {
		b.http.Listener.Close()
		b.http.Listener = l
	}
	b.http.Start()
}

// StayOffline gives the server an address without a network, for tests in
// simulated time (testing/synctest): requests reach it through Transport.
func (b *Base) StayOffline(address string) {
	b.http.Listener.Close()
	b.http.URL = address
}

// Transport brings requests to the server within the process. Each takes the
// given time to be answered.
func (b *Base) Transport(delay time.Duration) http.RoundTripper { return Transport(b.handle, delay) }

// Shut ends the server.
func (b *Base) Shut() {
	b.http.CloseClientConnections()
	b.http.Close()
}

// Address is http://HOST:PORT.
func (b *Base) Address() string { return b.http.URL }

// Now is the server's time.
func (b *Base) Now() time.Time { return time.Now().Add(time.Duration(b.offset.Load())) }

// Advance moves the server's clock.
func (b *Base) Advance(d time.Duration) { b.offset.Add(int64(d)) }

// Touch tells those who Wait that something changed.
func (b *Base) Touch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

// Wait waits until cond holds, looked at after each change, and reports whether
// it did in time. cond runs without any lock of the server.
func (b *Base) Wait(d time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		ch := b.changed
		b.mu.Unlock()
		if cond() {
			return true
		}
		select {
		case <-ch:
		case <-time.After(50 * time.Millisecond):
		case <-deadline.C:
			return cond()
		}
	}
}

// Main runs a server by itself until an interrupt and prints what start says
// about it as one line of JSON.
func Main(start func(net.Listener) (about map[string]string, stop func())) {
	addr := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	about, stop := start(l)
	defer stop()
	_ = json.NewEncoder(os.Stdout).Encode(about) // nothing else can be done about a closed output
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	<-interrupt
}
