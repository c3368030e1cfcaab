package links_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dreamcad/storage"
	"dreamcad/storage/dir"
	"dreamcad/storage/links"
	"dreamcad/storage/storagetest"
)

type bundle struct {
	store  storage.Store
	signer links.Signer
	now    time.Time
	h      *links.Handler
	srv    *httptest.Server
}

// setup gives a handler over a directory with job "jobone" published by attempt
// "won", a losing attempt, and job "jobtwo" that only has views yet.
func setup(t *testing.T) *bundle {
	s, err := dir.Open(dir.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	storagetest.Put(t, s, storage.FileKey("jobone", "won", "model.glb"), "model.glb")
	storagetest.Put(t, s, storage.FileKey("jobone", "lost", "model.glb"), "loser")
	if _, err := storage.Publish(t.Context(), s, storagetest.Manifest("jobone", "won", "model.glb")); err != nil {
		t.Fatal(err)
	}
	storagetest.Put(t, s, storage.FileKey("jobtwo", "l1", "view-0.png"), "view")
	ks, err := links.ParseKeys("k2:0123456789abcdef,k1:fedcba9876543210")
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{store: s, now: time.Now()}
	b.h = &links.Handler{Store: s, Keys: ks, Now: func() time.Time { return b.now }}
	b.srv = httptest.NewServer(b.h)
	t.Cleanup(b.srv.Close)
	b.signer = links.Signer{Base: b.srv.URL + "/", Keys: ks}
	return b
}

func (b *bundle) get(t *testing.T, url string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestLinkServesThePublishedFile(t *testing.T) {
	b := setup(t)
	link := b.signer.URL("jobone", "model.glb", b.now.Add(time.Hour))
	code, body, h := b.get(t, link)
	if code != 200 || body != "model.glb" {
		t.Fatalf("GET %s: %d %q", link, code, body)
	}
	if h.Get("Content-Type") != "model/gltf-binary" || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Content-Disposition") != `attachment; filename="model.glb"` {
		t.Errorf("headers: %v", h)
	}
	if code, _, _ := b.get(t, link, "If-None-Match", h.Get("ETag")); code != 304 {
		t.Errorf("GET with its ETag: %d", code)
	}
	if code, body, _ := b.get(t, link, "Range", "bytes=6-"); code != 206 || body != "glb" {
		t.Errorf("GET of a range: %d %q", code, body)
	}
	if code, _, _ := b.get(t, b.signer.URL("jobone", "other.png", b.now.Add(time.Hour))); code != 404 {
		t.Errorf("GET of a file that the manifest does not name: %d", code)
	}
	if code, body, _ := b.get(t, b.signer.URL("jobtwo", "view-0.png", b.now.Add(time.Hour))); code != 200 || body != "view" {
		t.Errorf("GET of a view before the manifest: %d %q", code, body)
	}
}

func TestLinksThatMustNotWork(t *testing.T) {
	b := setup(t)
	good := b.signer.URL("jobone", "model.glb", b.now.Add(time.Hour))
	u, err := url.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key, value string) string {
		v, q := *u, u.Query()
		q.Set(key, value)
		v.RawQuery = q.Encode()
		return v.String()
	}
	sig := u.Query().Get("sig")
	for name, c := range map[string]struct {
		url  string
		code int
	}{
		"later expiry":  {with("exp", "99999999999"), 403},
		"no expiry":     {with("exp", ""), 403},
		"other key id":  {with("sig", "k1"+strings.TrimPrefix(sig, "k2")), 403},
		"unknown key":   {with("sig", "k9"+strings.TrimPrefix(sig, "k2")), 403},
		"no signature":  {with("sig", ""), 403},
		"empty MAC":     {with("sig", "k2."), 403},
		"other file":    {strings.Replace(good, "model.glb", "model.obj", 1), 403},
		"other job":     {strings.Replace(good, "jobone", "jobtwo", 1), 403},
		"expired":       {b.signer.URL("jobone", "model.glb", b.now.Add(-time.Second)), 410},
		"climbing name": {b.srv.URL + "/r/jobone/..%2f..%2fetc", 404},
		"no name":       {b.srv.URL + "/r/jobone/", 404},
	} {
		if code, _, _ := b.get(t, c.url); code != c.code {
			t.Errorf("%s: %d, want %d", name, code, c.code)
		}
	}
	resp, err := http.Post(good, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 405 {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestKeyRotation(t *testing.T) {
	b := setup(t)
	old := links.Signer{Base: b.srv.URL, Keys: b.h.Keys[1:]}.URL("jobone", "model.glb", b.now.Add(time.Hour))
	if code, _, _ := b.get(t, old); code != 200 {
		t.Errorf("link of the older key: %d", code)
	}
	b.h.Keys = b.h.Keys[:1]
	if code, _, _ := b.get(t, old); code != 403 {
		t.Errorf("link of a dropped key: %d", code)
	}
}

func TestUnpublishAndRepublish(t *testing.T) {
	b := setup(t)
	link := b.signer.URL("jobone", "model.glb", b.now.Add(time.Hour))
	if code, _, _ := b.get(t, link); code != 200 {
		t.Fatalf("before: %d", code)
	}
	for range 2 { // revoking twice is no error
		if err := storage.Unpublish(t.Context(), b.store, "jobone"); err != nil {
			t.Fatal(err)
		}
	}
	b.now = b.now.Add(11 * time.Second) // a "not revoked" is believed for ten
	if code, _, _ := b.get(t, link); code != 410 {
		t.Errorf("after Unpublish: %d", code)
	}
	if err := storage.Republish(t.Context(), b.store, "jobone"); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := b.get(t, link); code != 200 {
		t.Errorf("after Republish: %d", code)
	}
}

func TestLoadKeysAgree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "link.keys")
	var wg sync.WaitGroup
	got := make([]links.Keys, 8)
	for i := range got {
		wg.Go(func() {
			ks, err := links.LoadKeys(path)
			if err != nil {
				t.Errorf("LoadKeys: %v", err)
			}
			got[i] = ks
		})
	}
	wg.Wait()
	for _, ks := range got {
		if len(ks) != 1 || string(ks[0].Secret) != string(got[0][0].Secret) {
			t.Errorf("processes ended with different keys: %d", len(ks))
		}
	}
}

func TestParseKeys(t *testing.T) {
	for _, bad := range []string{"", "k1", "k1:short", ":0123456789abcdef", "a.b:0123456789abcdef", "ü:0123456789abcdef"} {
		if _, err := links.ParseKeys(bad); err == nil {
			t.Errorf("ParseKeys(%q) succeeded", bad)
		}
	}
}
