// Package storagetest holds what tests of storage need: the suite that every
// backend passes, a launcher of a real S3 server, and a proxy that makes one fail.
package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dreamcad/storage"
)

// Options are the sizes of the suite.
type Options struct {
	Racers int   // publishers of one job in the race; default 50
	Big    int64 // bytes of the large object; default 20 MiB
}

// Run checks a backend against the contract of storage.Store. open returns a fresh,
// empty store for each call.
func Run(t *testing.T, open func(t *testing.T) storage.Store, opt Options) {
	if opt.Racers == 0 {
		opt.Racers = 50
	}
	if opt.Big == 0 {
		opt.Big = 20 << 20
	}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s storage.Store)
	}{
		{"put and get", putGet},
		{"ranges", ranges},
		{"missing objects", missing},
		{"short body", shortBody},
		{"create", create},
		{"racing creates", func(t *testing.T, s storage.Store) { race(t, s, opt.Racers) }},
		{"list", list},
		{"delete", deletes},
		{"keys", keys},
		{"large object", func(t *testing.T, s storage.Store) { large(t, s, opt.Big) }},
		{"cancelled context", cancelled},
		{"concurrent put and delete", churn},
		{"manifest", manifest},
		{"check", check},
		{"links", link},
		{"serve", serve},
		{"sweep", sweep},
		{"measure", measure},
		{"uploads", uploads},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// Put stores data and fails the test when that fails.
func Put(t testing.TB, s storage.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(data), int64(len(data))); err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}

// Read returns an object, or fails the test.
func Read(t testing.TB, s storage.Store, key string) string {
	t.Helper()
	b, err := storage.ReadAll(t.Context(), s, key, 1<<30)
	if err != nil {
		t.Fatalf("reading %q: %v", key, err)
	}
	return string(b)
}

// Keys lists the keys below a prefix.
func Keys(t testing.TB, s storage.Store, prefix string) []string {
	t.Helper()
	var out []string
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("List(%q): %v", prefix, err)
		}
		out = append(out, info.Key)
	}
	return out
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
	var se *storage.Error
	if !errors.As(err, &se) {
		t.Errorf("%s: error is a %T, want a *storage.Error", what, err)
	}
}

func putGet(t *testing.T, s storage.Store) {
	before := time.Now().Add(-time.Minute)
	for _, data := range []string{"", "x", strings.Repeat("0123456789", 1000)} {
		Put(t, s, "jobs/a/l1/model.glb", data)
		if got := Read(t, s, "jobs/a/l1/model.glb"); got != data {
			t.Errorf("read %d bytes back, wrote %d", len(got), len(data))
		}
		info, err := s.Stat(t.Context(), "jobs/a/l1/model.glb")
		if err != nil || info.Size != int64(len(data)) || info.Key != "jobs/a/l1/model.glb" || info.ETag == "" {
			t.Errorf("Stat = %+v, %v; want %d bytes", info, err, len(data))
		}
		if info.Modified.Before(before) || info.Modified.After(time.Now().Add(time.Minute)) {
			t.Errorf("Stat says modified at %v", info.Modified)
		}
	}
	// Put begins at the body's current offset.
	body := strings.NewReader("skip-this")
	if _, err := body.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "jobs/a/part.txt", body, 4); err != nil {
		t.Fatal(err)
	}
	if got := Read(t, s, "jobs/a/part.txt"); got != "this" {
		t.Errorf("read %q back, want %q", got, "this")
	}
}

func ranges(t *testing.T, s storage.Store) {
	Put(t, s, "r/x.bin", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, -1, "0123456789"}, {0, 3, "012"}, {4, 2, "45"}, {9, 1, "9"}, {7, 100, "789"}, {7, -1, "789"}, {3, 0, ""}} {
		r, err := s.Get(t.Context(), "r/x.bin", c.off, c.n)
		if err != nil {
			t.Errorf("Get(%d, %d): %v", c.off, c.n, err)
			continue
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != c.want {
			t.Errorf("Get(%d, %d) read %q, %v; want %q", c.off, c.n, got, err, c.want)
		}
	}
}

