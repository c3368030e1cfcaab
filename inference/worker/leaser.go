package worker

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dreamcad/queue"
)

// leaser asks the queue for work beside the device loop. The loop says what it
// could take; prepared sessions come back on Worker.ready.
type leaser struct {
	w    *Worker
	ctx  context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	cur    *queue.Capabilities
	number int // of the current request
	cancel context.CancelFunc
	asking atomic.Int32 // requests that have not ended, cancelled ones too
}

func newLeaser(w *Worker) *leaser {
	l := &leaser{w: w}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// want changes what is asked for. A request under way for something else is
// cancelled; if it brought a job all the same, the loop finds a place or gives it
// back.
func (l *leaser) want(c *queue.Capabilities) {
	if same(c, l.cur) {
		return
	}
	if l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
	l.cur = c
	if c == nil || l.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.cancel = cancel
	l.number++
	n := l.number
	l.asking.Add(1)
	l.done.Go(func() {
		defer l.asking.Add(-1)
		l.ask(ctx, *c, n)
	})
}

// got tells that the loop received a session. The request that brought it has ended.
func (l *leaser) got(s *session) {
	if s.ask == l.number && l.cancel != nil {
		l.cancel()
		l.cur, l.cancel = nil, nil
	}
}

func same(a, b *queue.Capabilities) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Beside == b.Beside && slices.Equal(a.Kinds, b.Kinds) && slices.Equal(a.Classes, b.Classes)
}

// stop ends all asking and waits for it.
func (l *leaser) stop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.end()
	l.done.Wait()
}

// ask leases until one session was handed over or ctx ends.
func (l *leaser) ask(ctx context.Context, c queue.Capabilities, number int) {
	wait := 200 * time.Millisecond
	away := false
	for ctx.Err() == nil {
		lease, err := l.w.q.Lease(ctx, c)
		switch {
		case err == nil && lease != nil:
			if away {
				l.w.log.Info("the queue answers again")
			}
			away, wait = false, 200*time.Millisecond
			l.w.at("leased")
			s := l.w.open(lease, number)
			s.log.Info("job begins", "kind", s.job.Kind, "class", s.job.Class)
			if s.prepare(l.ctx) {
				return
			}
		case errors.Is(err, queue.ErrEmpty) || ctx.Err() != nil:
		default:
			if !away {
				l.w.log.Warn("asking for work failed, trying again", "err", err)
				away = true
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait/2 + rand.N(wait)):
			}
			wait = min(wait*2, 10*time.Second)
		}
	}
}

func writeProbe(w io.Writer) error {
	_, err := w.Write(make([]byte, 64<<10))
	return err
}
