package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"dreamcad/bots"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
	"dreamcad/storage/links"
)

// fixture is a console on a real queue and a real store; the test is the worker.
type fixture struct {
	t     *testing.T
	url   string
	queue queue.Queue
	store storage.Store
}

func newFixture(t *testing.T, token string) *fixture {
	t.Helper()
	base := t.TempDir()
	config := queue.DefaultConfig()
	config.SubmitBudget = time.Minute // however slow the disk
	q, err := sqliteq.Open(t.Context(), filepath.Join(base, "queue.db"), config, sqliteq.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(dir.Config{Path: filepath.Join(base, "store")})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := links.LoadKeys(filepath.Join(base, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	service, err := bots.New(bots.Config{Patience: time.Minute}, q, store, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Listen: "127.0.0.1:0", Token: token}, Deps{
		Jobs: q, Commands: service, Store: store, Keys: keys, Log: log,
		Assets: fstest.MapFS{"app.js": {Data: []byte("// bundle")}}, Built: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = q.Close()
	})
	return &fixture{t: t, url: s.URL(), queue: q, store: store}
}

func (f *fixture) post(body string) (int, replyView) {
	f.t.Helper()
	response, err := http.Post(f.url+"/api/command", "application/json", strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	var reply replyView
	if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
		f.t.Fatal(err)
	}
	return response.StatusCode, reply
}

// TestJobFromCommandToDownload follows one job through the API: the stream shows
// each state once, the views as soon as they exist, and links deliver the bytes.
func TestJobFromCommandToDownload(t *testing.T) {
	f := newFixture(t, "")
	const wish = `{"line": "/dream a ceramic coffee mug --seed 5", "key": "one"}`
	status, reply := f.post(wish)
	if status != http.StatusOK || reply.Job == nil || reply.Job.State != queue.Queued || reply.Job.Prompt != "a ceramic coffee mug" {
		t.Fatalf("%d %+v", status, reply)
	}
	if _, again := f.post(wish); again.Job == nil || again.Job.ID != reply.Job.ID {
		t.Errorf("the same wish made another job: %+v", again.Job)
	}

	response, err := http.Get(f.url + "/api/jobs/" + reply.Job.ID + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	stream := bufio.NewScanner(response.Body)
	next := func(what string, holds func(jobView) bool) jobView {
		t.Helper()
		for stream.Scan() {
			if data, ok := strings.CutPrefix(stream.Text(), "data: "); ok {
				var v jobView
				if err := json.Unmarshal([]byte(data), &v); err != nil {
					t.Fatal(err)
				}
				if holds(v) {
					return v
				}
			}
		}
		t.Fatalf("the stream ended before the job was %s: %v", what, stream.Err())
		return jobView{}
	}

	lease, err := f.queue.Lease(t.Context(), queue.Capabilities{Worker: "w/1", Name: "w", Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	picture := []byte("\x89PNG four views")
	file := queue.File{Role: "view", Name: "view-0.png", MediaType: "image/png", Bytes: int64(len(picture)), SHA256: strings.Repeat("0", 64)}
	if err := f.store.Put(t.Context(), storage.FileKey(lease.Job.ID, lease.ID, file.Name), bytes.NewReader(picture), file.Bytes); err != nil {
		t.Fatal(err)
	}
	progress := &queue.Progress{Stage: queue.StageOptimise, Step: 3, Total: 10}
	if _, err := f.queue.Heartbeat(t.Context(), lease.Ref(), queue.Beat{Progress: progress, Views: []queue.File{file}}); err != nil {
		t.Fatal(err)
	}
	v := next("shaping", func(v jobView) bool { return v.Stage == queue.StageOptimise && len(v.Files) == 1 })
	if v.Step != 3 || v.Total != 10 || v.Final {
		t.Errorf("progress is %+v", v)
	}
	if got := f.get(v.Files[0].URL); !bytes.Equal(got, picture) {
		t.Errorf("the view's link delivers %q", got)
	}
	if err := f.queue.Complete(t.Context(), lease.Ref(), queue.Result{Winner: lease.ID, Files: []queue.File{file}, Notices: []string{"A notice."}}); err != nil {
		t.Fatal(err)
	}
	v = next("done", func(v jobView) bool { return v.Final })
	if v.State != queue.Done || len(v.Notices) != 1 || v.CanCancel {
		t.Errorf("the end is %+v", v)
	}
	if stream.Scan() && strings.HasPrefix(stream.Text(), "data") {
		t.Errorf("the stream goes on after the end: %q", stream.Text())
	}
	if page := string(f.get("/jobs/" + reply.Job.Short)); !strings.Contains(page, "a ceramic coffee mug") || !strings.Contains(page, "job-data") {
		t.Errorf("the job page is %q", page)
	}
}

func (f *fixture) get(path string) []byte {
	f.t.Helper()
	response, err := http.Get(f.url + path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		f.t.Fatalf("GET %s: %s %v", path, response.Status, err)
	}
	return data
}

// TestButtonsAct: what an answer offers as a button works when it is pressed.
func TestButtonsAct(t *testing.T) {
	f := newFixture(t, "")
	_, reply := f.post(`{"line": "/dream a red chair"}`)
	if len(reply.Buttons) == 0 {
		t.Fatalf("no button to cancel: %+v", reply)
	}
	status, cancelled := f.post(`{"button": "` + reply.Buttons[0].ID + `"}`)
	if status != http.StatusOK || cancelled.Job == nil || cancelled.Job.State != queue.Cancelled {
		t.Errorf("%d %+v", status, cancelled)
	}
	if status, _ := f.post(`{"button": "v1:admin:x"}`); status != http.StatusBadRequest {
		t.Errorf("a made-up button was answered with %d", status)
	}
}

// Who names a model that no worker has learns what the job waits for.
func TestModelWithoutWorker(t *testing.T) {
	f := newFixture(t, "")
	if _, err := f.queue.Lease(t.Context(), queue.Capabilities{Worker: "w/1", Name: "w", Models: []string{"mini"}}); !errors.Is(err, queue.ErrEmpty) {
		t.Fatal(err)
	}
	for model, eta := range map[string]string{"mini": "", "large": "no running worker has the model large"} {
		if _, reply := f.post(`{"line": "/dream a mug --model ` + model + `"}`); reply.Job == nil || reply.Job.ETA != eta {
			t.Errorf("%s: %+v", model, reply.Job)
		}
	}
}

// TestTextIsNeverMarkup: a hostile prompt stays text on the page.
func TestTextIsNeverMarkup(t *testing.T) {
	f := newFixture(t, "")
	line, _ := json.Marshal(map[string]string{"line": `/dream </script><script>alert(1)</script> & "mug"`})
	_, reply := f.post(string(line))
	if reply.Job == nil {
		t.Fatalf("refused: %s", reply.Text)
	}
	if page := string(f.get("/jobs/" + reply.Job.ID)); strings.Contains(page, "<script>alert") {
		t.Errorf("the prompt is markup on its page: %s", page)
	}
}

// TestAccess: with a token everything but signed links and health asks for it;
// other origins cannot post; pages keep to themselves.
func TestAccess(t *testing.T) {
	f := newFixture(t, "open sesame")
	for path, want := range map[string]int{
		"/": 401, "/api/jobs": 401, "/assets/app.js": 401, "/jobs/ABCDEF": 401,
		"/healthz": 200, "/readyz": 200, "/r/ABCDEFGH/model.glb": 403,
	} {
		response, err := http.Get(f.url + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s without the token: %d, want %d", path, response.StatusCode, want)
		}
		if !strings.Contains(response.Header.Get("Content-Security-Policy"), "default-src") || response.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s lacks its headers: %v", path, response.Header)
		}
	}
	request := httptest.NewRequest("GET", f.url+"/", nil)
	request.RequestURI = ""
	request.SetBasicAuth("anyone", "open sesame")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("with the token: %s", response.Status)
	}
	request = httptest.NewRequest("POST", f.url+"/api/command", strings.NewReader(`{"line":"/help"}`))
	request.RequestURI = ""
	request.SetBasicAuth("anyone", "open sesame")
	request.Header.Set("Sec-Fetch-Site", "cross-site")
	response, err = http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("a post from another site: %s", response.Status)
	}
}

// TestBadRequests are answered with a sentence, whatever they are.
func TestBadRequests(t *testing.T) {
	f := newFixture(t, "")
	for _, body := range []string{"", "{", `{"line": 5}`, `{"line":"` + strings.Repeat("x", 100_000) + `"}`} {
		if status, reply := f.post(body); status != http.StatusBadRequest || reply.Text == "" {
			t.Errorf("%.30q: %d %+v", body, status, reply)
		}
	}
	for _, line := range []string{"", "/dream " + strings.Repeat("x", 501), "/jobs show ZZZZZZ", "/dream a mug --bogus"} {
		body, _ := json.Marshal(map[string]string{"line": line})
		if status, reply := f.post(string(body)); status != http.StatusUnprocessableEntity || !reply.Error || reply.Text == "" {
			t.Errorf("%.30q: %d %+v", line, status, reply)
		}
	}
	if jobs := string(f.get("/api/jobs")); strings.TrimSpace(jobs) != "[]" {
		t.Errorf("refused lines made jobs: %s", jobs)
	}
}