func missing(t *testing.T, s storage.Store) {
	Put(t, s, "a/b/c.txt", "c")
	for _, key := range []string{"a/b/nothing.txt", "x/y/z", "a/b"} {
		_, err := storage.ReadAll(t.Context(), s, key, 10)
		wantErr(t, "Get "+key, err, storage.ErrNotFound)
		_, err = s.Stat(t.Context(), key)
		wantErr(t, "Stat "+key, err, storage.ErrNotFound)
	}
	_, err := storage.ReadManifest(t.Context(), s, "nojob")
	wantErr(t, "ReadManifest", err, storage.ErrNotFound)
}

func shortBody(t *testing.T, s storage.Store) {
	if err := s.Put(t.Context(), "short/x.bin", strings.NewReader("abc"), 10); err == nil {
		t.Error("Put of 3 bytes announced as 10 succeeded")
	}
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Errorf("a failed Put left %q", got)
	}
}

func create(t *testing.T, s storage.Store) {
	if err := s.Create(t.Context(), "c/x.json", []byte("one")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "second Create", s.Create(t.Context(), "c/x.json", []byte("two")), storage.ErrExists)
	if got := Read(t, s, "c/x.json"); got != "one" {
		t.Errorf("object holds %q after a refused Create", got)
	}
	if err := s.Delete(t.Context(), "c/x.json"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "c/x.json", []byte("three")); err != nil {
		t.Errorf("Create after Delete: %v", err)
	}
}

