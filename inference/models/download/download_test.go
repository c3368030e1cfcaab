package download

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func content(n int) []byte {
	b := make([]byte, n)
	for r, i := rand.New(rand.NewPCG(1, 2)), 0; i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// server serves one file and can be made to misbehave.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	file   []byte
	etag   string
	sha256 string // declared on a redirect, as the hub does
	// fault handles a request for bytes itself when it returns true.
	fault    func(n int64, w http.ResponseWriter, r *http.Request) bool
	requests atomic.Int64 // for bytes; the probe's are not counted
	noRanges bool
}

func serve(t *testing.T, file []byte) *server {
	t.Helper()
	s := &server{file: file, etag: `"v1"`}
	mux := http.NewServeMux()
	mux.HandleFunc("/file", s.bytes)
	mux.HandleFunc("/hub", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Linked-Etag", `"`+s.sha256+`"`)
		http.Redirect(w, r, "/file", http.StatusFound)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *server) bytes(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	file, etag := s.file, s.etag
	s.mu.Unlock()
	if r.Header.Get("Range") != "bytes=0-0" {
		n := s.requests.Add(1)
		if s.fault != nil && s.fault(n, w, r) {
			return
		}
	}
	if s.noRanges {
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		_, _ = w.Write(file)
		return
	}
	w.Header().Set("ETag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
}

func (s *server) replace(file []byte, etag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file, s.etag = file, etag
}

// asked parses the range of a request.
func asked(r *http.Request) (begin, end int) {
	_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &begin, &end)
	if err != nil {
		panic(err)
	}
	return begin, end + 1
}

// drop sends the beginning of what was asked for and cuts the connection.
func drop(w http.ResponseWriter, r *http.Request, file []byte, keep int) {
	begin, end := asked(r)
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", begin, end-1, len(file)))
	w.Header().Set("Content-Length", fmt.Sprint(end-begin))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(file[begin:min(begin+keep, end)])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

var quick = Options{Chunk: 10_000, Parallel: 3, Attempts: 4, Pause: 10 * time.Millisecond, Stall: 30 * time.Second, Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}

func get(t *testing.T, url, path string, o Options) error {
	t.Helper()
	r, err := Probe(context.Background(), url, o)
	if err != nil {
		return err
	}
	return Fetch(context.Background(), r, path, o)
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the file has %d bytes, not the %d that the server has, or others", len(got), len(want))
	}
	left, err := filepath.Glob(path + ".*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestFetch(t *testing.T) {
	for _, n := range []int{1, 9_999, 10_000, 10_001, 123_457} {
		s := serve(t, content(n))
		path := filepath.Join(t.TempDir(), "f")
		var last atomic.Int64
		o := quick
		o.Progress = func(done int64) { last.Store(max(last.Load(), done)) }
		if err := get(t, s.URL+"/file", path, o); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, s.file)
		if last.Load() != int64(n) {
			t.Errorf("progress ended at %d of %d", last.Load(), n)
		}
	}
}

// Every request is cut off after some bytes: the download goes on behind them.
func TestConnectionsDrop(t *testing.T) {
	s := serve(t, content(50_000))
	s.fault = func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		drop(w, r, s.file, 3_000)
		return true
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := get(t, s.URL+"/file", path, quick); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, s.file)
}

func TestServerNeverDelivers(t *testing.T) {
	s := serve(t, content(50_000))
	s.fault = func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		drop(w, r, s.file, 0)
		return true
	}
	path := filepath.Join(t.TempDir(), "f")
	err := get(t, s.URL+"/file", path, quick)
	if err == nil || !strings.Contains(err.Error(), "after 4 attempts") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an unfinished file has the final name")
	}
}

