package redisq_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/redisq"
)

// soakEnv is how long the soak lasts, in hours; worker processes see it too.
const soakEnv = "DREAM_SOAK_HOURS"

// Row 24: random rows of the matrix, two at once, against one queue under load;
// the invariants are audited meanwhile. At the end every acknowledged job has
// had one outcome, and keys, memory and goroutines are what they were before.
// Without DREAM_SOAK_HOURS it lasts eight seconds.
func TestRow24Soak(t *testing.T) {
	length, every := 8*time.Second, 2*time.Second
	if h, _ := strconv.ParseFloat(os.Getenv(soakEnv), 64); h > 0 {
		length, every = time.Duration(h*float64(time.Hour)), time.Minute
	} else {
		t.Setenv(soakEnv, "0")
	}
	s := startSoak(t)
	s.work(3*time.Second, nil, every) // everything exists that is never taken away: users, samples, pools
	s.settle()
	before := s.measure()
	s.work(length, s.faults(), every)
	s.settle()
	after := s.measure()
	t.Logf("before: %v", before)
	t.Logf("after:  %v", after)
	queuetest.Counts(t, s.acknowledged, 0, s.twice)
	if s.twice > 0 {
		t.Errorf("%d jobs had a second outcome", s.twice)
	}
	if after.keys > before.keys+5 {
		t.Errorf("%d keys are left, %d were there before", after.keys, before.keys)
	}
	if after.redis > before.redis+before.redis/2+1<<20 {
		t.Errorf("Redis holds %d kB, %d kB before", after.redis>>10, before.redis>>10)
	}
	if after.goroutines > before.goroutines+2 {
		t.Errorf("%d goroutines, %d before", after.goroutines, before.goroutines)
	}
	if after.heap > before.heap+16<<20 {
		t.Errorf("%d MB on the heap, %d MB before", after.heap>>20, before.heap>>20)
	}
}

// soak is a queue, its server behind a proxy, and places of workers.
type soak struct {
	t       *testing.T
	ctx     context.Context
	r       *queuetest.Redis
	shim    *queuetest.Shim
	proxy   *queuetest.Proxy
	q       *redisq.Queue
	url     string // through the proxy
	servers sync.Mutex
	rand    func(n int) int

	mu           sync.Mutex
	workers      []*queuetest.Child // one a place
	restarts     int
	cursor       string
	acknowledged int
	pending      map[string]bool      // acknowledged, no outcome seen yet
	early        map[string]time.Time // the outcome was seen before the acknowledgement
	recent       map[string]time.Time // outcome seen
	twice        int
	ended        map[queue.EventKind]int
	poison       []string
}

func startSoak(t *testing.T) *soak {
	s := &soak{t: t, ctx: t.Context(), shim: queuetest.NewShim(t), pending: map[string]bool{}, early: map[string]time.Time{},
		recent: map[string]time.Time{}, ended: map[queue.EventKind]int{}, workers: make([]*queuetest.Child, 3)}
	var lock sync.Mutex
	rng := dice(24)
	s.rand = func(n int) int { lock.Lock(); defer lock.Unlock(); return rng.IntN(n) }
	s.r = queuetest.StartRedisEnv(t, s.shim.Env(), "--appendonly", "yes", "--appendfsync", "always")
	s.proxy = queuetest.StartProxy(t, s.r.Addr)
	s.url = "redis://" + s.proxy.Addr
	q, err := openFault(s.ctx, "redis://"+s.r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	s.q = q.(*redisq.Queue)
	return s
}

// insist calls f until the server answers it.
func (s *soak) insist(f func() error) {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if c := queue.CodeOf(err); err == nil || c != queue.CodeUnavailable && c != "" {
			return
		}
		if time.Now().After(end) {
			s.t.Errorf("no answer for two minutes: %v", err)
			return
		}
	}
}

// work lets users submit and workers work; the faults happen meanwhile, two at once.
func (s *soak) work(length time.Duration, faults []fault, every time.Duration) {
	ctx, stop := context.WithTimeout(s.ctx, length)
	defer stop()
	late, end := context.WithCancel(s.ctx) // for what outlives the load
	var load, rest sync.WaitGroup
	rest.Go(func() { _ = queue.RunMaintenance(late, s.q, 100*time.Millisecond, faultConfigLog()) })
	rest.Go(func() { s.listen(late) })
	for i := range s.workers {
		rest.Go(func() { s.place(late, i) })
	}
	for u := range 3 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				s.submit(fmt.Sprint("u", u*3+i%3), fmt.Sprintf("thing %d %d %d", u, i, time.Now().UnixNano()), u == 2)
				time.Sleep(time.Duration(100+s.rand(300)) * time.Millisecond)
			}
		})
	}
	if faults != nil {
		for range 2 {
			load.Go(func() {
				for ctx.Err() == nil {
					faults[s.rand(len(faults))](s)
					time.Sleep(time.Duration(s.rand(3000)) * time.Millisecond)
				}
			})
		}
	}
	begun := time.Now()
	for t := time.NewTicker(every); ctx.Err() == nil; {
		select {
		case <-t.C:
			s.audit(time.Since(begun))
		case <-ctx.Done():
			t.Stop()
		}
	}
	load.Wait()
	s.heal()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s.mu.Lock()
		left := len(s.pending)
		s.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			s.mu.Lock()
			for id := range s.pending {
				j, err := s.q.Job(s.ctx, id)
				s.t.Errorf("job %s is lost: %s %v", id, j.Status, err)
			}
			s.mu.Unlock()
			break
		}
	}
	s.audit(time.Since(begun))
	end()
	rest.Wait()
}

