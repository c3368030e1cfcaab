package sqliteq_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/sqliteq"
)

// Many submits that wait while another process writes: those whose budget ends
// meanwhile are not in the file; the others are written together, each with its
// own answer.
func TestBurst(t *testing.T) {
	const n, limit = 250, 3
	cfg := queuetest.Config()
	cfg.QueuedPerUser, cfg.QueuedTotal = 0, 0
	path := filepath.Join(t.TempDir(), "queue.db")
	open := func(budget time.Duration) *sqliteq.Queue {
		t.Helper()
		cfg.SubmitBudget = budget
		q, err := sqliteq.Open(t.Context(), path, cfg, sqliteq.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { q.Close() })
		return q
	}
	hasty, patient := open(200*time.Millisecond), open(30*time.Second)
	other, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	write := func(statement string) {
		t.Helper()
		if _, err := other.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	burst := func(q *sqliteq.Queue, user string) (codes map[queue.Code]int) {
		codes = map[queue.Code]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				quota := queue.Quota{Key: user, Cost: 1, Limit: limit, Life: time.Hour, Sentence: "Enough."}
				if i%2 == 0 {
					quota.Key, quota.Limit = user+"/free", n
				}
				rc, err := q.Submit(t.Context(), queuetest.Request(user, fmt.Sprint("thing ", i)), quota)
				mu.Lock()
				defer mu.Unlock()
				codes[queue.CodeOf(err)]++
				if (err == nil) != (rc.ID != "" && rc.New) {
					t.Errorf("receipt %+v with error %v", rc, err)
				}
			})
		}
		all.Wait()
		return codes
	}
	jobs := func(user string) int {
		t.Helper()
		list, err := patient.List(t.Context(), queue.Filter{User: user, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	write("BEGIN IMMEDIATE")
	if codes := burst(hasty, "a"); codes[queue.CodeUnavailable] != n {
		t.Errorf("behind another process: %v", codes)
	}
	release := time.AfterFunc(300*time.Millisecond, func() { write("ROLLBACK") })
	defer release.Stop()
	codes := burst(patient, "b")
	if codes[""] != n/2+limit || codes[queue.CodeQuota] != n/2-limit {
		t.Errorf("with time: %v", codes)
	}
	u := queuetest.Request("b", "x").Requester.User()
	if got := jobs(u); got != n/2+limit {
		t.Errorf("%d jobs", got)
	}
	if got := jobs(queuetest.Request("a", "x").Requester.User()); got != 0 {
		t.Errorf("%d jobs that were refused", got)
	}
	if faults, err := patient.Audit(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("audit: %v %v", faults, err)
	}
}
