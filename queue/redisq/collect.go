package redisq

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// collector sends commands. Up to alone of them at once go out as they come, so
// that a lone caller waits for nobody; those that come meanwhile go out together
// as a pipeline as soon as one of them has returned, which saves both sides most
// of their reads and writes. (The client's own AutoPipeliner waits up to 0.6 ms
// for more to come and costs a lone caller 40 µs.)
type collector struct {
	c       redis.UniversalClient
	mu      sync.Mutex
	busy    int // commands and pipelines under way
	waiting []*waiter
}

type waiter struct {
	cmd  redis.Cmder
	done chan struct{} // closed once cmd is answered
}

const alone = 2

// errGaveUp: the caller's context ended first, and the command may still run.
var errGaveUp = errors.New("gave up waiting")

// do sends cmd and waits for the answer, or until ctx ends.
func (k *collector) do(ctx context.Context, cmd redis.Cmder) error {
	k.mu.Lock()
	if k.busy < alone {
		k.busy++
		k.mu.Unlock()
		defer k.next()
		return k.c.Process(ctx, cmd)
	}
	w := &waiter{cmd: cmd, done: make(chan struct{})}
	k.waiting = append(k.waiting, w)
	k.mu.Unlock()
	select {
	case <-w.done:
		return cmd.Err()
	case <-ctx.Done():
		k.mu.Lock()
		defer k.mu.Unlock()
		if i := slices.Index(k.waiting, w); i >= 0 {
			k.waiting = slices.Delete(k.waiting, i, i+1)
		}
		return errGaveUp
	}
}

// next passes the place of a command that has returned on to those that wait.
func (k *collector) next() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) == 0 {
		k.busy--
		return
	}
	batch := k.waiting
	k.waiting = nil
	go k.send(batch)
}

// send answers all of a batch. The client's timeouts bound it.
func (k *collector) send(batch []*waiter) {
	defer k.next()
	ctx := context.Background()
	p := k.c.Pipeline()
	for _, w := range batch {
		_ = p.Process(ctx, w.cmd) // only queues it
	}
	_, _ = p.Exec(ctx) // each command has its own error
	for _, w := range batch {
		close(w.done)
	}
}