// A second process takes over what the first one left and asks only for the
// rest.
func TestResume(t *testing.T) {
	s := serve(t, content(200_000))
	path := filepath.Join(t.TempDir(), "f")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.fault = func(n int64, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 12 {
			cancel()
		}
		return false
	}
	r, err := Probe(ctx, s.URL+"/file", quick)
	if err != nil {
		t.Fatal(err)
	}
	if err := Fetch(ctx, r, path, quick); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	s.fault = nil
	left := Left(r, path)
	if left > 150_000 || left <= 0 {
		t.Fatalf("%d bytes left of 200000", left)
	}
	s.requests.Store(0)
	first := int64(-1)
	o := quick
	o.Parallel = 1
	o.Progress = func(done int64) {
		if first < 0 {
			first = done
		}
	}
	if err := Fetch(context.Background(), r, path, o); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, s.file)
	// A cancelled request of the first run may be counted late.
	if n := s.requests.Load(); n < left/10_000 || n > left/10_000+3 || first != 200_000-left {
		t.Errorf("%d requests for %d bytes; progress began at %d", n, left, first)
	}
}

// A damaged state is not trusted.
func TestDamagedState(t *testing.T) {
	s := serve(t, content(30_000))
	path := filepath.Join(t.TempDir(), "f")
	for _, state := range []string{"", "{", `{"bytes":30000,"identity":"\"v1\"","chunk":0}`, `{"bytes":30000,"identity":"\"v1\"","chunk":10000,"done":[true]}`,
		`{"bytes":30000,"identity":"\"v0\"","chunk":10000,"done":[true,true,true]}`} {
		if err := os.WriteFile(path+".part.json", []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".part", make([]byte, 30_000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := get(t, s.URL+"/file", path, quick); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, s.file)
	}
}

// Another version appears in the middle: the download starts again and gets
// all of the new one.
func TestFileChanges(t *testing.T) {
	s := serve(t, content(60_000))
	next := append(content(70_000)[5:], 1)
	s.fault = func(n int64, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 3 {
			s.replace(next, `"v2"`)
		}
		return false
	}
	path := filepath.Join(t.TempDir(), "f")
	o := quick
	o.Parallel = 1
	if err := get(t, s.URL+"/file", path, o); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, next)
}

// A server that lies about lengths and places is not believed.
func TestServerLies(t *testing.T) {
	file := content(50_000)
	partial := func(w http.ResponseWriter, contentRange string, body []byte) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body)
	}
	for name, c := range map[string]struct {
		lie  func(w http.ResponseWriter, begin, end int)
		want string
	}{
		"too much": {func(w http.ResponseWriter, b, e int) {
			partial(w, fmt.Sprintf("bytes %d-%d/50000", b, e-1), make([]byte, e-b+1))
		}, "more than it announced"},
		"too little": {func(w http.ResponseWriter, b, e int) { partial(w, fmt.Sprintf("bytes %d-%d/50000", b, e-1), nil) }, "sent 0 bytes of 10000"},
		"elsewhere": {func(w http.ResponseWriter, b, e int) {
			partial(w, fmt.Sprintf("bytes %d-%d/50000", b+1, e), file[b+1:e])
		}, "asked for bytes"},
		"no place":     {func(w http.ResponseWriter, b, e int) { partial(w, "", file[b:e]) }, "cannot be read"},
		"impossible":   {func(w http.ResponseWriter, b, e int) { partial(w, "bytes 9-3/50000", file[b:e]) }, "makes no sense"},
		"huge":         {func(w http.ResponseWriter, b, e int) { partial(w, "bytes 0-99999999999999999999/3", file[b:e]) }, "cannot be read"},
		"other length": {func(w http.ResponseWriter, b, e int) { partial(w, fmt.Sprintf("bytes %d-%d/60000", b, e-1), file[b:e]) }, "changed on the server"},
		"forbidden":    {func(w http.ResponseWriter, _, _ int) { w.WriteHeader(http.StatusForbidden) }, "HF_TOKEN"},
		"gone":         {func(w http.ResponseWriter, _, _ int) { w.WriteHeader(http.StatusGone) }, "410"},
		"broken":       {func(w http.ResponseWriter, _, _ int) { w.WriteHeader(http.StatusBadGateway) }, "502 Bad Gateway (after 4 attempts)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, file)
			s.fault = func(_ int64, w http.ResponseWriter, r *http.Request) bool {
				b, e := asked(r)
				c.lie(w, b, e)
				return true
			}
			path := filepath.Join(t.TempDir(), "f")
			err := get(t, s.URL+"/file", path, quick)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("the file has the final name")
			}
		})
	}
}

