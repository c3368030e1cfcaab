package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"

	"golang.org/x/term"

	"dreamcad/ops/logfile"
	"dreamcad/queue/redisq"
)

// newLogger builds the program's logger: text on a terminal, JSON lines
// elsewhere and in log.file. Configured secrets and what looks like one are
// masked before anything is written. The returned function closes the file.
func newLogger(c *loadedConfig, stderr io.Writer) (*slog.Logger, func(), error) {
	s := c.Log
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.Level)); err != nil {
		return nil, nil, fmt.Errorf("read log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
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
	log := slog.New(logfile.Redact(handler, logfile.Options{Secrets: c.secrets(), Prompts: s.HidePrompts}))
	redisq.LogTo(log)
	return log, closeLog, nil
}

// secrets lists the configured secrets that are set.
func (c *loadedConfig) secrets() []string {
	var out []string
	walkSettings(reflect.ValueOf(c.settings), "", func(_ string, _ reflect.StructField, v reflect.Value) {
		if s, ok := v.Interface().(secret); ok && s != "" {
			out = append(out, string(s))
		}
	})
	return out
}

// isTerminal tells whether people look at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