// submit asks until it is acknowledged, like a bot with a message.
func (s *soak) submit(user, prompt string, bulk bool) string {
	r := queuetest.Request(user, prompt)
	r.Key = prompt
	if bulk {
		r.Class = queue.Bulk
	}
	var id string
	s.insist(func() error {
		rc, err := s.q.Submit(s.ctx, r)
		id = rc.ID
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acknowledged++
	if at, seen := s.early[id]; seen {
		delete(s.early, id)
		s.recent[id] = at
	} else {
		s.pending[id] = true
	}
	return id
}

// listen follows the outbox and counts outcomes.
func (s *soak) listen(ctx context.Context) {
	for ctx.Err() == nil {
		es, err := s.q.Events(ctx, s.cursor, 500, 500*time.Millisecond)
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.mu.Lock()
		for _, e := range es {
			s.cursor = e.ID
			if !e.Kind.Outcome() {
				continue
			}
			s.ended[e.Kind]++
			switch {
			case s.pending[e.Job]:
				delete(s.pending, e.Job)
				s.recent[e.Job] = time.Now()
			case s.recent[e.Job].IsZero() && s.early[e.Job].IsZero():
				s.early[e.Job] = time.Now()
			default:
				s.twice++
				s.t.Errorf("job %s has a second outcome", e.Job)
			}
		}
		for id, at := range s.recent { // a second outcome after that long is one of a stranger
			if time.Since(at) > 10*time.Minute {
				delete(s.recent, id)
			}
		}
		for id, at := range s.early {
			if time.Since(at) > 5*time.Minute {
				delete(s.early, id)
				s.twice++
				s.t.Errorf("job %s has an outcome that nobody waits for", id)
			}
		}
		s.mu.Unlock()
	}
}

// place keeps a worker process at work.
func (s *soak) place(ctx context.Context, i int) {
	for ctx.Err() == nil {
		w := queuetest.StartWorker(s.t, s.url, fmt.Sprint("gpu", i), 5, 20*time.Millisecond, "")
		w.Discard()
		s.mu.Lock()
		s.workers[i] = w
		s.restarts++
		s.mu.Unlock()
		select {
		case <-w.Done():
		case <-ctx.Done():
			w.Signal(syscall.SIGCONT)
			w.Signal(syscall.SIGTERM)
			<-w.Done()
		}
	}
}

// audit checks the invariants and tells how far it is.
func (s *soak) audit(at time.Duration) {
	s.insist(func() error {
		broken, err := queue.Violations(s.ctx, s.q)
		broken = slices.DeleteFunc(broken, func(v string) bool { return strings.Contains(v, "clock was set back") }) // it was
		if len(broken) > 0 {
			s.t.Errorf("after %v: %v", at.Round(time.Second), broken)
		}
		return err
	})
	m := s.numbers()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Logf("%v: %d acknowledged, %d without outcome yet, %v, %d worker processes; %v", at.Round(time.Second), s.acknowledged, len(s.pending), s.ended, s.restarts, m)
}

// numbers are what must come back to where it was.
type numbers struct {
	keys        int64
	redis, heap uint64
	goroutines  int
}

func (n numbers) String() string {
	return fmt.Sprintf("%d keys, Redis %d kB, heap %d kB, %d goroutines", n.keys, n.redis>>10, n.heap>>10, n.goroutines)
}

func (s *soak) numbers() (n numbers) {
	c := redis.NewClient(&redis.Options{Addr: s.r.Addr})
	defer c.Close()
	n.keys, _ = c.DBSize(s.ctx).Result() // zero while it is away
	info, _ := c.Info(s.ctx, "memory").Result()
	_, rest, _ := strings.Cut(info, "used_memory:")
	n.redis, _ = strconv.ParseUint(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), 10, 64)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	n.heap, n.goroutines = m.HeapAlloc, runtime.NumGoroutine()
	return n
}

// settle lets everything age that is kept for a while.
func (s *soak) settle() {
	s.t.Helper()
	for _, id := range s.poison {
		_ = s.q.Release(s.ctx, id) // the job may have been cancelled
	}
	s.poison = nil
	if err := s.q.ShiftClock(s.ctx, 40*24*time.Hour); err != nil {
		s.t.Fatal(err)
	}
	for n := 1; n > 0; {
		x, err := s.q.Tick(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		n = x.Dropped
	}
	s.shim.Clock(2 * faultConfig().KeyLife) // idempotency keys live by the server's own clock
	s.insist(func() error {
		c := redis.NewClient(&redis.Options{Addr: s.r.Addr})
		defer c.Close()
		for cursor := uint64(0); ; {
			_, next, err := c.Scan(s.ctx, cursor, "*", 1000).Result() // takes away what it finds expired
			if cursor = next; err != nil || next == 0 {
				return err
			}
		}
	})
	s.shim.Clock(0)
	s.mu.Lock()
	clear(s.recent)
	s.mu.Unlock()
}

func (s *soak) measure() numbers {
	time.Sleep(200 * time.Millisecond) // connections that were closed
	runtime.GC()
	c := s.r.Client()
	_ = c.Do(s.ctx, "MEMORY", "PURGE").Err() // for the count's sake
	_ = c.Close()
	return s.numbers()
}

// fault is a row of the matrix that goes over by itself.
type fault func(s *soak)

func (s *soak) victim() *queuetest.Child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers[s.rand(len(s.workers))]
}

func (s *soak) pause(most time.Duration) { time.Sleep(time.Duration(s.rand(int(most)))) }

func (s *soak) heal() {
	s.proxy.Release()
	s.proxy.Delay(0)
	s.shim.SlowSync(0)
	s.shim.Clock(0)
}

func (s *soak) faults() []fault {
	lease := faultConfig().Lease
	kill := func(s *soak) { s.victim().Signal(syscall.SIGKILL) }
	drain := func(s *soak) { s.victim().Signal(syscall.SIGTERM) }
	stop := func(s *soak) {
		w := s.victim()
		w.Signal(syscall.SIGSTOP)
		s.pause(3 * lease)
		w.Signal(syscall.SIGCONT)
	}
	redisDies := func(s *soak) {
		s.servers.Lock()
		defer s.servers.Unlock()
		s.r.Kill()
		s.pause(time.Second)
		s.insist(func() error {
			if err := s.r.Start(); err != nil {
				return errors.Join(queue.ErrUnavailable, err)
			}
			return nil
		})
	}
	flush := func(s *soak) {
		c := redis.NewClient(&redis.Options{Addr: s.r.Addr})
		defer c.Close()
		for range 200 {
			_ = c.ScriptFlush(s.ctx).Err() // once more or less is the same
			time.Sleep(5 * time.Millisecond)
		}
	}
	hold := func(s *soak) { s.proxy.Hold(); s.pause(2 * lease); s.proxy.Release() }
	slow := func(s *soak) { s.proxy.Delay(500 * time.Millisecond); s.pause(3 * time.Second); s.proxy.Delay(0) }
	disk := func(s *soak) { s.shim.SlowSync(100 * time.Millisecond); s.pause(3 * time.Second); s.shim.SlowSync(0) }
	reset := func(s *soak) { s.proxy.Break(false) }
	cut := func(s *soak) { s.proxy.CutNextAnswer() }
	clock := func(s *soak) {
		s.servers.Lock()
		defer s.servers.Unlock()
		s.shim.Clock(time.Duration(s.rand(121)-60) * time.Second)
		s.pause(2 * time.Second)
	}
	cancel := func(s *soak) {
		id := s.submit("u0", fmt.Sprint("cancelled ", rand.Uint64()), false)
		s.pause(500 * time.Millisecond)
		s.insist(func() error { _, err := s.q.Cancel(s.ctx, id); return err })
	}
	poison := func(s *soak) {
		id := s.submit("u1", fmt.Sprint("poison ", rand.Uint64()), false)
		s.mu.Lock()
		s.poison = append(s.poison, id)
		s.mu.Unlock()
	}
	pause := func(s *soak) {
		sw := []queue.Switch{{Scope: queue.AllJobs}, {Scope: queue.OfClass, Name: "interactive"}, {Scope: queue.OfClass, Name: "bulk"}, {Scope: queue.OfUser, Name: "test:u2"}}[s.rand(4)]
		s.insist(func() error { return s.q.Pause(s.ctx, sw.Scope, sw.Name, "soak") })
		s.pause(2 * time.Second)
		s.insist(func() error { return s.q.Resume(s.ctx, sw.Scope, sw.Name) })
	}
	return []fault{kill, kill, drain, stop, redisDies, flush, hold, slow, disk, reset, cut, clock, cancel, cancel, poison, pause}
}
