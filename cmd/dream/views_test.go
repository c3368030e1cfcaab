package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/inference/models/mini"
)

// brokenBundle copies the built-in model to data/models/NAME and lets spoil change
// one of its files.
func brokenBundle(t *testing.T, data, name, file string, spoil func([]byte) []byte) {
	t.Helper()
	dir := filepath.Join(data, "models", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"model.json", "merges.txt", "weights.safetensors"} {
		b, err := fs.ReadFile(mini.FS, f)
		if err != nil {
			t.Fatal(err)
		}
		if f == "model.json" {
			b = bytes.Replace(b, []byte(`"name": "mini"`), []byte(`"name": "`+name+`"`), 1)
		}
		if f == file && spoil != nil {
			b = spoil(bytes.Clone(b))
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is wrong with the input is one sentence on standard error and a
// non-zero exit, and leaves no file behind.
func TestViewsFailInOneSentence(t *testing.T) {
	data := t.TempDir()
	t.Setenv("DREAM_DATA", data)
	brokenBundle(t, data, "cut", "weights.safetensors", func(b []byte) []byte { return b[:len(b)/2] })
	brokenBundle(t, data, "garbage", "weights.safetensors", func(b []byte) []byte {
		for i := range b[:64] {
			b[i] ^= 0x5a
		}
		return b
	})
	brokenBundle(t, data, "shapes", "model.json", func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"model_channels": 64`), []byte(`"model_channels": 128`), 1)
	})
	brokenBundle(t, data, "merges", "merges.txt", func([]byte) []byte { return []byte("#\n") })
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"truncated weights": {[]string{"a mug", "--model", "cut"}, exitFailed, "weights"},
		"damaged weights":   {[]string{"a mug", "--model", "garbage"}, exitFailed, "weights"},
		"wrong shapes":      {[]string{"a mug", "--model", "shapes"}, exitFailed, "shape"},
		"wrong merges":      {[]string{"a mug", "--model", "merges"}, exitFailed, "merges"},
		"empty":             {[]string{""}, exitUsage, "empty"},
		"long":              {[]string{strings.Repeat("mug ", 2500)}, exitUsage, "at most 500"},
		"not text":          {[]string{"a \xff mug"}, exitUsage, "UTF-8"},
		"control":           {[]string{"a \x07 mug"}, exitUsage, "control"},
		"no card":           {[]string{"a mug", "--device", "cuda:99"}, exitFailed, "card"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			var stdout, stderr bytes.Buffer
			code := run(append([]string{"views", "-q", "-o", filepath.Join(parent, "out")}, c.args...), strings.NewReader(""), &stdout, &stderr)
			text := strings.TrimSpace(stderr.String())
			if code != c.code || !strings.Contains(text, c.says) || strings.Contains(text, "\n") || strings.Contains(text, "goroutine") || stdout.Len() > 0 {
				t.Errorf("exit %d, want %d saying %q; standard error:\n%s", code, c.code, c.says, text)
			}
			left, err := os.ReadDir(parent)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}
