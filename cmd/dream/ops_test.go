package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"dreamcad/queue"
)

// The real program with thresholds that every machine is beyond: it tells the
// webhook once and takes no work.
func TestWatchTellsAndRefuses(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a queue.Alert
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got[a.Code+" "+string(a.State)]++
	}))
	defer hook.Close()
	t.Setenv("DREAM_OPS_WEBHOOK", hook.URL)
	t.Setenv("DREAM_OPS_MEMORY", "0.001")
	t.Setenv("DREAM_OPS_DISK_REFUSE", "0.001")
	s := startUp(t, t.TempDir())
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		mu.Lock()
		told := got["memory firing"] == 1 && got["disk_full firing"] == 1
		mu.Unlock()
		if told && strings.Contains(s.output.String(), "taking no new work") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("webhook got %v; log:\n%s", got, s.output)
		}
	}
}
