package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreamcad/ops/monitor"
	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
)

// newHook is a webhook's address, and how often it has heard of "CODE STATE".
func newHook(t *testing.T) (address string, heard func(what string) int) {
	var mu sync.Mutex
	got := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a queue.Alert
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got[a.Code+" "+string(a.State)]++
	}))
	t.Cleanup(server.Close)
	return server.URL, func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return got[what]
	}
}

// The real program with thresholds that every machine is beyond: it tells the
// webhook once and takes no work.
func TestWatchTellsAndRefuses(t *testing.T) {
	hook, heard := newHook(t)
	t.Setenv("DREAM_OPS_WEBHOOK", hook)
	t.Setenv("DREAM_OPS_MEMORY", "0.001")
	t.Setenv("DREAM_OPS_DISK_REFUSE", "0.001")
	s := startUp(t, t.TempDir())
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		memory, disk := heard("memory firing"), heard("disk_full firing")
		if memory == 1 && disk == 1 && strings.Contains(s.output.String(), "taking no new work") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the webhook heard %d times of the memory and %d of the disk; log:\n%s", memory, disk, s.output)
		}
	}
}

// Two workers with the same trouble tell each way once: the webhook, an
// Alertmanager and the queue's stream. With Redis gone the webhook hears that once
// too, and once that it is back.
func TestTwoWorkersTellOnce(t *testing.T) {
	redis := queuetest.StartRedis(t, "--appendonly", "yes")
	var mu sync.Mutex
	hooked, managed := map[string]int{}, map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/api/v2/alerts" {
			var list []struct {
				Labels map[string]string
				EndsAt time.Time
			}
			if err := json.NewDecoder(r.Body).Decode(&list); err != nil || r.Header.Get("Authorization") != "Bearer am-token" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			for _, a := range list {
				text, _ := json.Marshal(a.Labels) // sorted: what Alertmanager tells alerts by
				managed[string(text)]++
			}
			return
		}
		var a queue.Alert
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		hooked[a.Code+" "+string(a.State)]++
	}))
	defer server.Close()
	for i := range 2 {
		child(t, []string{"DREAM_DATA=" + t.TempDir(), "DREAM_QUEUE_URL=redis://" + redis.Addr, "DREAM_STORAGE_URL=file://" + t.TempDir(),
			"DREAM_OPS_WEBHOOK=" + server.URL + "/hook", "DREAM_OPS_ALERTMANAGER=" + server.URL, "DREAM_OPS_ALERTMANAGER_TOKEN=am-token", "DREAM_OPS_MEMORY=0.001", "DREAM_OPS_SERVERS_EVERY=1s",
			"DREAM_OPS_RULES=server_down hold=3s clear_hold=1s"}, "worker", "--device", "cpu", "--name", "w"+strconv.Itoa(i))
	}
	until := func(what string, limit time.Duration, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
			mu.Lock()
			done := ok()
			mu.Unlock()
			if done {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("never: %s; webhook %v, Alertmanager %v", what, hooked, managed)
			}
		}
	}
	alerts := func(list map[string]int, part string) (labels, posts int) {
		for k, n := range list {
			if strings.Contains(k, part) {
				labels, posts = labels+1, posts+n
			}
		}
		return labels, posts
	}
	// Both have told Alertmanager, which needs no help with that: by now both have tried the webhook.
	until("both workers see the memory", time.Minute, func() bool { _, n := alerts(managed, `"memory"`); return n >= 2 && hooked["memory firing"] > 0 })
	time.Sleep(2 * time.Second)
	mu.Lock()
	labels, _ := alerts(managed, `"memory"`)
	if hooked["memory firing"] != 1 || labels != 1 {
		t.Errorf("webhook %v, Alertmanager %v", hooked, managed)
	}
	mu.Unlock()
	q := onRedis(t, redis)
	stream, err := q.Alerts(t.Context(), "", 100, 0)
	n := 0
	for _, a := range stream {
		if a.Code == "memory" {
			n++
		}
	}
	if err != nil || n != 1 {
		t.Errorf("the stream: %v %+v", err, stream)
	}
	redis.Kill()
	until("the webhook hears of the queue's end", time.Minute, func() bool { return hooked["server_down firing"] > 0 })
	time.Sleep(10 * time.Second) // by now the other worker has seen it too
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	until("the webhook hears that it is back", time.Minute, func() bool { return hooked["server_down resolved"] > 0 })
	time.Sleep(3 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	if hooked["server_down firing"] != 1 || hooked["server_down resolved"] != 1 {
		t.Errorf("one outage: the webhook heard %v", hooked)
	}
	stream, err = q.Alerts(t.Context(), "", 100, 0)
	n = 0
	for _, a := range stream {
		if a.Code == "server_down" {
			n++
		}
	}
	if err != nil || n > 2 {
		t.Errorf("one outage: the stream has %v %+v", err, stream)
	}
}

