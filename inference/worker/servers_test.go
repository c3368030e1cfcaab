package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/storage/storagetest"
)

// newServerBench is a bench on a real Redis (AOF always) and a real S3 server.
func newServerBench(t *testing.T) (*bench, *queuetest.Redis) {
	redis := queuetest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	g := storagetest.StartGateway(t)
	b := newBench(t)
	queueURL := "redis://" + redis.Addr + "/0"
	bucket := fmt.Sprintf("s3://%s:%s@results?endpoint=%s&path_style=true&create=true", g.AccessKey, g.SecretKey, g.Endpoint)
	q, s, err := openParts(t.Context(), b.base, queueURL, bucket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	if _, err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.q, b.store.Store, b.env = q, s, []string{"WORKER_REDIS=" + queueURL, "WORKER_S3=" + bucket}
	if b.start, err = q.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b, redis
}

// The rows that matter most once more on the servers of production.
func TestFaultsOnRedisAndS3(t *testing.T) {
	total := newChain().total(queue.Request{Kind: queue.Mesh})
	for _, point := range []string{"step", "artifacts", "manifest"} {
		t.Run("killed at "+point, func(t *testing.T) {
			b, _ := newServerBench(t)
			j := b.submit(queue.Mesh, queue.Interactive, "a mug")
			b.gone(b.spawn("gpu0", "WORKER_DIE="+point, "WORKER_NTH=1"))
			before, _ := b.steps(j.ID)
			b.spawn("gpu0")
			b.effects(j.ID)
			if after, _ := b.steps(j.ID); point != "step" && after != before || after > total+1 && b.job(j.ID).Attempt <= 2 {
				t.Errorf("%d steps in all, %d before the kill, %d are needed", after, before, total)
			}
		})
	}
	t.Run("stopped before the manifest", func(t *testing.T) {
		b, _ := newServerBench(t)
		j := b.submit(queue.Mesh, queue.Interactive, "a mug")
		first := b.spawn("gpu0", "WORKER_WAIT=artifacts")
		b.until("the worker gets there", func() bool { return exists(filepath.Join(b.base, "reached")) })
		if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.base, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b.spawn("gpu1")
		winner := b.wait(j.ID, queue.Done).Result.Winner
		time.Sleep(faultConfig().Lease)
		_ = first.cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(2 * faultConfig().Heartbeat)
		_ = first.cmd.Process.Signal(syscall.SIGTERM)
		b.gone(first)
		if got := b.job(j.ID).Result.Winner; got != winner {
			t.Errorf("the stale worker changed the winner from %q to %q", winner, got)
		}
		b.effects(j.ID)
	})
	// Row 4: the queue's server is killed and comes back while the job runs; the work
	// goes on meanwhile.
	t.Run("Redis killed and restarted", func(t *testing.T) {
		t.Setenv(lossless, "1")
		b, redis := newServerBench(t)
		j := b.submit(queue.Mesh, queue.Interactive, "a mug")
		b.spawn("gpu0", "WORKER_WAIT=step")
		b.until("the worker gets there", func() bool { return exists(filepath.Join(b.base, "reached")) })
		redis.Kill()
		if err := os.WriteFile(filepath.Join(b.base, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b.until("the work goes on without Redis", func() bool { n, _ := b.steps(j.ID); return n == total })
		if err := redis.Start(); err != nil {
			t.Fatal(err)
		}
		b.effects(j.ID)
		if n, repeated := b.steps(j.ID); n != total || repeated != 1 {
			t.Errorf("%d steps were done, %d are needed: the outage interrupted the job", n, total)
		}
	})
}
