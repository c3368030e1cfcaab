package queuetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dreamcad/queue"
)

// Day is what a simulated day showed.
type Day struct {
	ChatWait   []float64          // seconds from submit to start, of each chat job
	BulkWork   map[string]float64 // user → GPU-seconds while backlogged
	ChatWork   float64
	Yields     int
	Ranges     int // chat jobs for which a range was shown
	InRange    int
	GPUSeconds float64 // capacity
}

// P returns the q-quantile of the chat waits.
func (d *Day) P(q float64) float64 {
	v := slices.Clone(d.ChatWait)
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

// Jain is Jain's index of fairness over the backlogged users' work.
func (d *Day) Jain() float64 {
	s, s2 := 0.0, 0.0
	for _, x := range d.BulkWork {
		s += x
		s2 += x * x
	}
	return s * s / (float64(len(d.BulkWork)) * s2)
}

type simJob struct {
	l     *queue.Lease
	left  float64
	since float64
}

// SimulateDay runs hours of a service on the real backend with a fake clock:
// two GPUs, chat at 30 % of their power (jobs of 20 to 60 s from twelve users
// at random times), and three users with endless bulk jobs of 5, 10 and 15
// minutes. Workers beat every 10 s and yield at the beat that asks them to;
// each yield wastes nothing. The seed is fixed.
func SimulateDay(t testing.TB, s Subject, hours float64) *Day {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(1, 2))
	d := &Day{BulkWork: map[string]float64{}}
	const gpus, chatLoad, chatMean = 2, 0.30, 40.0
	submitted := map[string]float64{}
	remaining := map[string]float64{} // of jobs that were given back
	type promise struct{ lo, hi float64 }
	shown := map[string]promise{}
	var slots [gpus]*simJob
	next := 0.0
	bulkUser := []string{"x", "y", "z"}
	bulkLen := map[string]float64{"x": 300, "y": 600, "z": 900}
	fill := func(u string) {
		r := Request(u, fmt.Sprint(rng.Uint64()))
		r.Class = queue.Bulk
		if _, err := s.Queue.Submit(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range bulkUser {
		for range 3 {
			fill(u)
		}
	}
	for now := 0.0; now < hours*3600; now += step {
		for next <= now {
			r := Request(fmt.Sprint("chat", rng.IntN(12)), fmt.Sprint(rng.Uint64()))
			r.Kind = queue.Views
			rc, err := s.Queue.Submit(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			submitted[rc.ID] = now
			if p, err := s.Queue.Place(ctx, rc.ID); err == nil && p.Known {
				shown[rc.ID] = promise{p.StartLow.Seconds(), p.StartHigh.Seconds()}
			}
			next += rng.ExpFloat64() * chatMean / (gpus * chatLoad)
		}
		for i := range slots {
			if slots[i] != nil && d.advance(t, s, slots[i], now, remaining, fill) {
				slots[i] = nil
			}
			if slots[i] == nil {
				slots[i] = d.start(t, s, i, now, rng, bulkLen, remaining, submitted, func(id string, wait float64) {
					if p, ok := shown[id]; ok {
						d.Ranges++
						if wait >= p.lo-step && wait <= p.hi+step {
							d.InRange++
						}
					}
				})
			}
		}
		s.Advance(time.Duration(step * float64(time.Second)))
	}
	d.GPUSeconds = gpus * hours * 3600
	return d
}

// step is how far the simulated clock moves at once, in seconds.
const step = 5.0

// advance runs j for a step and reports whether it left its slot.
func (d *Day) advance(t testing.TB, s Subject, j *simJob, now float64, remaining map[string]float64, fill func(user string)) bool {
	ctx := context.Background()
	j.left -= step
	d.work(j, step)
	if j.left <= 0 {
		if err := s.Queue.Complete(ctx, j.l.Ref(), queue.Result{Winner: j.l.ID, Used: now - j.since}); err != nil {
			t.Fatal(err)
		}
		if j.l.Job.Class == queue.Bulk {
			fill(j.l.Job.Requester.ID)
		}
		return true
	}
	if int(now)%10 != 0 {
		return false
	}
	a, err := s.Queue.Heartbeat(ctx, j.l.Ref(), queue.Beat{Progress: &queue.Progress{Stage: queue.StageOptimise, Remaining: j.left}, Quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	if a.Directive != queue.YieldBulk {
		return false
	}
	d.Yields++
	remaining[j.l.Job.ID] = j.left
	if err := s.Queue.GiveBack(ctx, j.l.Ref(), queue.GiveBackOptions{Reason: queue.Yielded, Used: now - j.since}); err != nil {
		t.Fatal(err)
	}
	return true
}

func (d *Day) work(j *simJob, sec float64) {
	if j.l.Job.Class == queue.Bulk {
		d.BulkWork[j.l.Job.Requester.ID] += sec
	} else {
		d.ChatWork += sec
	}
}

func (d *Day) start(t testing.TB, s Subject, slot int, now float64, rng *rand.Rand, bulkLen, remaining, submitted map[string]float64, started func(id string, wait float64)) *simJob {
	l, err := s.Queue.Lease(context.Background(), Caps(fmt.Sprint("gpu", slot)))
	if queue.CodeOf(err) == queue.CodeEmpty {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	j := &simJob{l: l, since: now}
	if l.Job.Class == queue.Bulk {
		j.left = bulkLen[l.Job.Requester.ID]
		if r, ok := remaining[l.Job.ID]; ok {
			j.left = r
		}
	} else {
		j.left = 20 + 40*rng.Float64()
		wait := now - submitted[l.Job.ID]
		d.ChatWait = append(d.ChatWait, wait)
		started(l.Job.ID, wait)
	}
	j.left = math.Max(j.left, 1)
	return j
}

// RunDay asserts the gate of fairness over hours of simulated service.
func RunDay(t *testing.T, open Opener, hours float64) {
	cfg := Config()
	d := SimulateDay(t, open(t, cfg), hours)
	spare := d.GPUSeconds - d.ChatWork
	bulk := 0.0
	for _, x := range d.BulkWork {
		bulk += x
	}
	t.Logf("%.0f h: %d chat jobs wait p50 %.0f s, p95 %.0f s; Jain %.3f; bulk has %.0f %% of the spare capacity; %d yields; %d of %d starts within the range shown",
		hours, len(d.ChatWait), d.P(.5), d.P(.95), d.Jain(), 100*bulk/spare, d.Yields, d.InRange, d.Ranges)
	if p := d.P(.95); p > 60 {
		t.Errorf("chat waits %.0f s at p95, want at most 60", p)
	}
	if j := d.Jain(); j < 0.95 {
		t.Errorf("Jain's index %.3f, want at least 0.95", j)
	}
	if bulk < 0.9*spare {
		t.Errorf("bulk has %.0f GPU-seconds of %.0f that chat leaves", bulk, spare)
	}
	if float64(d.InRange) < 0.8*float64(d.Ranges) || d.Ranges == 0 {
		t.Errorf("%d of %d starts fell into the range that was shown, want 80 %%", d.InRange, d.Ranges)
	}
}
