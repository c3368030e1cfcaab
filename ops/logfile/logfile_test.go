package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRedaction(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(Redact(slog.NewJSONHandler(&out, nil), Options{Secrets: []string{"hunter22", "ab"}, Prompts: true}))
	secrets := []string{
		"hunter22", "deadbeefcafe", "AKIAEXAMPLE", "xoxb-123456789012-abcdefgh", "xapp-1-A111-222-abcdef", "T000/B000/secretpart",
		"p4ssword", "a clay pot", "abcdefghijklmnopqrst1234", "tokentoken42",
	}
	signed := "https://s3/b/k?X-Amz-Credential=AKIAEXAMPLE%2Fx&X-Amz-Signature=deadbeefcafe&x=1"
	log.Info("got "+signed, "url", signed, "err", fmt.Errorf("get %q: %w", signed, errors.New("key hunter22 refused")))
	log.With("token", "xoxb-123456789012-abcdefgh").WithGroup("g").Warn("x", slog.Group("h", "t", "xapp-1-A111-222-abcdef"))
	log.Info("post to https://hooks.slack.com/services/T000/B000/secretpart", "discord", "https://discord.com/api/webhooks/123/abcdefghijklmnopqrst1234")
	log.Info("open", "queue", "redis://user:p4ssword@host:6379/0", "prompt", "a clay pot", "header", "Bearer tokentoken42", "list", []string{"hunter22"})
	log.Info("link https://x/r/JOB/model.glb?exp=123&sig=deadbeefcafe")
	log.Info("about a lab", "count", 3, "job", "01ABC")
	for _, s := range secrets {
		if strings.Contains(out.String(), s) {
			t.Errorf("%q is in the log:\n%s", s, out.String())
		}
	}
	for _, s := range []string{`"msg":"about a lab"`, `"count":3`, `"job":"01ABC"`, "x=1", "host:6379/0", "exp=123"} {
		if !strings.Contains(out.String(), s) {
			t.Errorf("%q is not in the log:\n%s", s, out.String())
		}
	}
}

func TestRotationAndJob(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "dream.log")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(f, nil))
	filler := strings.Repeat("x", 1<<16)
	log.Info("first", "job", "01AAAAAAMINE")
	for range 330 { // over 20 MB
		log.Info(filler, "job", "01AAAAAOTHER")
	}
	log.Info("last", "job", "01AAAAAAMINE")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(path)
	if err != nil || len(files) < 2 || files[len(files)-1] != path {
		t.Fatalf("%v %v", files, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 10<<20 {
		t.Fatalf("%v %v", info.Size(), err)
	}
	var out bytes.Buffer
	n, err := Job(&out, path, "aamine")
	if err != nil || n != 2 || !strings.Contains(out.String(), "first") || !strings.Contains(out.String(), "last") {
		t.Fatalf("%d lines, %v:\n%s", n, err, out.String())
	}
}
