package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// newLogger builds the program's logger: text on a terminal, JSON lines
// elsewhere. The returned function closes what was opened.
func newLogger(s logSettings, stderr io.Writer) (*slog.Logger, func(), error) {
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
	return slog.New(handler), func() {}, nil
}

// isTerminal tells whether people look at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