// race lets many attempts publish one job: all must agree on one winner, and each
// reader sees only whole manifests.
func race(t *testing.T, s storage.Store, racers int) {
	var wg sync.WaitGroup
	var wins atomic.Int32
	won := make([]string, racers)
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			m := Manifest("race", fmt.Sprintf("lease%d", i))
			<-start
			got, err := storage.Publish(t.Context(), s, m)
			if err != nil {
				t.Errorf("publisher %d: %v", i, err)
				return
			}
			if won[i] = got.Attempt; got.Attempt == m.Attempt {
				wins.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := wins.Load(); n != 1 {
		t.Errorf("%d of %d publishers won, want 1", n, racers)
	}
	m, err := storage.ReadManifest(t.Context(), s, "race")
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range won {
		if w != m.Attempt {
			t.Errorf("publisher %d was told that %q won, the manifest names %q", i, w, m.Attempt)
		}
	}
	if got := Keys(t, s, ""); len(got) != 1 {
		t.Errorf("race left %q", got)
	}
}

// Manifest makes a small valid manifest.
func Manifest(job, attempt string, files ...string) *storage.Manifest {
	m := &storage.Manifest{Schema: storage.ManifestSchema, Job: job, Attempt: attempt, Kind: "views",
		Prompt: "a mug", Published: time.Now().UTC().Truncate(time.Second), Files: []storage.File{}}
	for _, f := range files {
		sum := sha256.Sum256([]byte(f))
		m.Files = append(m.Files, storage.File{Role: storage.RoleView, Name: f, MediaType: storage.MediaType(f),
			Bytes: int64(len(f)), SHA256: hex.EncodeToString(sum[:])})
	}
	return m
}

func list(t *testing.T, s storage.Store) {
	all := []string{"a/b.txt", "a/b/c.txt", "a/b0.txt", "a/d.txt", "ab/e.txt", "z.txt"}
	slices.Sort(all)
	for _, k := range all {
		Put(t, s, k, k)
	}
	for _, c := range []struct {
		prefix string
		want   []string
	}{
		{"", all},
		{"a/", []string{"a/b.txt", "a/b/c.txt", "a/b0.txt", "a/d.txt"}},
		{"a/b/", []string{"a/b/c.txt"}},
		{"none/", nil},
	} {
		if diff := cmp.Diff(c.want, Keys(t, s, c.prefix)); diff != "" {
			t.Errorf("List(%q) (-want +got):\n%s", c.prefix, diff)
		}
	}
	for info, err := range s.List(t.Context(), "") {
		if err != nil || info.Size != int64(len(info.Key)) || info.Modified.IsZero() {
			t.Errorf("List yields %+v, %v", info, err)
		}
		break // a caller may stop at any time
	}
}

func deletes(t *testing.T, s storage.Store) {
	for i := range 25 {
		Put(t, s, fmt.Sprintf("jobs/d/%d/f.txt", i), "x")
	}
	Put(t, s, "jobs/e/f.txt", "x")
	if err := s.Delete(t.Context(), "jobs/e/none.txt", "none/none.txt", "jobs/d/3/f.txt"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	n, err := storage.DeletePrefix(t.Context(), s, "jobs/d/")
	if n != 24 || err != nil {
		t.Errorf("DeletePrefix = %d, %v; want 24", n, err)
	}
	if got := Keys(t, s, ""); !slices.Equal(got, []string{"jobs/e/f.txt"}) {
		t.Errorf("left: %q", got)
	}
}

func keys(t *testing.T, s storage.Store) {
	for _, key := range []string{"", "/", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.tmp-1", "ä", "a b",
		"a\x00b", `a\b`, "a?b", strings.Repeat("x/", 300) + "x"} {
		wantErr(t, fmt.Sprintf("Put(%q)", key), s.Put(t.Context(), key, strings.NewReader("x"), 1), storage.ErrInvalidKey)
		wantErr(t, fmt.Sprintf("Create(%q)", key), s.Create(t.Context(), key, nil), storage.ErrInvalidKey)
		_, err := s.Get(t.Context(), key, 0, -1)
		wantErr(t, fmt.Sprintf("Get(%q)", key), err, storage.ErrInvalidKey)
		wantErr(t, fmt.Sprintf("Delete(%q)", key), s.Delete(t.Context(), key), storage.ErrInvalidKey)
	}
	for _, err := range s.List(t.Context(), "../") {
		wantErr(t, "List(../)", err, storage.ErrInvalidKey)
	}
}

func large(t *testing.T, s storage.Store, size int64) {
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data) // never fails
	if err := s.Put(t.Context(), "big/model.glb", bytes.NewReader(data), size); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "big/model.glb", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if want := sha256.Sum256(data); err != nil || n != size || !bytes.Equal(h.Sum(nil), want[:]) {
		t.Errorf("read %d of %d bytes back, %v, or other ones", n, size, err)
	}
	if got := Read(t, s, "big/model.glb"); len(got) != int(size) {
		t.Errorf("read %d bytes, want %d", len(got), size)
	}
}

func cancelled(t *testing.T, s storage.Store) {
	Put(t, s, "x.txt", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "y.txt", strings.NewReader("y"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Put after cancel: %v", err)
	}
	for _, err := range s.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("List after cancel: %v", err)
		}
	}
	if got := Keys(t, s, ""); !slices.Equal(got, []string{"x.txt"}) {
		t.Errorf("left: %q", got)
	}
}

