package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dreamcad/storage"
	"dreamcad/storage/s3"
	"dreamcad/storage/storagetest"
)

// faulty opens a store through a proxy. Behind it the bucket is there.
func faulty(t *testing.T) (*s3.Store, *storagetest.Proxy, *s3.Store) {
	t.Helper()
	g := storagetest.StartGateway(t)
	direct := open(t, config(g))
	if _, err := direct.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := storagetest.StartProxy(t, g.Endpoint)
	cfg := config(g)
	cfg.Endpoint, cfg.Answer = p.Endpoint, 5*time.Second
	return open(t, cfg), p, direct
}

func method(m string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == m }
}

const body = "0123456789abcdef"

// Every upload announces its length, an empty one too: AWS refuses others, and the
// end of a body without one can come after the answer, as the next request.
func TestUploadsHaveALength(t *testing.T) {
	var lengths []int64 // -1: none
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lengths = append(lengths, r.ContentLength)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"tag"`)
	}))
	defer srv.Close()
	s := open(t, config(&storagetest.Gateway{Endpoint: srv.URL, AccessKey: "key", SecretKey: "secret"}))
	storagetest.Put(t, s, "empty.txt", "")
	storagetest.Put(t, s, "full.txt", body)
	if err := s.Create(t.Context(), "created.txt", nil); err != nil {
		t.Error(err)
	}
	if len(lengths) != 3 || lengths[0] != 0 || lengths[1] < int64(len(body)) || lengths[2] != 0 {
		t.Errorf("lengths of the uploads' bodies: %d", lengths)
	}
}

// Short bursts are ridden out within one call.
func TestBurstsAreRetried(t *testing.T) {
	s, p, direct := faulty(t)
	for _, f := range []storagetest.Fault{storagetest.Error500, storagetest.Error503, storagetest.Reset, storagetest.LostReply} {
		p.Fail(f, 2, method("PUT"))
		if err := s.Put(t.Context(), "jobs/a/l/x.bin", strings.NewReader(body), int64(len(body))); err != nil {
			t.Errorf("%s: Put: %v", f, err)
		}
		if p.Failed() != 2 {
			t.Errorf("%s: %d requests failed, want 2", f, p.Failed())
		}
		p.Fail("", 0, nil)
		if got := storagetest.Read(t, direct, "jobs/a/l/x.bin"); got != body {
			t.Errorf("%s: stored %q", f, got)
		}
		if f == storagetest.LostReply {
			continue
		}
		p.Fail(f, 2, method("GET"))
		if got, err := storage.ReadAll(t.Context(), s, "jobs/a/l/x.bin", 100); err != nil || string(got) != body {
			t.Errorf("%s: Get: %q, %v", f, got, err)
		}
	}
}

// Long failures end in an error of the right kind, soon, and nothing shows.
func TestKindsOfFailure(t *testing.T) {
	s, p, direct := faulty(t)
	for _, c := range []struct {
		fault storagetest.Fault
		kind  error
	}{
		{storagetest.Error500, storage.ErrUnavailable},
		{storagetest.Error503, storage.ErrUnavailable},
		{storagetest.Error403, storage.ErrForbidden},
		{storagetest.Skewed403, storage.ErrForbidden},
		{storagetest.Reset, storage.ErrUnavailable},
		{storagetest.FalseOK, storage.ErrUnavailable},
	} {
		p.Fail(c.fault, -1, nil)
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := s.Put(ctx, "jobs/b/l/x.bin", strings.NewReader(body), int64(len(body)))
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: Put: %v, want %v", c.fault, err, c.kind)
		}
		if err := s.Create(ctx, "jobs/b/result.json", []byte("{}")); !errors.Is(err, c.kind) {
			t.Errorf("%s: Create: %v, want %v", c.fault, err, c.kind)
		}
		cancel()
		if took := time.Since(begun); took > 29*time.Second {
			t.Errorf("%s: took %v", c.fault, took)
		}
		p.Fail("", 0, nil)
		if got := storagetest.Keys(t, direct, "jobs/b/"); len(got) != 0 {
			t.Errorf("%s: %q shows", c.fault, got)
		}
	}
}

// A body that is cut shows as an error of the reader, never as a short object.
func TestCutBody(t *testing.T) {
	s, p, direct := faulty(t)
	storagetest.Put(t, direct, "jobs/c/l/x.bin", body)
	p.Fail(storagetest.CutBody, -1, method("GET"))
	got, err := storage.ReadAll(t.Context(), s, "jobs/c/l/x.bin", 100)
	if err == nil || !storage.Temporary(err) {
		t.Errorf("read %q, %v; want a temporary error", got, err)
	}
	p.Fail(storagetest.FalseOK, -1, method("GET"))
	if got, err := storage.ReadAll(t.Context(), s, "jobs/c/l/x.bin", 100); err == nil {
		t.Errorf("an error text was taken for the object: %q", got)
	}
}

// A call ends with its context, and an upload that was cut leaves nothing to see.
func TestSlowServerEndsWithTheContext(t *testing.T) {
	s, p, direct := faulty(t)
	p.Fail(storagetest.Slow, -1, method("PUT"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begun := time.Now()
	data := make([]byte, 1<<20)
	err := s.Put(ctx, "jobs/d/l/x.bin", bytes.NewReader(data), int64(len(data)))
	if !errors.Is(err, context.DeadlineExceeded) || !storage.Temporary(err) {
		t.Errorf("Put: %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("Put took %v, a second was given", took)
	}
	p.Fail("", 0, nil)
	if got := storagetest.Keys(t, direct, "jobs/d/"); len(got) != 0 {
		t.Errorf("%q shows", got)
	}
}

// The answer to the manifest's PUT is lost after it took effect: publishing again
// finds our own manifest. One that another wrote meanwhile is adopted.
func TestLostAnswerOfTheManifest(t *testing.T) {
	s, p, direct := faulty(t)
	p.Fail(storagetest.LostReply, -1, method("PUT"))
	m := storagetest.Manifest("lost1", "mine")
	won, err := storage.Publish(t.Context(), s, m)
	if err != nil || won.Attempt != "mine" {
		t.Errorf("Publish with lost answers: %+v, %v", won, err)
	}
	if p.Failed() == 0 {
		t.Error("no answer was lost")
	}
	p.Fail("", 0, nil)
	if _, err := storage.Publish(t.Context(), direct, storagetest.Manifest("lost2", "other")); err != nil {
		t.Fatal(err)
	}
	p.Fail(storagetest.LostReply, -1, method("PUT"))
	if won, err := storage.Publish(t.Context(), s, storagetest.Manifest("lost2", "mine")); err != nil || won.Attempt != "other" {
		t.Errorf("Publish: %+v, %v; want the other's", won, err)
	}
}

// An upload in parts that breaks off is listed as unfinished and can be swept.
func TestUnfinishedMultipartUpload(t *testing.T) {
	g := storagetest.StartGateway(t)
	p := storagetest.StartProxy(t, g.Endpoint)
	cfg := config(g)
	cfg.Endpoint, cfg.PartSize, cfg.Retries = p.Endpoint, 5<<20, 1
	s := open(t, cfg)
	if _, err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The parts fail, and so does the client's wish to abort.
	p.Fail(storagetest.Error500, -1, func(r *http.Request) bool {
		return r.Method == "DELETE" || r.Method == "PUT" && r.URL.Query().Get("partNumber") == "2"
	})
	data := make([]byte, 12<<20)
	if err := s.Put(t.Context(), "jobs/e/l/big.bin", bytes.NewReader(data), int64(len(data))); !storage.Temporary(err) {
		t.Errorf("Put: %v", err)
	}
	p.Fail("", 0, nil)
	if got := storagetest.Keys(t, s, ""); len(got) != 0 {
		t.Errorf("%q shows", got)
	}
	n := 0
	for u, err := range s.Uploads(t.Context(), time.Now().Add(time.Hour)) {
		if err != nil || u.Key != "jobs/e/l/big.bin" {
			t.Errorf("Uploads yields %+v, %v", u, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d unfinished uploads are listed, want 1", n)
	}
	rep, err := storage.Sweep(t.Context(), s, storage.SweepConfig{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	if err != nil || rep.Uploads != 1 {
		t.Errorf("Sweep = %+v, %v", rep, err)
	}
	for u := range s.Uploads(t.Context(), time.Now().Add(time.Hour)) {
		t.Errorf("after the sweep there is %+v", u)
	}
}

// Presigned URLs and secrets stay out of errors.
func TestErrorsHoldNoSecrets(t *testing.T) {
	cfg := s3.Config{Bucket: "results", Endpoint: "http://127.0.0.1:1", AccessKey: "access", SecretKey: "hunter2secret", SessionToken: "tokensecret", Retries: 1}
	s := open(t, cfg)
	_, err := s.Get(t.Context(), "a/b.txt", 0, -1)
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "X-Amz") {
		t.Errorf("error %v", err)
	}
	if err := s.Put(t.Context(), "a/b.txt", struct{ io.ReadSeeker }{strings.NewReader("abc")}, 3); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

func TestParseURL(t *testing.T) {
	c, err := s3.ParseURL("s3://dreams/some/prefix/?endpoint=http://127.0.0.1:7070&public_endpoint=https://files.example&region=eu-1&path_style=true&create=true&part_size=8&concurrency=2")
	if err != nil {
		t.Fatal(err)
	}
	if c.Bucket != "dreams" || c.Prefix != "some/prefix" || c.Endpoint != "http://127.0.0.1:7070" || c.PublicEndpoint != "https://files.example" ||
		c.Region != "eu-1" || c.PathStyle == nil || !*c.PathStyle || !c.Create || c.PartSize != 8<<20 || c.Concurrency != 2 {
		t.Errorf("ParseURL = %+v", c)
	}
	for _, bad := range []string{"", "http://x", "s3://", "s3://b?part_size=1", "s3://b?concurrency=0", "s3://b?path_style=maybe", "s3://b?wat=1", "s3://b/../x", "s3://b/a b", "s3://u:secretpw@b?x=%zz\x7f"} {
		if _, err := s3.ParseURL(bad); err == nil || strings.Contains(err.Error(), "secretpw") {
			t.Errorf("ParseURL(%q): %v", bad, err)
		}
	}
}

// Links name the public endpoint, whatever the internal one is.
func TestPublicEndpoint(t *testing.T) {
	path := true
	s := open(t, s3.Config{Bucket: "results", Endpoint: "http://127.0.0.1:1", PublicEndpoint: "https://files.example:8443", AccessKey: "a", SecretKey: "b", PathStyle: &path})
	u, err := s.Link(t.Context(), "jobs/a/l/x.glb", time.Hour)
	if err != nil || !strings.HasPrefix(u, "https://files.example:8443/results/jobs/a/l/x.glb?") {
		t.Errorf("Link = %s, %v", u, err)
	}
	off := false
	s = open(t, s3.Config{Bucket: "bucket", Endpoint: "https://s3.example", AccessKey: "a", SecretKey: "b", PathStyle: &off, SessionToken: "tok"})
	u, err = s.Link(t.Context(), "x.glb", time.Hour)
	if err != nil || !strings.HasPrefix(u, "https://bucket.s3.example/x.glb?") || !strings.Contains(u, "X-Amz-Security-Token=tok") {
		t.Errorf("virtual-host Link = %s, %v", u, err)
	}
}