// Passing trouble does not end a download.
func TestPassingTrouble(t *testing.T) {
	s := serve(t, content(40_000))
	s.fault = func(n int64, w http.ResponseWriter, _ *http.Request) bool {
		if n%2 == 0 {
			return false
		}
		if n == 1 {
			w.Header().Set("Retry-After", "0")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	path := filepath.Join(t.TempDir(), "f")
	o := quick
	o.Parallel = 1
	if err := get(t, s.URL+"/file", path, o); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, s.file)
}

func TestStall(t *testing.T) {
	s := serve(t, content(20_000))
	over := make(chan struct{})
	defer close(over)
	s.fault = func(n int64, w http.ResponseWriter, r *http.Request) bool {
		if n > 1 {
			return false
		}
		begin, end := asked(r)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", begin, end-1, len(s.file)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(s.file[begin : begin+100])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-over:
		case <-r.Context().Done():
		}
		return true
	}
	path := filepath.Join(t.TempDir(), "f")
	o := quick
	o.Parallel, o.Stall = 1, 300*time.Millisecond
	if err := get(t, s.URL+"/file", path, o); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, s.file)
}

func TestServerWithoutRanges(t *testing.T) {
	s := serve(t, content(40_000))
	s.noRanges = true
	s.fault = func(n int64, w http.ResponseWriter, _ *http.Request) bool {
		if n > 2 {
			return false
		}
		w.Header().Set("Content-Length", "40000")
		_, _ = w.Write(s.file[:1000*n])
		panic(http.ErrAbortHandler)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := get(t, s.URL+"/file", path, quick); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, s.file)
}

