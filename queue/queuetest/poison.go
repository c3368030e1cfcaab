package queuetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dreamcad/queue"
)

// P95 is the 95 % quantile; it sorts v.
func P95(v []float64) float64 {
	slices.Sort(v)
	return v[min(len(v)*95/100, len(v)-1)]
}

func mean(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}

// poisonSlot is a worker's place in the simulation.
type poisonSlot struct {
	l    *queue.Lease
	ends float64 // when the job is done, or has killed the worker
	back float64 // when a killed worker's next process asks for work
	pid  int
}

// SimulatePoison runs hours of chat on the real backend with a fake clock: two
// workers, jobs of 20 to 60 s from twelve users at random times, 60 % of what
// the workers can do. With poison, another user sends every half hour an input
// that kills its worker 5 s after the lease; the worker's next process is there
// 10 s later. It returns the seconds that each chat job waited.
func SimulatePoison(t testing.TB, s Subject, hours float64, poison bool) (waits []float64) {
	t.Helper()
	ctx := context.Background()
	const slots, usual, load, killed, restarts = 2, 40.0, 0.6, 5.0, 10.0
	rng := rand.New(rand.NewPCG(17, 17))
	submitted, length := map[string]float64{}, map[string]float64{}
	var bad []string
	place := [slots]poisonSlot{}
	next := 0.0
	for now := 0.0; now < hours*3600 || len(submitted) > 0; now++ {
		for ; next <= now && now < hours*3600; next += rng.ExpFloat64() * usual / (slots * load) {
			rc, err := s.Queue.Submit(ctx, Request(fmt.Sprint("chat", rng.IntN(12)), fmt.Sprint("thing ", rng.Uint64())))
			if err != nil {
				t.Fatal(err)
			}
			submitted[rc.ID], length[rc.ID] = now, usual/2+usual*rng.Float64()
		}
		if poison && int(now)%1800 == 600 && now < hours*3600 {
			rc, err := s.Queue.Submit(ctx, Request("mallory", fmt.Sprint("poison ", now)))
			if err != nil {
				t.Fatal(err)
			}
			bad = append(bad, rc.ID)
		}
		for i := range place {
			p := &place[i]
			if p.l != nil && now >= p.ends {
				if length[p.l.Job.ID] == 0 { // the process is gone, and tells nobody
					p.back, p.pid = now+restarts, p.pid+1
				} else if err := s.Queue.Complete(ctx, p.l.Ref(), queue.Result{Winner: p.l.ID}); err != nil {
					t.Fatal(err)
				}
				p.l = nil
			}
			if p.l != nil && int(now)%10 == 0 {
				if _, err := s.Queue.Heartbeat(ctx, p.l.Ref(), queue.Beat{Quiet: true}); err != nil {
					t.Fatal(err)
				}
			}
			if p.l != nil || now < p.back {
				continue
			}
			c := Caps(fmt.Sprint("gpu", i))
			c.Worker = fmt.Sprintf("%s/%d", c.Name, p.pid)
			l, err := s.Queue.Lease(ctx, c)
			if queue.CodeOf(err) == queue.CodeEmpty {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			p.l, p.ends = l, now+killed
			if n := length[l.Job.ID]; n > 0 {
				p.ends = now + n
				waits = append(waits, now-submitted[l.Job.ID])
				delete(submitted, l.Job.ID)
			}
		}
		if int(now)%2 == 0 {
			if _, err := s.Queue.Tick(ctx); err != nil {
				t.Fatal(err)
			}
		}
		s.Advance(time.Second)
	}
	for _, id := range bad {
		if j, err := s.Queue.Job(ctx, id); err != nil || j.Status != queue.Quarantined || j.Crashes != 3 {
			t.Errorf("poison: %s after %d crashes, want quarantined after 3: %v", j.Status, j.Crashes, err)
		}
	}
	return waits
}

// RunPoison asserts that chat waits as long beside poison as without, to 20 %.
func RunPoison(t *testing.T, open Opener) {
	hours := 4.0
	if testing.Short() {
		hours = 1
	}
	clean := SimulatePoison(t, open(t, Config()), hours, false)
	beside := SimulatePoison(t, open(t, Config()), hours, true)
	without, with := P95(clean), P95(beside)
	t.Logf("%d chat jobs in %.0f h wait %.1f s at p95 (mean %.1f s), beside poison %.1f s (%.1f s)", len(clean), hours, without, mean(clean), with, mean(beside))
	if len(clean) != len(beside) || with > 1.2*without || with < 0.8*without {
		t.Errorf("%d chat jobs wait %.0f s at p95, %d beside poison %.0f s; want the same to 20 %%", len(clean), without, len(beside), with)
	}
}
