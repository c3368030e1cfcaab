package cpu

import (
	"sync"
	"sync/atomic"
)

// job is a parallel loop: run is called once for each task 0..tasks-1. Tasks
// write disjoint memory and do not depend on which worker runs them, so the
// result does not depend on the number of workers.
type job struct {
	tasks int
	run   func(w *worker, task int)
	next  atomic.Int64
	done  atomic.Int64
	waits atomic.Bool // the caller sleeps until the last task is done
}

// worker is one thread's own memory.
type worker struct {
	tile    tile
	row     rowArgs
	scratch []float32
	coef    []float32 // scale and shift of a norm, for each channel
	stage   []float32 // one tile of outputs, or two
	wake    chan struct{}
	parked  atomic.Bool
}

// pool runs jobs on persistent workers. The caller of run is the first of them.
// Between jobs the others spin for a moment, because the next job follows
// within microseconds inside a network, and then sleep.
type pool struct {
	workers []*worker
	current atomic.Pointer[job]
	round   atomic.Uint64
	stopped atomic.Bool
	last    chan struct{} // wakes the caller
	wg      sync.WaitGroup
}

const spins = 100 // of pause, some tens of microseconds in all

func newPool(threads int) *pool {
	p := &pool{last: make(chan struct{}, 1)}
	for i := range threads {
		w := &worker{wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, w)
		if i > 0 {
			p.wg.Go(func() { p.serve(w) })
		}
	}
	return p
}

func (p *pool) close() {
	p.stopped.Store(true)
	p.round.Add(1)
	for _, w := range p.workers[1:] {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	p.wg.Wait()
}

func (p *pool) serve(w *worker) {
	var seen uint64
	for {
		for i := 0; p.round.Load() == seen; i++ {
			if i < spins {
				pause()
				continue
			}
			w.parked.Store(true)
			if p.round.Load() == seen {
				<-w.wake
			}
			w.parked.Store(false)
		}
		seen = p.round.Load()
		if p.stopped.Load() {
			return
		}
		if j := p.current.Load(); j != nil {
			j.work(p, w)
		}
	}
}

func (j *job) work(p *pool, w *worker) {
	for {
		i := int(j.next.Add(1)) - 1
		if i >= j.tasks {
			return
		}
		j.run(w, i)
		if j.done.Add(1) == int64(j.tasks) && j.waits.CompareAndSwap(true, false) {
			p.last <- struct{}{}
		}
	}
}

// run returns when every task is done. Only one run at a time. A worker that
// wakes late finds no task left, or one of a later run of the same job, which it
// may as well do.
func (p *pool) run(j *job) {
	if j.tasks == 0 {
		return
	}
	j.done.Store(0)
	j.next.Store(0)
	if j.tasks > 1 && len(p.workers) > 1 {
		p.current.Store(j)
		p.round.Add(1)
		for _, w := range p.workers[1:] {
			if w.parked.Load() {
				select {
				case w.wake <- struct{}{}:
				default:
				}
			}
		}
	}
	j.work(p, p.workers[0])
	for i := 0; j.done.Load() < int64(j.tasks); i++ {
		if i < spins {
			pause()
			continue
		}
		// Another worker is still at it, perhaps without a processor: sleep. Whoever
		// takes the flag back knows whether a wake-up is under way.
		j.waits.Store(true)
		if j.done.Load() < int64(j.tasks) || !j.waits.CompareAndSwap(true, false) {
			<-p.last
		}
		return
	}
}