// churn writes and deletes in one folder at once: every Put must stand until its
// own Delete.
func churn(t *testing.T, s storage.Store) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 10 {
				key := fmt.Sprintf("churn/deep/er/%d-%d.txt", g, i)
				if err := s.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
					t.Errorf("Put: %v", err)
				}
				if _, err := s.Stat(t.Context(), key); err != nil {
					t.Errorf("Stat: %v", err)
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func manifest(t *testing.T, s storage.Store) {
	m := Manifest("j1", "l1", "view-0.png")
	m.Cameras = []storage.Camera{{Azimuth: 90, Elevation: 15, FOV: 40, Distance: 3}}
	m.Settings = []byte(`{"steps": 3}`)
	if got, err := storage.Publish(t.Context(), s, m); err != nil || got.Attempt != "l1" {
		t.Fatalf("Publish = %+v, %v", got, err)
	}
	got, err := storage.ReadManifest(t.Context(), s, "j1")
	if err != nil {
		t.Fatal(err)
	}
	got.Settings = bytes.Join(bytes.Fields(got.Settings), []byte(" "))
	want := *m
	want.Settings = []byte(`{ "steps": 3 }`)
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("manifest read back (-want +got):\n%s", diff)
	}
	// The same attempt again (its first answer was lost), then another one.
	if got, err := storage.Publish(t.Context(), s, m); err != nil || got.Attempt != "l1" {
		t.Errorf("publishing again = %+v, %v", got, err)
	}
	if got, err := storage.Publish(t.Context(), s, Manifest("j1", "l2")); err != nil || got.Attempt != "l1" {
		t.Errorf("publishing of a second attempt = %+v, %v; want that of l1", got, err)
	}
	bad := Manifest("j2", "l1", "../x")
	if _, err := storage.Publish(t.Context(), s, bad); err == nil {
		t.Error("a manifest with a file name that leaves its folder was published")
	}
	newer := Manifest("j3", "l1")
	newer.Schema = storage.ManifestSchema + 1
	Put(t, s, storage.ResultKey("j3"), `{"schema": 99, "job": "j3", "attempt": "l1", "files": []}`)
	if _, err := storage.ReadManifest(t.Context(), s, "j3"); err == nil || !strings.Contains(err.Error(), "schema 99") {
		t.Errorf("reading a manifest of a newer program: %v", err)
	}
}

func check(t *testing.T, s storage.Store) {
	f, err := s.Check(t.Context())
	if err != nil || !f.Conditional || f.Backend == "" {
		t.Errorf("Check = %+v, %v; want conditional creates", f, err)
	}
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Errorf("Check left %q", got)
	}
}

func link(t *testing.T, s storage.Store) {
	Put(t, s, "jobs/j/l/model.glb", "glTF-data")
	url, err := s.Link(t.Context(), "jobs/j/l/model.glb", time.Hour)
	if errors.Is(err, storage.ErrNoLinks) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || string(body) != "glTF-data" {
		t.Errorf("GET of the link: %s, %q", resp.Status, body)
	}
	if got := resp.Header.Get("Content-Type"); got != "model/gltf-binary" {
		t.Errorf("Content-Type %q", got)
	}
	if got := resp.Header.Get("Content-Disposition"); got != `attachment; filename="model.glb"` {
		t.Errorf("Content-Disposition %q", got)
	}
	if _, err := s.Link(t.Context(), "jobs/j/l/model.glb", storage.MaxLinkLife+time.Hour); err == nil {
		t.Error("a link of more than 7 days was signed")
	}
}

func serve(t *testing.T, s storage.Store) {
	Put(t, s, "jobs/j/l/view-0.png", "0123456789")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := storage.Serve(w, r, s, "jobs/j/l/view-0.png", "view-0.png", ""); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}))
	defer srv.Close()
	get := func(header, value string) (*http.Response, string) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
		if header != "" {
			req.Header.Set(header, value)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp, string(b)
	}
	resp, body := get("", "")
	if resp.StatusCode != 200 || body != "0123456789" || resp.Header.Get("Content-Type") != "image/png" ||
		resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("GET: %s %q %v", resp.Status, body, resp.Header)
	}
	if resp, _ := get("If-None-Match", resp.Header.Get("ETag")); resp.StatusCode != 304 {
		t.Errorf("GET with its ETag: %s", resp.Status)
	}
	if resp, body := get("Range", "bytes=3-5"); resp.StatusCode != 206 || body != "345" {
		t.Errorf("GET of a range: %s %q", resp.Status, body)
	}
	if resp, body := get("Range", "bytes=-2"); resp.StatusCode != 206 || body != "89" {
		t.Errorf("GET of the last two bytes: %s %q", resp.Status, body)
	}
	if resp, _ := get("Range", "bytes=50-60"); resp.StatusCode != 416 {
		t.Errorf("GET beyond the end: %s", resp.Status)
	}
}

