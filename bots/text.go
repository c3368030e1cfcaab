package bots

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dreamcad/bots/parse"
)

// Texts mark what people wrote and what platforms show in their own way by
// private-use characters, which parse.Clean removes from everything typed.
const (
	userOpen, userClose = '\ue000', '\ue001'
	timeOpen, timeClose = '\ue002', '\ue003'
	personOpen          = '\ue004'
	personClose         = '\ue005'
)

// User marks text that a person wrote (a prompt, a file name). It is cleaned.
func User(s string) string { return string(userOpen) + parse.Clean(s) + string(userClose) }

// When marks a moment, which platforms show in the reader's time zone, relative
// to now where they can.
func When(t time.Time) string {
	return string(timeOpen) + strconv.FormatInt(t.Unix(), 10) + string(timeClose)
}

// Person marks the id of a person of the same platform, shown as a name.
func Person(id string) string { return string(personOpen) + parse.Clean(id) + string(personClose) }

// Encoder writes the marked parts in the way of a platform.
type Encoder struct {
	Plain  func(string) string // our own words; nil: as they are
	User   func(string) string
	When   func(time.Time) string
	Person func(string) string
}

// Part is a piece of a text: our own words, or what a mark holds.
type Part struct {
	Kind PartKind
	Text string    // words, what a person wrote, or a person's id
	Time time.Time // of a When
}

// PartKind tells what a Part is.
type PartKind int

// The kinds of parts.
const (
	PartPlain PartKind = iota
	PartUser
	PartWhen
	PartPerson
)

// Parts takes a text apart at its marks. Parts are never empty.
func Parts(s string) []Part {
	var out []Part
	add := func(k PartKind, text string) {
		if text != "" {
			out = append(out, Part{Kind: k, Text: text})
		}
	}
	for s != "" {
		i := strings.IndexAny(s, string([]rune{userOpen, timeOpen, personOpen}))
		if i < 0 {
			add(PartPlain, s)
			break
		}
		add(PartPlain, s[:i])
		open := []rune(s[i:])[0]
		body, rest, _ := strings.Cut(s[i+len(string(open)):], string(open+1))
		switch open {
		case userOpen:
			add(PartUser, body)
		case timeOpen:
			unix, _ := strconv.ParseInt(body, 10, 64)
			out = append(out, Part{Kind: PartWhen, Time: time.Unix(unix, 0)})
		case personOpen:
			add(PartPerson, body)
		}
		s = rest
	}
	return out
}

// Encode replaces the marks.
func (e Encoder) Encode(s string) string {
	var out strings.Builder
	for _, p := range Parts(s) {
		switch p.Kind {
		case PartPlain:
			if e.Plain != nil {
				p.Text = e.Plain(p.Text)
			}
			out.WriteString(p.Text)
		case PartUser:
			out.WriteString(e.User(p.Text))
		case PartWhen:
			out.WriteString(e.When(p.Time))
		case PartPerson:
			out.WriteString(e.Person(p.Text))
		}
	}
	return out.String()
}

// PlainText is the encoder for terminals and the console.
var PlainText = Encoder{
	User:   func(s string) string { return s },
	When:   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
	Person: func(id string) string { return id },
}

// Cut shortens text to n characters, marks excluded from cutting through: it
// cuts only what a mark or our own words hold, and ends in an ellipsis.
func Cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	// Do not end between a base and what combines with it.
	end := n - 1
	for end > 0 && (r[end] == '\u200d' || r[end-1] == '\u200d' || (r[end] >= 0x300 && r[end] <= 0x36f) || r[end] == 0xfe0f || (r[end] >= 0x1f3fb && r[end] <= 0x1f3ff)) {
		end--
	}
	return strings.TrimRight(string(r[:end]), " ") + "…"
}

// Nonce names one message about one event: the first 25 characters of
// base32(SHA-256(job | event)).
func Nonce(job, event string) string {
	h := sha256.Sum256([]byte(job + "|" + event))
	return base32.StdEncoding.EncodeToString(h[:])[:25]
}

// ButtonID is what a button carries: a version, a verb and a job's id or an
// alert's code and key. Nothing in it is trusted when it comes back.
func ButtonID(v parse.Verb, subject string) string { return "v1:" + string(v) + ":" + subject }

// ParseButton reads ButtonID's result into c. Verbs that have no button are refused.
func ParseButton(id string, c *Command) error {
	version, rest, ok := strings.Cut(id, ":")
	verb, subject, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || version != "v1" || subject == "" {
		return fmt.Errorf("button %q is not ours", id)
	}
	c.Verb = parse.Verb(verb)
	switch c.Verb {
	case parse.Show, parse.Cancel, parse.Vary, parse.Refine, parse.Retry, parse.Delete:
		c.Job = subject
		return nil
	case parse.History:
		n, err := strconv.Atoi(subject)
		c.Page = n
		return err
	case parse.ForgetMe:
		c.Confirmed = subject == "yes"
		return nil
	case parse.Ack, parse.Silence:
		code, key, _ := strings.Cut(subject, ":")
		c.Alert = [2]string{code, key}
		return nil
	}
	return errors.New("button without a verb of ours")
}

// Reachable tells whether an address can be reached from elsewhere: one that
// leads to a bare host name, to this machine or its network helps only those who
// know, and Discord refuses buttons with some of them.
func Reachable(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return false
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ip.IsGlobalUnicast() && !ip.IsPrivate()
	}
	return strings.Contains(u.Hostname(), ".")
}
