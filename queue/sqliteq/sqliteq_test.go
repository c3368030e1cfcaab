package sqliteq_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/sqliteq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, cfg queue.Config) queuetest.Subject {
	t.Helper()
	var shift atomic.Int64
	q, err := sqliteq.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"), cfg, sqliteq.Options{
		Clock: func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return queuetest.Subject{Queue: q, Advance: func(d time.Duration) { shift.Add(int64(d)) }}
}

func TestConformance(t *testing.T) { queuetest.Run(t, open) }

func TestModel(t *testing.T) { queuetest.RunModel(t, open) }

// TestDay is the fairness gate: a day with a fixed seed (two hours with -short).
func TestDay(t *testing.T) {
	hours := 24.0
	if testing.Short() {
		hours = 2
	}
	queuetest.RunDay(t, open, hours)
}

// Row 17: chat waits no longer beside poison, in simulated hours.
func TestRow17PoisonWaits(t *testing.T) { queuetest.RunPoison(t, open) }
