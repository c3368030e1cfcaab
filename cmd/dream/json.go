package main

import (
	"encoding/json"
	"io"
)

// printJSON is how every --json prints: indented, keys in snake_case, times in UTC
// (RFC 3339), durations in seconds and sizes in bytes. Streams are JSON Lines instead.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// orEmpty makes JSON say [] rather than null.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
