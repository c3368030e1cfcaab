package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dreamcad/queue"
)

// watchdog notices a step that hangs: a kernel that never ends looks at no context.
type watchdog struct {
	mu    sync.Mutex
	at    []*session // in the step; none: nothing runs
	stage string
	since time.Time
	usual map[string]time.Duration // moving mean of a step, by stage
}

func (d *watchdog) arm(at []*session, stage string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.stage, d.since = at, stage, time.Now()
}

func (d *watchdog) disarm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	took := time.Since(d.since)
	if d.usual == nil {
		d.usual = map[string]time.Duration{}
	}
	if u, ok := d.usual[d.stage]; ok {
		took = u + (took-u)/8
	}
	d.usual[d.stage] = took
	d.at = nil
}

// overdue returns the sessions whose step takes far longer than usual.
func (d *watchdog) overdue(cfg *Config, now time.Time) ([]*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.at) == 0 {
		return nil, nil
	}
	limit := max(cfg.StuckFloor, time.Duration(cfg.StuckFactor*float64(d.usual[d.stage])))
	if took := now.Sub(d.since); took > limit {
		return d.at, fmt.Errorf("%w: stage %q, %v in one step, %v is usual", ErrStuck, d.stage, took.Round(time.Millisecond), d.usual[d.stage].Round(time.Millisecond))
	}
	return nil, nil
}

// watch looks at the running step until ctx ends. On a hanging one it tells the
// queue, hands back the other jobs and returns ErrStuck.
func (d *watchdog) watch(ctx context.Context, w *Worker) error {
	t := time.NewTicker(min(time.Second, max(w.cfg.StuckFloor/4, time.Millisecond)))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			stuck, err := d.overdue(&w.cfg, now)
			if len(stuck) == 0 {
				continue
			}
			for _, s := range stuck {
				w.log.Error("giving up", "job", s.job.ID, "err", err)
				s.fail(queue.Failure{Kind: queue.FailStuck, Detail: err.Error()})
			}
			w.hardStop(errExit)
			w.mu.Lock()
			var others []*session
			for _, o := range w.running {
				others = append(others, o)
			}
			w.mu.Unlock()
			for _, o := range others {
				o.giveBack(queue.Drained, nil)
			}
			return err
		}
	}
}
