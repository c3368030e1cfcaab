package models

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dreamcad/inference/models/download"
	"dreamcad/inference/models/mini"
	"dreamcad/inference/weights"
)

// hub serves the toy's files as the Hugging Face hub does: a redirect that
// declares the digest, and ranges behind it.
type hub struct {
	*httptest.Server
	mu      sync.Mutex
	files   map[string][]byte
	declare string       // digest on the redirect; "right" computes it
	broken  atomic.Int64 // so many requests for bytes are cut off
	served  atomic.Int64 // requests for bytes
}

func startHub(t *testing.T, files map[string][]byte) *hub {
	t.Helper()
	h := &hub{files: files, declare: "right"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /owner/toy/resolve/main/{name}", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		name := r.PathValue("name")
		if h.declare == "right" {
			sum := sha256.Sum256(h.files[name])
			w.Header().Set("X-Linked-Etag", `"`+hex.EncodeToString(sum[:])+`"`)
		} else if h.declare != "" {
			w.Header().Set("X-Linked-Etag", `"`+h.declare+`"`)
		}
		http.Redirect(w, r, "/"+name, http.StatusFound)
	})
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		b, ok := h.files[r.PathValue("name")]
		h.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Header.Get("Range") != "bytes=0-0" {
			h.served.Add(1)
			if h.broken.Add(-1) >= 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				panic(http.ErrAbortHandler)
			}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

func (h *hub) set(name string, b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[name] = b
}

// toyStore is an empty store that knows the toy, whose merges come from h too.
func toyStore(t *testing.T, h *hub) (*Store, PullOptions) {
	t.Helper()
	d, _ := toy(t)
	o := PullOptions{Download: download.Options{Chunk: 4096, Parallel: 2, Pause: time.Millisecond}}
	if h != nil {
		d.Sources[1].URL = h.URL + "/merges.txt"
		o.Endpoint = h.URL
		o.Download.Client = h.Client()
	}
	return &Store{Dir: filepath.Join(t.TempDir(), "models"), Known: []*Description{d}}, o
}

func mustPull(t *testing.T, s *Store, o PullOptions) *Bundle {
	t.Helper()
	b, err := s.Pull(context.Background(), "toy", o)
	if err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Verify(context.Background(), b, nil); err != nil || !Healthy(findings) {
		t.Fatalf("%+v, %v", findings, err)
	}
	return b
}

// wantClean checks that nothing of a pull is left but models and records.
func wantClean(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, ".") && n != trustFile && !strings.HasPrefix(n, lockPrefix) {
			t.Errorf("left behind: %s", n)
		}
	}
}

func TestPull(t *testing.T) {
	_, files := toy(t)
	h := startHub(t, files)
	h.broken.Store(3)
	s, o := toyStore(t, h)
	var phases sync.Map
	o.Progress = func(p Progress) { phases.Store(p.Phase+" "+p.File, p.Done) }
	b := mustPull(t, s, o)
	wantClean(t, s)
	if n, _ := phases.Load("download toy.pt"); n != int64(len(files["toy.pt"])) {
		t.Errorf("progress ended at %v", n)
	}
	trusted, err := s.readTrust()
	if err != nil || trusted["toy/toy.pt"].By != "hub" || trusted["toy/merges.txt"].By != "registry" || trusted["toy/toy.pt"].SHA256 != b.Files.Weights.SHA256 {
		t.Errorf("%+v, %v", trusted, err)
	}
	digest, err := b.Digest()
	if err != nil || digest != "sha256:"+b.Files.Weights.SHA256 {
		t.Errorf("%s, %v", digest, err)
	}

	served := h.served.Load()
	if _, err := s.Pull(context.Background(), "toy", o); !errors.Is(err, ErrHere) {
		t.Errorf("a second pull: %v", err)
	}
	if h.served.Load() != served {
		t.Error("the second pull downloaded something")
	}
	o.Again = true
	mustPull(t, s, o)
	wantClean(t, s)
}

