package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
)

// askLimit bounds what one server is asked.
const askLimit = 30 * time.Second

func queueChecks(ctx context.Context, d *Deps) []Result {
	const title = "Queue"
	if d.Queue == nil {
		if d.QueueAbsent != "" {
			return []Result{{Code: "queue", Title: title, Verdict: Unknown, Text: fmt.Sprintf("There is none yet: %s is made at first use.", d.QueueAbsent)}}
		}
		if d.QueueError == nil {
			return []Result{{Code: "queue", Title: title, Verdict: Unknown, Text: "It was not looked at."}}
		}
		do := "Check queue.url and that the server runs."
		if queue.CodeOf(d.QueueError) == queue.CodeFull {
			do = "Raise the server's maxmemory or make room on its disk; a Redis of its own is best."
		}
		return []Result{{Code: "queue", Title: title, Verdict: Fail, Text: fmt.Sprintf("It cannot be used: %v.", d.QueueError), Do: do}}
	}
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var out []Result
	for _, f := range d.Queue.Check(limited) {
		v := map[queue.Severity]Verdict{queue.Info: Pass, queue.Warning: Warn, queue.Critical: Fail}[f.Severity]
		if f.Unknown {
			v = Unknown
		}
		out = append(out, Result{Code: "queue/" + f.Code, Title: title + ": " + f.Title, Verdict: v, Text: f.Text})
	}
	if len(out) == 0 {
		out = append(out, Result{Code: "queue", Title: title, Verdict: Pass, Text: "It answers, and nothing is wrong with its settings."})
	}
	return out
}

func store(ctx context.Context, d *Deps) Result {
	r := Result{Code: "storage", Title: "Storage", Verdict: Pass}
	if d.Store == nil {
		r.Verdict, r.Text = Unknown, "It was not looked at."
		if d.StoreAbsent != "" {
			r.Text = fmt.Sprintf("There is none yet: %s is made at first use.", d.StoreAbsent)
		}
		if d.StoreError != nil {
			r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("It cannot be used: %v.", d.StoreError), "Check storage.url."
		}
		return r
	}
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	f, err := d.Store.Check(limited)
	switch {
	case err != nil:
		r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("Writing, reading and deleting a probe failed: %v.", err), "Check storage.url, the keys and the server."
	case !f.Conditional:
		r.Verdict, r.Text = Warn, f.Backend+": a second writer is let through, so only the queue keeps results from being published twice."
		r.Do = "Use a server with conditional PUT (If-None-Match)."
	default:
		r.Text = f.Backend + ": writes, reads and deletes; a second writer is refused."
	}
	return r
}

// Clocks that differ by more than these make leases and signed links go wrong.
const (
	skewWarn = 2 * time.Second
	skewFail = time.Minute
)

// clocks compares this machine's clock with those of the servers.
func clocks(ctx context.Context, d *Deps) []Result {
	var out []Result
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if d.QueueClock != nil {
		out = append(out, clock(limited, "queue", 0, d.QueueClock))
	}
	if d.Store != nil {
		out = append(out, clock(limited, "storage", time.Second, func(ctx context.Context) (time.Time, error) { return storeClock(ctx, d.Store) }))
	}
	return out
}

// storeClock writes an object and asks when that was.
func storeClock(ctx context.Context, s storage.Store) (time.Time, error) {
	key := "probe/" + rand.Text() + ".txt"
	if err := s.Put(ctx, key, bytes.NewReader([]byte("clock")), 5); err != nil {
		return time.Time{}, err
	}
	defer func() { _ = s.Delete(context.WithoutCancel(ctx), key) }()
	info, err := s.Stat(ctx, key)
	return info.Modified, err
}

// clock asks one server. Its answer may have been cut off to whole grains, and
// belongs to some moment between question and answer: only what neither
// explains counts.
func clock(ctx context.Context, name string, grain time.Duration, ask func(context.Context) (time.Time, error)) Result {
	r := Result{Code: "clock", Title: "Clock of the " + name, Verdict: Pass}
	begin := time.Now()
	there, err := ask(ctx)
	end := time.Now()
	if err != nil {
		r.Verdict, r.Text = Unknown, fmt.Sprintf("It could not be read: %v.", err)
		return r
	}
	var skew time.Duration
	switch {
	case there.After(end):
		skew = there.Sub(end)
	case there.Add(grain).Before(begin):
		skew = there.Add(grain).Sub(begin)
	}
	r.Text = fmt.Sprintf("It and the clock here agree to within %v.", max(end.Sub(begin), grain).Round(time.Millisecond))
	if off := skew.Abs(); off > skewWarn {
		side := "ahead of"
		if skew < 0 {
			side = "behind"
		}
		r.Verdict, r.Text = Warn, fmt.Sprintf("It is %v %s the clock here: times in messages and the ends of links are wrong.", off.Round(time.Second), side)
		r.Do = "Let both machines take their time from NTP (timedatectl set-ntp true)."
		if off > skewFail {
			r.Verdict = Fail
		}
	}
	return r
}

func chat(found []Finding) []Result {
	if len(found) == 0 {
		return []Result{{Code: "chat", Title: "Chat", Verdict: Unknown, Text: "No chat token is set: nothing was looked at."}}
	}
	var out []Result
	for _, f := range found {
		r := Result{Code: "chat/" + f.Platform, Title: "Chat: " + f.Platform, Verdict: Pass, Text: f.Text}
		if !f.OK {
			r.Verdict, r.Do = Fail, "docs/chat.md says how to set the platform up; dream bot check looks again."
		}
		out = append(out, r)
	}
	return out
}

// listen tries the address that a setting names.
func listen(ctx context.Context, l Listen) Result {
	r := Result{Code: "port", Title: l.Setting + " " + l.Address, Verdict: Pass, Text: "The address is free."}
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.Address)
	if err == nil {
		_ = socket.Close()
		return r
	}
	if healthy(ctx, l.Address) {
		r.Text = "It is in use by a server that answers /healthz as dream does: the service runs."
		return r
	}
	r.Verdict, r.Text = Fail, fmt.Sprintf("It cannot be used: %v.", err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		r.Do = fmt.Sprintf("End the program that holds it (ss -ltnp shows which), or set another %s.", l.Setting)
	case errors.Is(err, syscall.EACCES):
		r.Do = fmt.Sprintf("Ports below 1024 need rights (AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit): set another %s, behind a proxy perhaps.", l.Setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		r.Do = fmt.Sprintf("This machine does not have that address (ip address shows which): set another %s.", l.Setting)
	default:
		r.Do = fmt.Sprintf("Write %s as HOST:PORT, 127.0.0.1:7860 for example.", l.Setting)
	}
	return r
}

func healthy(ctx context.Context, address string) bool {
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16))
	return err == nil && resp.StatusCode == http.StatusOK && strings.TrimSpace(string(text)) == "ok"
}
