package diffusion

import (
	"math"
	"testing"
)

// Values printed by the public MVDream modules.
func TestScheduleMatchesUpstream(t *testing.T) {
	s := NewSchedule(1000, 0.00085, 0.0120)
	for i, want := range map[int]float64{0: 0.999150000, 1: 0.998296028, 21: 0.980380748, 500: 0.276332684, 981: 0.005775500, 999: 0.004660099} {
		if got := s.Alpha(i); math.Abs(got-want) > 2e-9 {
			t.Errorf("alpha bar %d is %.9f, want %.9f", i, got, want)
		}
	}
}

func TestStepsAreThoseOfTheUniformChoice(t *testing.T) {
	s := NewSchedule(1000, 0.00085, 0.0120)
	for n, want := range map[int][3]int{50: {50, 981, 1}, 25: {25, 961, 1}, 20: {20, 951, 1}, 30: {31, 991, 1}, 150: {167, 997, 1}} {
		steps, err := s.Steps(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int{len(steps), steps[0].T, steps[len(steps)-1].T}; got != want {
			t.Errorf("%d steps: count, first, last are %v, want %v", n, got, want)
		}
	}
	for _, n := range []int{1, 0, -1, 501} {
		if _, err := s.Steps(n); err == nil {
			t.Errorf("%d steps were accepted", n)
		}
	}
}

// With the true noise known, any stride leads back to the signal at abar[0].
func TestUpdatesUndoTheNoise(t *testing.T) {
	s := NewSchedule(1000, 0.00085, 0.0120)
	const x0, e = 0.7, -1.3
	for _, c := range [][2]int{{951, 50}, {541, 40}, {661, 80}, {5, 1}} {
		steps, err := s.StepsFrom(c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		a := s.Alpha(c[0])
		x := math.Sqrt(a)*x0 + math.Sqrt(1-a)*e
		for _, st := range steps {
			x = st.X*x + st.Eps*e
		}
		if want := math.Sqrt(s.Alpha(0))*x0 + math.Sqrt(1-s.Alpha(0))*e; math.Abs(x-want) > 1e-9 {
			t.Errorf("from %d in strides of %d: %g, want %g", c[0], c[1], x, want)
		}
	}
}