func TestPullRefuses(t *testing.T) {
	_, files := toy(t)
	wrong := strings.Repeat("0", 64)
	flipped := slices.Clone(files["toy.pt"])
	flipped[200] ^= 1
	d, _ := toy(t)
	fewer := checkpoint(t, d.Tensors()[1:])
	misshapen := d.Tensors()
	misshapen[0].Shape = []int{3, 3}
	for name, c := range map[string]struct {
		change func(*hub)
		want   string
	}{
		"declared digest":    {func(h *hub) { h.declare = wrong }, "has the digest"},
		"truncated":          {func(h *hub) { h.set("toy.pt", files["toy.pt"][:9000]) }, "truncated or damaged"},
		"a page of text":     {func(h *hub) { h.set("toy.pt", []byte("<html>please log in</html>")) }, "neither a PyTorch checkpoint nor a safetensors file"},
		"corrupt merges":     {func(h *hub) { h.set("merges.txt", []byte("#version: toy\na c</w>\n")) }, "the one that this program knows"},
		"longer merges":      {func(h *hub) { h.set("merges.txt", []byte("#version: toy\na b</w>\nc d\n")) }, "with 26 bytes, not 22"},
		"a tensor missing":   {func(h *hub) { h.set("toy.pt", fewer) }, "1 missing: " + d.Tensors()[0].Name},
		"a tensor misshapen": {func(h *hub) { h.set("toy.pt", checkpoint(t, misshapen)) }, "F32 [3 3], not [8 4]"},
		"absent":             {func(h *hub) { delete(h.files, "toy.pt") }, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, map[string][]byte{"toy.pt": files["toy.pt"], "merges.txt": files["merges.txt"]})
			c.change(h)
			s, o := toyStore(t, h)
			_, err := s.Pull(context.Background(), "toy", o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
			if s.Has("toy") {
				t.Error("the model is there")
			}
			// What was wrong does not stand in the way of the right file.
			right := startHub(t, map[string][]byte{"toy.pt": files["toy.pt"], "merges.txt": files["merges.txt"]})
			s.Known[0].Sources[1].URL = right.URL + "/merges.txt"
			o.Endpoint, o.Download.Client = right.URL, right.Client()
			mustPull(t, s, o)
		})
	}
}

// The digest of the first pull is binding, also after the model was removed
// and when the hub itself declares another one.
func TestTrustLasts(t *testing.T) {
	d, files := toy(t)
	h := startHub(t, files)
	h.declare = ""
	s, o := toyStore(t, h)
	var notes []string
	o.Note = func(text string) { notes = append(notes, text) }
	b := mustPull(t, s, o)
	if len(notes) != 3 || !strings.Contains(notes[0], "Fetching toy.pt from 127.0.0.1:") || !strings.Contains(notes[2], b.Files.Weights.SHA256) {
		t.Errorf("notes %q", notes)
	}
	if _, err := s.Remove("toy"); err != nil {
		t.Fatal(err)
	}
	h.set("toy.pt", checkpoint(t, append(d.Tensors(), weights.Wanted{Name: "extra", Shape: []int{1}})))
	for _, declare := range []string{"", "right"} {
		h.declare = declare
		_, err := s.Pull(context.Background(), "toy", o)
		if err == nil || !strings.Contains(err.Error(), "when it was pulled on") {
			t.Errorf("another file under the same name: %v", err)
		}
		if s.Has("toy") {
			t.Error("the model is there")
		}
	}
}

