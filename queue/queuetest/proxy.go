package queuetest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy that misbehaves on demand. All settings apply to bytes
// from then on.
type Proxy struct {
	Addr   string
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu      sync.Mutex
	cond    *sync.Cond
	delay   time.Duration // of each answer
	held    bool          // requests wait in the proxy
	cutNext bool          // drop the next answer and reset its connection
	cuts    int
	refuse  bool
	conns   map[net.Conn]struct{}
	closed  bool
}

// StartProxy listens on a loopback port and forwards to target until the test ends.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, l: l, conns: map[net.Conn]struct{}{}}
	p.cond = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close() // the test is over
	}
	p.cond.Broadcast()
	p.mu.Unlock()
	_ = p.l.Close()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		p.mu.Lock()
		if err != nil || p.refuse || p.closed {
			p.mu.Unlock()
			_ = c.Close()
			if err == nil {
				_ = s.Close()
			}
			continue
		}
		p.conns[c], p.conns[s] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() { p.pipe(s, c, p.request) })
		p.wg.Go(func() { p.pipe(c, s, p.answer) })
	}
}

// pipe copies from src to dst; gate may wait, or say that the bytes are dropped.
func (p *Proxy) pipe(dst, src net.Conn, gate func() bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			if !gate() {
				break
			}
			if _, werr := dst.Write(b[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			if err == io.EOF {
				break
			}
			break
		}
	}
	_ = dst.Close()
	_ = src.Close()
	p.mu.Lock()
	delete(p.conns, dst)
	delete(p.conns, src)
	p.mu.Unlock()
}

// request lets a client's bytes pass once they are not held.
func (p *Proxy) request() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held && !p.closed {
		p.cond.Wait()
	}
	return !p.closed
}

// answer lets the server's bytes pass, late, or not at all.
func (p *Proxy) answer() bool {
	p.mu.Lock()
	d, cut := p.delay, p.cutNext
	if cut {
		p.cutNext = false
		p.cuts++
	}
	p.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
	return !cut
}

// Delay makes each answer late.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Hold keeps clients' bytes in the proxy; Release delivers them, however late.
func (p *Proxy) Hold() { p.set(func() { p.held = true }) }

// Release ends Hold.
func (p *Proxy) Release() { p.set(func() { p.held = false }) }

// CutNextAnswer drops the next answer after the server did the work.
func (p *Proxy) CutNextAnswer() { p.set(func() { p.cutNext = true }) }

// Cuts is how many answers were dropped.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Break resets all connections and, while refuse, takes no new ones.
func (p *Proxy) Break(refuse bool) {
	p.set(func() {
		p.refuse = refuse
		for c := range p.conns {
			_ = c.Close() // that is the point
		}
	})
}

func (p *Proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.cond.Broadcast()
}
