package sqliteq_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"dreamcad/queue/queuetest"
	"dreamcad/queue/sqliteq"
)

// A burst of submits with syncs, as when many people type at once: time for
// all of them, by how many.
func BenchmarkSubmit(b *testing.B) {
	for _, burst := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(burst), func(b *testing.B) {
			cfg := queuetest.Config()
			cfg.QueuedPerUser, cfg.QueuedTotal = 0, 0
			q, err := sqliteq.Open(b.Context(), filepath.Join(b.TempDir(), "queue.db"), cfg, sqliteq.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			n := 0
			for b.Loop() {
				n++
				var all sync.WaitGroup
				for i := range burst {
					all.Go(func() {
						if _, err := q.Submit(b.Context(), queuetest.Request(fmt.Sprint("u", i), fmt.Sprint("thing ", n, " ", i))); err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
			}
		})
	}
}
