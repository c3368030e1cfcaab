package rules

import "time"

// Consumers remembers who reads the outbox, so that what was said about one that
// is retired is taken back.
type Consumers struct{ known map[string]time.Time }

// Know mentions a consumer that was talked about before this process began.
func (c *Consumers) Know(name string) {
	if c.known == nil {
		c.known = map[string]time.Time{}
	}
	if _, ok := c.known[name]; !ok {
		c.known[name] = time.Time{}
	}
}

// Retired are the consumers of whom nothing is expected: those of the outbox that
// no bot has served lately, and those that have gone from it. served says whom a
// bot serves.
func (c *Consumers) Retired(now time.Time, outbox map[string]int64, served func(consumer string) bool) map[string]bool {
	out := map[string]bool{}
	for name := range outbox {
		c.Know(name)
		c.known[name] = now
		if !served(name) {
			out[name] = true
		}
	}
	for name, seen := range c.known {
		if seen.IsZero() {
			c.known[name] = now
		}
		if _, there := outbox[name]; there {
			continue
		}
		out[name] = true
		if now.Sub(c.known[name]) > remember {
			delete(c.known, name)
		}
	}
	return out
}
