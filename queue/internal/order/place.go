// Package order holds the arithmetic that both backends share: positions and
// expected times.
package order

import (
	"math"
	"slices"
	"time"

	"dreamcad/queue"
)

// MinSamples is how many run times must be known before an ETA is shown.
const MinSamples = 5

// MaxSamples is how many run times are kept of each sort of job.
const MaxSamples = 50

// User is one user who waits in the job's class.
type User struct {
	VT     float64 // virtual time, GPU-seconds / weight
	Weight float64
	Queued int64
}

// Snapshot is what a backend reads for one [Place]. Times are seconds.
type Snapshot struct {
	VT, Weight float64 // of the job's own user
	Ahead      int64   // jobs of the same user before this one
	Cost       float64 // estimate of one job of the class
	Others     []User
	More       bool  // Others was cut off
	Prior      int64 // jobs of classes that go first
	// Running is what is left of each running job that holds a slot; Yielding
	// says which of them would give way to this job at a checkpoint.
	Running  []float64
	Yielding []bool
	// Yield is the longest a bulk job may go on before it gives way.
	Yield   float64
	Slots   int
	Samples []float64 // recent run times of this sort of job
}

// Place computes position and times.
func (s *Snapshot) Place() queue.Place {
	w := max(s.Weight, 1e-9)
	cost := max(s.Cost, 1e-3)
	// Own jobs ahead raise the own virtual time before this one's turn.
	turn := s.VT + float64(s.Ahead)*cost/w
	n := s.Ahead + s.Prior
	for _, o := range s.Others {
		k := math.Ceil((turn - o.VT) * max(o.Weight, 1e-9) / cost)
		n += int64(min(max(k, 0), float64(o.Queued)))
	}
	p := queue.Place{Status: queue.Queued, Position: int(n) + 1, About: s.More, Slots: s.Slots}
	if len(s.Samples) < MinSamples || s.Slots == 0 {
		return p
	}
	p.Known = true
	p50, p90 := Quantile(s.Samples, 0.5), Quantile(s.Samples, 0.9)
	p.RunLow, p.RunHigh = seconds(p50), seconds(p90)
	low, high := slices.Clone(s.Running), slices.Clone(s.Running)
	for i := range low {
		if i < len(s.Yielding) && s.Yielding[i] {
			low[i], high[i] = 0, min(high[i], s.Yield)
		}
	}
	p.StartLow = seconds(start(low, s.Slots, n, min(p50, mean(s.Samples))))
	// Work that arrives later may go first, and long jobs come in runs.
	p.StartHigh = seconds(1.25*start(high, s.Slots, n, max(p90, mean(s.Samples))) + p90/2)
	return p
}

// start plays n jobs of equal length on the slots as they become free and
// tells when the next one would start.
func start(running []float64, slots int, n int64, each float64) float64 {
	free := make([]float64, 0, max(slots, len(running)))
	free = append(free, running...)
	for len(free) < slots {
		free = append(free, 0)
	}
	slices.Sort(free)
	if extra := len(free) - slots; extra > 0 { // more jobs run than there are live slots
		free = free[:slots]
	}
	rounds := n / int64(slots)
	for i := range free {
		free[i] += float64(rounds) * each
	}
	for range n % int64(slots) {
		free[0] += each
		slices.Sort(free)
	}
	return free[0]
}

func mean(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}

// Quantile returns the q-quantile of v (nearest rank), 0 for none.
func Quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Cut shortens text to at most n bytes at a character's border.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}

// Run gives the range of run times of this sort of job, if enough are known.
func (s *Snapshot) Run() (low, high time.Duration, known bool) {
	if len(s.Samples) < MinSamples {
		return 0, 0, false
	}
	return seconds(Quantile(s.Samples, 0.5)), seconds(Quantile(s.Samples, 0.9)), true
}
