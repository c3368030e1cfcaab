package diffusion

import (
	"fmt"
	"math"
)

// Schedule is the forward process: abar[t], the share of the signal's variance
// left at timestep t (ldm/modules/diffusionmodules/util.py, "linear" there means
// linear in the square root).
type Schedule struct{ abar []float64 }

// NewSchedule has timesteps steps with betas from start to end.
func NewSchedule(timesteps int, start, end float64) *Schedule {
	s := &Schedule{make([]float64, timesteps)}
	p := 1.0
	lo, hi := math.Sqrt(start), math.Sqrt(end)
	for i := range s.abar {
		b := lo + (hi-lo)*float64(i)/float64(timesteps-1)
		p *= 1 - b*b
		s.abar[i] = p
	}
	return s
}

// Alpha is abar at timestep t.
func (s *Schedule) Alpha(t int) float64 { return s.abar[t] }

// Len is the number of timesteps.
func (s *Schedule) Len() int { return len(s.abar) }

// Step is one DDIM update from timestep T, as the weights of x' = X·x + Eps·e,
// e the guided noise prediction (eta 0).
type Step struct {
	T      int
	X, Eps float64
}

// update leads from alpha bar a to alpha bar prev:
// x0 = (x - √(1-a) e)/√a; x' = √prev x0 + √(1-prev) e.
func update(t int, a, prev float64) Step {
	return Step{T: t, X: math.Sqrt(prev / a), Eps: math.Sqrt(1-prev) - math.Sqrt(prev*(1-a)/a)}
}

// Steps are the DDIM updates of a whole run, first one first. The count is
// ceil(T/(T div n)), which is n when n divides T (ldm/models/diffusion/ddim.py).
func (s *Schedule) Steps(n int) ([]Step, error) {
	if n < 2 || n > s.Len()/2 {
		return nil, fmt.Errorf("%d steps: choose between 2 and %d", n, s.Len()/2)
	}
	stride := s.Len() / n
	last := (s.Len()-1)/stride*stride + 1
	return s.StepsFrom(min(last, s.Len()-1), stride)
}

// StepsFrom are the updates from timestep t down in strides; what lies below the
// last one is one step to abar[0], which is not quite 1.
func (s *Schedule) StepsFrom(t, stride int) ([]Step, error) {
	if t < 1 || t >= s.Len() || stride < 1 {
		return nil, fmt.Errorf("denoise from timestep %d in strides of %d: outside 1 to %d", t, stride, s.Len()-1)
	}
	var steps []Step
	for ; t >= 1; t -= stride {
		steps = append(steps, update(t, s.abar[t], s.abar[max(t-stride, 0)]))
	}
	return steps, nil
}

// AddNoise brings clean latents to timestep t: √abar·x + √(1-abar)·noise.
func (s *Schedule) AddNoise(x, noise []float32, t int) []float32 {
	a, b := float32(math.Sqrt(s.abar[t])), float32(math.Sqrt(1-s.abar[t]))
	out := make([]float32, len(x))
	for i := range x {
		out[i] = a*x[i] + b*noise[i]
	}
	return out
}