func sweep(t *testing.T, s storage.Store) {
	pub := func(job, class string, age time.Duration) {
		m := Manifest(job, "won", "view-0.png")
		m.Published, m.Class = time.Now().Add(-age), class
		Put(t, s, storage.FileKey(job, "won", "view-0.png"), "view")
		Put(t, s, storage.FileKey(job, "lost", "view-0.png"), "view")
		Put(t, s, storage.CheckpointKey(job, 3), "ckpt")
		if _, err := storage.Publish(t.Context(), s, m); err != nil {
			t.Fatal(err)
		}
	}
	pub("fresh", "", 0)
	pub("old", "", 100*time.Hour)
	pub("oldbulk", "bulk", 100*time.Hour)
	Put(t, s, storage.FileKey("running", "now", "view-0.png"), "view")
	Put(t, s, storage.FileKey("dead", "gone", "view-0.png"), "view")
	Put(t, s, storage.ResultKey("damaged"), "{")
	Put(t, s, storage.FileKey("damaged", "l", "view-0.png"), "view")
	cfg := storage.SweepConfig{Keep: 90 * time.Hour, KeepClass: map[string]time.Duration{"bulk": 200 * time.Hour},
		Live: func(_ context.Context, job string) (bool, error) { return job == "running", nil }}

	all := Keys(t, s, "")
	// Seen today only the expired result goes.
	cfg.DryRun = true
	rep, err := storage.Sweep(t.Context(), s, cfg)
	if err != nil || rep.Expired != 1 || rep.Loose != 0 || rep.Skipped != 1 || rep.Jobs != 6 {
		t.Errorf("dry run = %+v, %v", rep, err)
	}
	if got := Keys(t, s, ""); !slices.Equal(got, all) {
		t.Errorf("a dry run changed the store: %q", got)
	}
	cfg.DryRun = false
	if _, err := storage.Sweep(t.Context(), s, cfg); err != nil {
		t.Fatal(err)
	}
	if got := Keys(t, s, "jobs/old/"); len(got) != 0 {
		t.Errorf("expired result left %q", got)
	}
	// Two days later, what no manifest names goes too.
	cfg.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	rep, err = storage.Sweep(t.Context(), s, cfg)
	if err != nil || rep.Loose != 5 || rep.Expired != 0 {
		t.Errorf("second sweep = %+v, %v", rep, err)
	}
	want := []string{
		"jobs/damaged/l/view-0.png", "jobs/damaged/result.json",
		"jobs/fresh/result.json", "jobs/fresh/won/view-0.png",
		"jobs/oldbulk/result.json", "jobs/oldbulk/won/view-0.png",
		"jobs/running/now/view-0.png",
	}
	if diff := cmp.Diff(want, Keys(t, s, "")); diff != "" {
		t.Errorf("after the sweeps (-want +got):\n%s", diff)
	}
}

func measure(t *testing.T, s storage.Store) {
	Put(t, s, storage.FileKey("job1", "won", "view-0.png"), "four")
	Put(t, s, storage.FileKey("job1", "lost", "view-0.png"), "lost1")
	Put(t, s, storage.CheckpointKey("job2", 0), "ckpt")
	Put(t, s, "batches/list.txt", "other")
	if _, err := storage.Publish(t.Context(), s, Manifest("job1", "won", "view-0.png")); err != nil {
		t.Fatal(err)
	}
	u, err := storage.Measure(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	u.Results.Bytes = 0 // the manifest's size is of no interest
	want := storage.Usage{Jobs: 2, Results: storage.Amount{Objects: 2}, Attempts: storage.Amount{Objects: 1, Bytes: 5},
		Checkpoints: storage.Amount{Objects: 1, Bytes: 4}, Other: storage.Amount{Objects: 1, Bytes: 5}}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Errorf("Measure (-want +got):\n%s", diff)
	}
}

func uploads(t *testing.T, s storage.Store) {
	Put(t, s, "a/x.txt", "x")
	for u, err := range s.Uploads(t.Context(), time.Now().Add(time.Hour)) {
		t.Errorf("Uploads yields %+v, %v on a store without unfinished ones", u, err)
	}
}
