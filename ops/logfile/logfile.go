// Package logfile writes log records to a rotating file of JSON lines and keeps
// secrets out of every log: Redact wraps any slog handler.
package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/DeRuina/timberjack"
	"github.com/gofrs/flock"
)

// Kept of one process: files of fileSize MB, the current one and older, gzipped ones.
const (
	fileSize  = 10
	fileCount = 10
	processes = 100 // that may share a path
)

// Open opens a file that rotates at 10 MB; ten of them are kept, older ones
// gzipped. Of several processes with one path the first gets it and the others
// get dream.2.log, dream.3.log and so on: a file that two processes rotate loses
// lines. [Files] finds them all.
func Open(path string) (io.WriteCloser, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of the log file: %w", err)
	}
	for n := 1; n <= processes; n++ {
		own := numbered(path, n)
		lock := flock.New(own + ".lock")
		switch free, err := lock.TryLock(); {
		case err != nil:
			return nil, fmt.Errorf("lock the log file: %w", err)
		case !free:
			continue
		}
		f, err := os.OpenFile(own, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // fails now rather than at the first line
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("open the log file: %w", err)
		}
		return &file{&timberjack.Logger{Filename: own, MaxSize: fileSize, MaxBackups: fileCount - 1, Compression: "gzip"}, lock}, nil
	}
	return nil, fmt.Errorf("open the log file: %d processes write to %q already", processes, path)
}

// numbered is the path of the n-th process.
func numbered(path string, n int) string {
	if n == 1 {
		return path
	}
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s.%d%s", strings.TrimSuffix(path, ext), n, ext)
}

// file is the log of one process.
type file struct {
	*timberjack.Logger
	lock *flock.Flock // ends with the process, however that ends
}

// Close implements [io.Closer].
func (f *file) Close() error { return errors.Join(f.Logger.Close(), f.lock.Close()) }

// Options say what is kept out of a log.
type Options struct {
	// Secrets are the configured tokens and keys, masked wherever they occur.
	Secrets []string
	// Prompts masks what people asked for: attributes called prompt or negative.
	Prompts bool
}

const mask = "[redacted]"

// The forms of secrets that are known without configuration.
var forms = []struct {
	pattern *regexp.Regexp
	with    string
}{
	// Query values that make a URL work: S3's and ours.
	{regexp.MustCompile(`(?i)([?&](?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|sig|signature|token)=)[^&\s"'\\<>]+`), "${1}" + mask},
	// User names and passwords in URLs.
	{regexp.MustCompile(`([a-z][a-z0-9+.-]*://)[^/\s"'@]*:[^/\s"'@]*@`), "${1}" + mask + "@"},
	// Slack's tokens and webhooks, Discord's tokens and webhooks, authorisation headers.
	{regexp.MustCompile(`\bxox[a-z]-[A-Za-z0-9-]{8,}|\bxapp-[A-Za-z0-9-]{8,}`), mask},
	{regexp.MustCompile(`(hooks\.slack\.com/(?:services|workflows)/)[^\s"'\\]+`), "${1}" + mask},
	{regexp.MustCompile(`(/webhooks/\d+/)[A-Za-z0-9_-]{20,}`), "${1}" + mask},
	{regexp.MustCompile(`\b[MNO][A-Za-z0-9_-]{22,}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}`), mask},
	{regexp.MustCompile(`\bhf_[A-Za-z0-9]{20,}`), mask}, // the hub's
	{regexp.MustCompile(`(?i)\b(Bearer|Bot|Basic) [A-Za-z0-9._~+/=-]{8,}`), "${1} " + mask},
}

// Redact returns a handler that masks secrets in messages, attributes and
// groups before h sees them.
func Redact(h slog.Handler, o Options) slog.Handler { return &handler{next: h, redacter: o.redacter()} }

// Clean masks in s the configured secrets and what is known to be secret by its form.
func (o Options) Clean(s string) string { return o.redacter().text(s) }

func (o Options) redacter() *redacter {
	var known []string
	for _, s := range o.Secrets {
		if len(s) >= 6 { // shorter ones would mask ordinary words
			known = append(known, s, mask)
		}
	}
	r := &redacter{prompts: o.Prompts}
	if len(known) > 0 {
		r.known = strings.NewReplacer(known...)
	}
	return r
}

// Clean masks in s what is known to be secret by its form: signatures and
// passwords in URLs, tokens.
func Clean(s string) string { return (&redacter{}).text(s) }

type redacter struct {
	known   *strings.Replacer
	prompts bool
}

// text masks what is secret in s.
func (r *redacter) text(s string) string {
	if r.known != nil {
		s = r.known.Replace(s)
	}
	for _, f := range forms {
		s = f.pattern.ReplaceAllString(s, f.with)
	}
	return s
}

func (r *redacter) attr(a slog.Attr) slog.Attr {
	if r.prompts && (a.Key == "prompt" || a.Key == "negative") {
		return slog.String(a.Key, mask)
	}
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, r.text(v.String()))
	case slog.KindGroup:
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(r.attrs(v.Group())...)}
	case slog.KindAny:
		// Errors, lists, anything that prints itself: keep it only if it is clean.
		s := fmt.Sprint(v.Any())
		if err, ok := v.Any().(error); ok {
			s = err.Error()
		}
		if clean := r.text(s); clean != s {
			return slog.String(a.Key, clean)
		}
		// The JSON form may show fields that printing hides.
		if _, ok := v.Any().(error); ok {
			return slog.String(a.Key, s)
		}
	}
	return slog.Attr{Key: a.Key, Value: v}
}

func (r *redacter) attrs(as []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(as))
	for i, a := range as {
		out[i] = r.attr(a)
	}
	return out
}

type handler struct {
	next slog.Handler
	*redacter
}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements [slog.Handler].
func (h *handler) Handle(ctx context.Context, rec slog.Record) error {
	out := slog.NewRecord(rec.Time, rec.Level, h.text(rec.Message), rec.PC)
	rec.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.attr(a))
		return true
	})
	return h.next.Handle(ctx, out)
}

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(as []slog.Attr) slog.Handler {
	return &handler{next: h.next.WithAttrs(h.attrs(as)), redacter: h.redacter}
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{next: h.next.WithGroup(name), redacter: h.redacter}
}

// Files lists the log file at path, those of other processes with the same path,
// and the older ones of all, the oldest of a process first.
func Files(path string) ([]string, error) {
	dir, ext := filepath.Dir(path), filepath.Ext(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the log files: %w", err)
	}
	base := regexp.QuoteMeta(strings.TrimSuffix(filepath.Base(path), ext))
	// The time of the rotation is in the name of an older one.
	older := regexp.MustCompile(`^` + base + `(\.\d+)?-\d{4}-\d{2}-\d{2}T.*` + regexp.QuoteMeta(ext) + `(\.gz)?$`)
	current := regexp.MustCompile(`^` + base + `(\.\d+)?` + regexp.QuoteMeta(ext) + `$`)
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	var old, now []string
	for _, e := range entries {
		switch name := e.Name(); {
		case names[name+".gz"]: // compressed, and about to be removed
		case older.MatchString(name):
			old = append(old, filepath.Join(dir, name))
		case current.MatchString(name):
			now = append(now, filepath.Join(dir, name))
		}
	}
	return append(old, now...), nil // both in the order of their names
}
