package discordtest

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Limit is a rate limit of a route: so many requests in a window.
type Limit struct {
	Requests int
	Window   time.Duration
}

type bucket struct {
	left  int
	reset time.Time
	limit Limit
}

// SetLimit gives a route its limit; "" sets the global one (default 50 a
// second). A route is the method and the path without ids, e.g.
// "POST channels messages". Default: 5 in 5 s for messages, as is usual.
func (s *Server) SetLimit(route string, l Limit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits[route] = l
	if route == "" {
		s.global = nil
	}
}

// Overruns counts 429 answers that the server gave for its own limits.
func (s *Server) Overruns() int {
	n := 0
	for _, r := range s.Requests("", "") {
		if r.Status == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

// pace takes a request into account. Interaction answers count towards their
// own webhook buckets, not towards the global limit.
func (s *Server) pace(c *call, header http.Header) *apiError {
	now := s.Now()
	route, major := c.method, ""
	for i, p := range c.path {
		if _, err := strconv.ParseUint(p, 10, 64); err == nil {
			if major == "" {
				major = p
			}
			continue
		}
		if i == 2 && (c.path[0] == "webhooks" || c.path[0] == "interactions") {
			major = p
			continue
		}
		route += " " + p
	}
	if c.bot {
		l, ok := s.limits[""]
		if !ok {
			l = Limit{50, time.Second}
		}
		if s.global == nil {
			s.global = &bucket{limit: l}
		}
		if wait := s.global.take(now); wait > 0 {
			return &apiError{status: http.StatusTooManyRequests, text: "You are being rate limited.", header: http.Header{
				"Retry-After": {seconds(wait)}, "X-Ratelimit-Global": {"true"}, "X-Ratelimit-Scope": {"global"}}}
		}
	}
	l, ok := s.limits[route]
	if !ok && len(c.path) > 2 && c.path[0] == "channels" && c.path[2] == "messages" {
		l, ok = Limit{5, 5 * time.Second}, true
	}
	if !ok {
		return nil
	}
	key := route + "/" + major
	b := s.buckets[key]
	if b == nil {
		b = &bucket{limit: l}
		s.buckets[key] = b
	}
	wait := b.take(now)
	header.Set("X-RateLimit-Limit", strconv.Itoa(l.Requests))
	header.Set("X-RateLimit-Remaining", strconv.Itoa(b.left))
	header.Set("X-RateLimit-Reset", fmt.Sprintf("%.3f", float64(b.reset.UnixMilli())/1000))
	header.Set("X-RateLimit-Reset-After", seconds(b.reset.Sub(now)))
	header.Set("X-RateLimit-Bucket", fmt.Sprintf("%x", []byte(route)))
	if wait > 0 {
		return &apiError{status: http.StatusTooManyRequests, text: "You are being rate limited.", header: http.Header{
			"Retry-After": {seconds(wait)}, "X-Ratelimit-Scope": {"user"}}}
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

func (b *bucket) take(now time.Time) time.Duration {
	if !now.Before(b.reset) {
		b.left, b.reset = b.limit.Requests, now.Add(b.limit.Window)
	}
	if b.left == 0 {
		return b.reset.Sub(now)
	}
	b.left--
	return 0
}