// A test alert says when nobody is there to hear it, and does not block for days.
func TestTestAlertWithoutChannel(t *testing.T) {
	for after, want := range map[string]string{"10ms": "names nobody to tell", "900h": "at most 10m", "-5s": "at most 10m"} {
		cmd := exec.Command("dream", "ops", "test-alert", "--after="+after)
		cmd.Env = append(os.Environ(), "DREAM_DATA="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != (after == "10ms") {
			t.Errorf("--after=%s: %v %s", after, err, out)
		}
	}
}

// A test alert that one way refuses is taken back on the others.
func TestTestAlertEndsEverywhere(t *testing.T) {
	refusing := httptest.NewServer(http.NotFoundHandler())
	defer refusing.Close()
	data := t.TempDir()
	cmd := exec.Command("dream", "ops", "test-alert", "--after", "10m")
	cmd.Env = append(os.Environ(), "DREAM_DATA="+data, "DREAM_OPS_WEBHOOK="+refusing.URL)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "it answered 404") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v:\n%s", err, out)
	}
	q, err := sqliteq.Open(t.Context(), filepath.Join(data, "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	told, err := q.Alerts(t.Context(), "", 10, 0)
	if firing, ferr := q.FiringAlerts(t.Context()); err != nil || ferr != nil || len(told) != 2 || len(firing) != 0 {
		t.Errorf("told %+v, firing %+v, %v %v", told, firing, err, ferr)
	}
}

// onRedis opens the server's queue, as a process of its own would.
func onRedis(t *testing.T, server *queuetest.Redis) *redisq.Queue {
	t.Helper()
	o, err := redisq.ParseURL("redis://" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	q, err := redisq.Open(t.Context(), queue.DefaultConfig(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// The owner tells that Redis is gone and is stopped before it can note that. The
// other worker, which takes over once Redis is back, does not tell it again.
func TestTakeOverTellsOnce(t *testing.T) {
	redis := queuetest.StartRedis(t, "--appendonly", "yes")
	hook, heard := newHook(t)
	workers := map[string]*exec.Cmd{}
	for _, name := range []string{"w0", "w1"} {
		workers[name] = child(t, []string{"DREAM_DATA=" + t.TempDir(), "DREAM_QUEUE_URL=redis://" + redis.Addr, "DREAM_STORAGE_URL=file://" + t.TempDir(), "DREAM_WORKER_SUPERVISE=false",
			"DREAM_OPS_WEBHOOK=" + hook, "DREAM_OPS_SERVERS_EVERY=200ms", "DREAM_OPS_RULES=server_down hold=1s clear_hold=5s,memory off"}, "worker", "--device", "cpu", "--name", name)
	}
	q := onRedis(t, redis)
	owner := func() string {
		r, err := q.Get(t.Context(), "ops/owner")
		var who struct{ Name string }
		if err == nil {
			err = json.Unmarshal(r.Value, &who)
		}
		if err != nil {
			return ""
		}
		return who.Name
	}
	fleet := func() int {
		l, _, err := monitor.Fleet(t.Context(), q)
		if err != nil {
			return 0
		}
		return len(l)
	}
	await(t, "both give signs of life", time.Minute, func() bool { return fleet() == 2 && owner() != "" })
	first := owner()
	other := map[string]string{"w0": "w1", "w1": "w0"}[first]
	time.Sleep(time.Second) // the other has seen whose the role is
	redis.Kill()
	await(t, "the webhook hears of it", time.Minute, func() bool { return heard("server_down firing") > 0 })
	if err := workers[first].Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = workers[first].Process.Signal(syscall.SIGCONT) })
	time.Sleep(7 * time.Second) // the owner's record ends
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the other takes over", time.Minute, func() bool { return owner() == other })
	time.Sleep(7 * time.Second) // the other has seen for 5 s that it answers
	if err := workers[first].Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, "the webhook hears that it is back", time.Minute, func() bool { return heard("server_down resolved") > 0 })
	if begun, ended := heard("server_down firing"), heard("server_down resolved"); begun != 1 || ended != 1 {
		t.Errorf("the webhook heard %d begins and %d ends", begun, ended)
	}
}