// A cancelled pull is taken up by the next.
func TestPullResumes(t *testing.T) {
	_, files := toy(t)
	h := startHub(t, files)
	s, o := toyStore(t, h)
	ctx, cancel := context.WithCancel(context.Background())
	o.Download.Parallel = 1
	o.Progress = func(p Progress) {
		if p.Phase == "download" && p.Done > 20_000 {
			cancel()
		}
	}
	if _, err := s.Pull(ctx, "toy", o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	o.Progress = nil
	before := h.served.Load()
	mustPull(t, s, o)
	wantClean(t, s)
	all := int64(len(files["toy.pt"])+4095)/4096 + 1
	if n := h.served.Load() - before; n > all-4 {
		t.Errorf("%d requests of %d after the resumption", n, all)
	}
}

func TestTwoPullsAtOnce(t *testing.T) {
	_, files := toy(t)
	h := startHub(t, files)
	s, o := toyStore(t, h)
	inside, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	first := o
	first.Progress = func(Progress) { once.Do(func() { close(inside); <-resume }) }
	done := make(chan error)
	go func() { _, err := s.Pull(context.Background(), "toy", first); done <- err }()
	<-inside
	other := &Store{Dir: s.Dir, Known: s.Known}
	if _, err := other.Pull(context.Background(), "toy", o); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d is changing this model", os.Getpid())) {
		t.Errorf("the second pull: %v", err)
	}
	if _, err := other.Remove("toy"); err == nil {
		t.Error("the model was removed during a pull")
	}
	close(resume)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPullFrom(t *testing.T) {
	_, files := toy(t)
	h := startHub(t, files)
	put := func(dir, name string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	both := t.TempDir()
	file := put(both, "toy.pt", files["toy.pt"])
	put(both, "merges.txt", files["merges.txt"])
	renamed := put(t.TempDir(), "checkpoint.ckpt", files["toy.pt"])
	several := t.TempDir()
	put(several, "a.pt", files["toy.pt"])
	put(several, "b.pt", files["toy.pt"])
	pulled, po := toyStore(t, h)
	bundle := mustPull(t, pulled, po).Dir()
	if _, err := pulled.Convert(context.Background(), "toy", ConvertOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, want string }{
		"file":             {file, ""},
		"renamed file":     {renamed, ""},
		"folder":           {both, ""},
		"bundle":           {bundle, ""},
		"converted file":   {filepath.Join(bundle, "weights.safetensors"), ""},
		"address":          {h.URL + "/toy.pt", ""},
		"folder's address": {h.URL + "/", ""},
		"nothing":          {filepath.Join(both, "absent"), "no such file"},
		"not weights":      {filepath.Join(both, "merges.txt"), "neither a checkpoint"},
		"several":          {several, "several files of weights (a.pt, b.pt)"},
		"empty folder":     {t.TempDir(), "holds no toy.pt"},
		"another model":    {"mini", `holds the model "mini"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := toyStore(t, h)
			o.From = c.from
			if c.want == "" {
				mustPull(t, s, o)
				return
			}
			if _, err := s.Pull(context.Background(), "toy", o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	// A file that is refused is named as it was given.
	damaged := put(t.TempDir(), "mine.ckpt", files["toy.pt"][:9000])
	text := put(t.TempDir(), "mine.safetensors", []byte("<html>please log in</html>"))
	d, _ := toy(t)
	fewer := put(t.TempDir(), "fewer.pt", checkpoint(t, d.Tensors()[1:]))
	for file, want := range map[string]string{damaged: "truncated or damaged", text: "neither a PyTorch checkpoint", fewer: "1 missing"} {
		s, o := toyStore(t, h)
		o.From = file
		_, err := s.Pull(context.Background(), "toy", o)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), strconv.Quote(file)) || strings.Contains(err.Error(), pullPrefix) {
			t.Errorf("error %v, want %q and %q", err, want, file)
		}
	}
	for _, name := range []string{"unknown", "../x", "mini"} {
		if _, err := pulled.Pull(context.Background(), name, po); err == nil {
			t.Errorf("pulled %q", name)
		}
	}
}

// A pulled model is copied to the backup folder and comes back from there
// without the network; a damaged backup is not used.
func TestBackup(t *testing.T) {
	_, files := toy(t)
	h := startHub(t, files)
	s, o := toyStore(t, h)
	s.Backup = filepath.Join(t.TempDir(), "backup")
	mustPull(t, s, o)
	copied := filepath.Join(s.Backup, "toy", "toy.pt")
	if b, err := os.ReadFile(copied); err != nil || !bytes.Equal(b, files["toy.pt"]) {
		t.Fatalf("the backup is not the file: %v", err)
	}
	if _, err := s.Remove("toy"); err != nil {
		t.Fatal(err)
	}
	h.Close()
	mustPull(t, s, o)

	if _, err := s.Remove("toy"); err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(files["toy.pt"])
	damaged[5000] ^= 1
	if err := os.WriteFile(copied, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Pull(context.Background(), "toy", o)
	if err == nil || !strings.Contains(err.Error(), "when it was pulled on") || !strings.Contains(err.Error(), fmt.Sprintf("delete %q", filepath.Dir(copied))) {
		t.Errorf("a damaged backup: %v", err)
	}
}

func TestRoom(t *testing.T) {
	if err := room(t.TempDir(), 1<<62); err == nil || !strings.Contains(err.Error(), "are needed") {
		t.Errorf("got %v", err)
	}
	if err := room(t.TempDir(), 1); err != nil {
		t.Error(err)
	}
	if _, ok := freeBytes(filepath.Join(t.TempDir(), "absent")); ok {
		t.Error("a folder that is not there has room")
	}
}

// A server that does not say how much it sends cannot fill the disk: it is held
// to the size that is known, or to the room that there is.
func TestServerThatSendsWithoutEnd(t *testing.T) {
	_, files := toy(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for b := make([]byte, 1<<20); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	for name, c := range map[string]struct {
		bytes int64 // that the registry knows
		want  string
	}{
		"known size":   {10_000, "more than the 10000 bytes"},
		"unknown size": {0, "--from"},
	} {
		t.Run(name, func(t *testing.T) {
			store, o := toyStore(t, startHub(t, files))
			if c.bytes == 0 {
				small := t.TempDir()
				if err := syscall.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%d", margin+40<<20)); err != nil {
					t.Skipf("no small disk to be had here: %v", err)
				}
				t.Cleanup(func() {
					if err := syscall.Unmount(small, 0); err != nil {
						t.Error(err)
					}
				})
				store.Dir = filepath.Join(small, "models")
			}
			store.Known[0].Sources[0].Bytes = c.bytes
			o.Endpoint = s.URL
			_, err := store.Pull(context.Background(), "toy", o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "attempts") {
				t.Fatalf("error %v, want one line with %q", err, c.want)
			}
			if n := diskBytes(filepath.Join(store.Dir, pullPrefix+"toy")); n > 1000 {
				t.Errorf("%d bytes are left of what was refused", n)
			}
		})
	}
}

func TestListAndRemove(t *testing.T) {
	_, files := toy(t)
	h := startHub(t, files)
	s, o := toyStore(t, h)
	s.Embedded = []fs.FS{mini.FS}
	rows := func() string {
		t.Helper()
		list, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, l := range list {
			text = append(text, fmt.Sprintf("%s:%v:%v", l.Name, l.Where != "", l.Err != nil))
		}
		return strings.Join(text, " ")
	}
	if got := rows(); got != "mini:true:false toy:false:false" {
		t.Errorf("before: %s", got)
	}
	if _, err := s.Open("toy"); err == nil || !strings.Contains(err.Error(), "dream models pull fetches it") {
		t.Errorf("got %v", err)
	}
	mustPull(t, s, o)
	if err := os.Mkdir(filepath.Join(s.Dir, "rubbish"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := rows(); got != "mini:true:false rubbish:true:true toy:true:false" {
		t.Errorf("after: %s", got)
	}
	if n, err := s.Remove("toy"); err != nil || n < int64(len(files["toy.pt"])) {
		t.Errorf("removed %d bytes, %v", n, err)
	}
	for name, want := range map[string]string{"toy": "not here", "mini": "part of the program", "../..": "not possible"} {
		if _, err := s.Remove(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := s.Open("mini"); err != nil || b.Name != "mini" {
		t.Errorf("mini: %v", err)
	}
}