// endless sends n bytes without ranges and without saying how many, or without
// end when n is negative.
func endless(t *testing.T, n int) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		piece := make([]byte, 1<<20)
		for left := n; left != 0; left -= min(len(piece), max(left, 0)) {
			if left > 0 {
				piece = piece[:min(len(piece), left)]
			}
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// A server that serves no parts and names no size: whoever knows the size or the
// room bounds it, and of what was refused nothing stays.
func TestServerWithoutSize(t *testing.T) {
	fetch := func(n int, bytes int64, grown func(string, int64) error) (int64, error) {
		s := endless(t, n)
		path := filepath.Join(t.TempDir(), "f")
		o := quick
		o.Grown = grown
		r, err := Probe(context.Background(), s.URL, o)
		if err != nil || r.Bytes != -1 || r.Ranges {
			t.Fatalf("%+v, %v", r, err)
		}
		r.Bytes = bytes
		err = Fetch(context.Background(), r, path, o)
		left, globErr := filepath.Glob(path + "*")
		if globErr != nil || err == nil != slices.Equal(left, []string{path}) || err != nil && left != nil {
			t.Errorf("%d bytes of %d: %v, and there is %q", n, bytes, err, left)
		}
		info, _ := os.Stat(path)
		if info == nil {
			return 0, err
		}
		return info.Size(), err
	}
	for _, n := range []int{1, 2*grownEvery - 1, 2 * grownEvery, 2*grownEvery + 1} {
		if got, err := fetch(n, -1, nil); got != int64(n) || err != nil {
			t.Errorf("%d bytes of %d, %v", got, n, err)
		}
		if got, err := fetch(n, int64(n), nil); got != int64(n) || err != nil {
			t.Errorf("%d bytes of %d as expected, %v", got, n, err)
		}
		if _, err := fetch(n, int64(n+1), nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("sent %d bytes of %d", n, n+1)) {
			t.Errorf("%d bytes where one more is expected: %v", n, err)
		}
	}
	if _, err := fetch(-1, 2*grownEvery, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than the %d bytes that the file has", 2*grownEvery)) {
		t.Errorf("more than expected: %v", err)
	}
	full := errors.New("no room is left")
	if _, err := fetch(-1, -1, func(_ string, n int64) error {
		if n > 20<<20 {
			return full
		}
		return nil
	}); !errors.Is(err, full) || strings.Contains(err.Error(), "attempts") {
		t.Errorf("without end: %v", err)
	}
}

// The digest that the hub declares on its redirect is found, and the token
// stays with the hub.
func TestHubRedirect(t *testing.T) {
	s := serve(t, content(30_000))
	sum := sha256.Sum256(s.file)
	s.sha256 = hex.EncodeToString(sum[:])
	var leaked atomic.Bool
	s.fault = func(_ int64, _ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		return false
	}
	// The hub under another host name than the server of the bytes.
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Linked-Etag", `"`+s.sha256+`"`)
		http.Redirect(w, r, strings.Replace(s.URL, "127.0.0.1", "localhost", 1)+"/file", http.StatusFound)
	}))
	defer hub.Close()
	o := quick
	if _, err := Probe(context.Background(), hub.URL, o); err == nil || !strings.Contains(err.Error(), "HF_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
	o.Header = http.Header{"Authorization": {"Bearer secret"}}
	r, err := Probe(context.Background(), hub.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.SHA256 != s.sha256 || r.Bytes != 30_000 || !r.Ranges {
		t.Errorf("%+v", r)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := Fetch(context.Background(), r, path, o); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, s.file)
	if leaked.Load() {
		t.Error("the token was sent to another host")
	}
}

// What a redirect leads to gets the token only where it is the same server: not
// a name below the hub's, not another port.
func TestTokenStaysWithTheHub(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{} // servers that got the token
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Host] = seen[r.Host] || r.Header.Get("Authorization") != ""
		mu.Unlock()
		if next := strings.TrimPrefix(r.URL.Path, "/to/"); next != r.URL.Path {
			http.Redirect(w, r, "http://"+next+"/file", http.StatusFound)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content(1000)))
	}))
	defer s.Close()
	o := quick
	o.Header = http.Header{"Authorization": {"Bearer secret"}}
	o.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}}
	for next, want := range map[string]bool{"hub.test": true, "cdn.hub.test": false, "hub.test:81": false, "elsewhere.test": false} {
		if err := get(t, "http://hub.test/to/"+next, filepath.Join(t.TempDir(), "f"), o); err != nil {
			t.Fatal(err)
		}
		if !seen["hub.test"] || seen[next] != want {
			t.Errorf("redirected to %s: the token was sent to %v", next, seen)
		}
	}
}

// A server that takes the connection and says nothing does not hold up a pull.
func TestProbeOfSilentServer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer s.Close()
	o := quick
	o.Attempts, o.Stall = 2, 100*time.Millisecond
	_, err := Probe(context.Background(), s.URL, o)
	if err == nil || !strings.Contains(err.Error(), "the server sends nothing (after 2 attempts)") {
		t.Errorf("got %v", err)
	}
}

func TestProbeErrors(t *testing.T) {
	s := serve(t, nil)
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-0/9223372036854775807")
		w.WriteHeader(http.StatusPartialContent)
	}))
	defer huge.Close()
	for address, want := range map[string]string{
		s.URL + "/file":   "the file is empty",
		s.URL + "/absent": "404",
		"http://user:pw@" + s.URL[7:] + "/absent?sig=secret": s.URL + "/absent",
		"http://127.0.0.1:1/?sig=secret":                     "refused",
		"http://127.0.0.1:1/%?sig=secret":                    "cannot be read",
		"gopher://nowhere":                                   "must begin with http:// or https://",
		"mirror.test":                                        "must begin with http:// or https://",
		"http:///absent":                                     "the name of a server",
		"http://%":                                           "cannot be read",
		huge.URL:                                             "makes no sense",
	} {
		o := quick
		o.Attempts = 1
		_, err := Probe(context.Background(), address, o)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want %q", address, err, want)
		}
	}
}
