package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"regexp"

	"golang.org/x/term"

	"dreamcad/ops/logfile"
	"dreamcad/queue/redisq"
)

// newLogger builds the program's logger: text on a terminal, JSON lines
// elsewhere and in log.file, text in tail unless that is nil. Configured secrets and what looks like one are
// masked before anything is written. The returned function closes the file.
func newLogger(c *loadedConfig, stderr, tail io.Writer) (*slog.Logger, func(), error) {
	s := c.Log
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.Level)); err != nil {
		return nil, nil, fmt.Errorf("read log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	var handler slog.Handler
	if s.Format == "text" || s.Format == "auto" && isTerminal(stderr) {
		handler = slog.NewTextHandler(stderr, options)
	} else {
		handler = slog.NewJSONHandler(stderr, options)
	}
	closeLog := func() {}
	if s.File != "" {
		file, err := logfile.Open(s.File)
		if err != nil {
			return nil, nil, err
		}
		closeLog = func() { _ = file.Close() }
		handler = slog.NewMultiHandler(handler, slog.NewJSONHandler(file, options))
	}
	if tail != nil {
		handler = slog.NewMultiHandler(handler, slog.NewTextHandler(tail, options))
	}
	log := slog.New(logfile.Redact(handler, c.hidden()))
	redisq.LogTo(log)
	return log, closeLog, nil
}

// readable writes times as people read them, "1.5s", where JSON would have nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}

// hidden is what no log may show.
func (c *loadedConfig) hidden() logfile.Options {
	return logfile.Options{Secrets: c.secrets(), Prompts: c.Log.HidePrompts}
}

// secrets lists the configured secrets that are set, passwords in addresses among
// them.
func (c *loadedConfig) secrets() []string {
	var out []string
	walkSettings(reflect.ValueOf(c.settings), "", func(_ string, _ reflect.StructField, v reflect.Value) {
		switch s := v.Interface().(type) {
		case secret:
			if s != "" {
				out = append(out, string(s))
			}
		case string:
			for _, m := range passwordInURL.FindAllStringSubmatch(s, -1) {
				out = append(out, m[1])
				if plain, err := url.PathUnescape(m[1]); err == nil && plain != m[1] {
					out = append(out, plain)
				}
			}
		}
	})
	return out
}

// passwordInURL finds it in the forms with several hosts too, which url.Parse refuses.
var passwordInURL = regexp.MustCompile(`://[^/@\s]*:([^/@\s]+)@`)

// isTerminal tells whether people look at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
