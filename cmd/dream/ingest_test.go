package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/queue"
	"dreamcad/queue/ingest"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage/dir"
)

// Files that people send in chat: texts are kept as typed commands are, what the
// block list refuses is left out in every format, and of a picture nothing is taken.
func TestChatIngest(t *testing.T) {
	q, err := sqliteq.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	store, err := dir.Open(dir.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	in := chatIngester{&ingest.Ingester{Queue: q, Blobs: store}}
	check := func(text string) error {
		if strings.Contains(text, "bomb") {
			return errors.New("this is against the rules")
		}
		return nil
	}
	for name, c := range map[string]struct{ text, want string }{
		"p.txt":   {"a\u202e mug\n\u200b\na bomb --kind views\na cup --negative bomb\n", `1 prompt of "p.txt" queued as batch`},
		"p.csv":   {"prompt,negative\na mug,\na bomb,\n", `1 prompt of "p.csv" queued as batch`},
		"p.jsonl": {`{"prompt":"a bomb"}` + "\n" + `{"prompt":"a jug\u200b"}` + "\n", `1 prompt of "p.jsonl" queued as batch`},
	} {
		got, err := in.Ingest(t.Context(), name, strings.NewReader(c.text), queue.Requester{Platform: "discord", ID: "1"}, queue.Origin{}, check)
		if err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for text, want := range map[string]string{"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\n": "no text file", "\xff\xfea\x00": "UTF-16"} {
		if _, err := in.Ingest(t.Context(), "p.png", strings.NewReader(text), queue.Requester{Platform: "discord", ID: "1"}, queue.Origin{}, check); !strings.Contains(queue.SentenceOf(err), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	jobs, err := q.List(t.Context(), queue.Filter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if j.Prompt != "a mug" && j.Prompt != "a jug" {
			t.Errorf("prompt %q", j.Prompt)
		}
	}
}
