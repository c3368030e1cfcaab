package distill

import (
	"fmt"

	"dreamcad/inference/field"
)

// Settings is the recipe of a draft: how the field is fitted and which views are
// drawn in between. The zero value is not useful; start from DefaultSettings.
type Settings struct {
	Scaffold []Stage `json:"scaffold"` // fit to the source views, coarse to fine
	Rounds   []Round `json:"rounds"`   // views in between, each followed by Refit
	Refit    Stage   `json:"refit"`
	Final    []Stage `json:"final"` // fit to all views, from their hull

	Rays        int     `json:"rays"`         // random rays an iteration
	RoundWeight float32 `json:"round_weight"` // of the rounds' views in the loss; source views weigh 1
	RenderBeta  float64 `json:"render_beta"`  // surface width of the pictures given to the network, voxels
	MaskPad     int     `json:"mask_pad"`     // pixels around the masks that are fitted too
	Hollow      *Hollow `json:"hollow"`       // how open vessels are looked for; nil: not
	Seed        uint64  `json:"-"`
}

// Stage is one fit on a grid of Grid samples a side.
type Stage struct {
	Grid       int        `json:"grid"`
	Iterations int        `json:"iterations"`
	Beta       [2]float64 `json:"beta"` // voxels
	Bilaplace  float32    `json:"bilaplace"`
	Laplace    float32    `json:"laplace"`
	Eikonal    float32    `json:"eikonal"`
}

// Round draws as many views as there are source views.
type Round struct {
	Azimuth   float64 `json:"azimuth"`   // degrees from the source views
	Elevation float64 `json:"elevation"` // degrees
	Timestep  int     `json:"timestep"`  // noise level that the renders are taken to
	Stride    int     `json:"stride"`    // timesteps a denoising step
}

// DefaultSettings is the recipe that docs/draft-mesh.md measures.
func DefaultSettings() Settings {
	return Settings{
		Scaffold: []Stage{
			{32, 60, [2]float64{1, 0.5}, 5, 0, 1},
			{64, 80, [2]float64{0.7, 0.4}, 5, 0, 1},
			{96, 60, [2]float64{0.6, 0.25}, 5, 0, 1},
		},
		Rounds: []Round{
			{45, 40, 541, 80},
			{22.5, 0, 661, 80},
			{67.5, 45, 541, 80},
			{0, -15, 541, 80},
		},
		Refit: Stage{96, 40, [2]float64{0.6, 0.25}, 5, 0, 1},
		Final: []Stage{
			{32, 60, [2]float64{2, 1}, 0, 0.2, 0.1},
			{64, 100, [2]float64{1.2, 0.5}, 4, 0.2, 1},
			{96, 200, [2]float64{0.8, 0.3}, 30, 0, 3},
		},
		Hollow: &Hollow{
			Fit:  Stage{64, 50, [2]float64{1, 0.5}, 4, 0.2, 1},
			Wall: 2.3, Gain: 0.85,
		},
		Rays: 2048, RoundWeight: 0.7, RenderBeta: 0.2, MaskPad: 4, Seed: 1,
	}
}

// Check says what is wrong with the settings, if anything.
func (s *Settings) Check() error {
	stages := append(append([]Stage{}, s.Scaffold...), s.Final...)
	if len(s.Rounds) > 0 {
		stages = append(stages, s.Refit)
	}
	if len(s.Scaffold) == 0 || len(s.Final) == 0 {
		return fmt.Errorf("3D settings: want at least one scaffold and one final stage")
	}
	if h := s.Hollow; h != nil {
		stages = append(stages, h.Fit)
		if len(s.Final) > 1 && h.Fit.Grid != s.Final[len(s.Final)-2].Grid {
			return fmt.Errorf("3D settings: the hollow is fitted on a grid of %d, the stage before the last on %d", h.Fit.Grid, s.Final[len(s.Final)-2].Grid)
		}
		if !(h.Wall >= 1 && h.Gain >= 0) {
			return fmt.Errorf("3D settings: hollow with wall %g, gain %g is out of range", h.Wall, h.Gain)
		}
	}
	for _, g := range stages {
		if g.Grid < 16 || g.Grid > 256 || g.Grid%2 != 0 {
			return fmt.Errorf("3D settings: grid %d: want an even number from 16 to 256", g.Grid)
		}
		if g.Iterations < 1 || g.Iterations > 100000 {
			return fmt.Errorf("3D settings: %d iterations: want 1 to 100000", g.Iterations)
		}
		if !(g.Beta[0] > 0 && g.Beta[1] > 0 && g.Beta[0] <= 16 && g.Beta[1] <= 16) {
			return fmt.Errorf("3D settings: beta %g to %g: want more than 0 and at most 16 voxels", g.Beta[0], g.Beta[1])
		}
		if g.Bilaplace < 0 || g.Laplace < 0 || g.Eikonal < 0 {
			return fmt.Errorf("3D settings: weights of a stage must not be negative")
		}
	}
	for _, r := range s.Rounds {
		if r.Timestep < 1 || r.Timestep > 999 || r.Stride < 1 {
			return fmt.Errorf("3D settings: round at timestep %d with stride %d: want 1 to 999 and at least 1", r.Timestep, r.Stride)
		}
		if r.Elevation < -89 || r.Elevation > 89 {
			return fmt.Errorf("3D settings: round at elevation %g: want −89 to 89", r.Elevation)
		}
	}
	if s.Rays < 64 || s.Rays > 1<<20 {
		return fmt.Errorf("3D settings: %d rays an iteration: want 64 to 1048576", s.Rays)
	}
	if !(s.RoundWeight >= 0) || !(s.RenderBeta > 0) || s.MaskPad < 0 {
		return fmt.Errorf("3D settings: round_weight %g, render_beta %g, mask_pad %d are out of range", s.RoundWeight, s.RenderBeta, s.MaskPad)
	}
	return nil
}

// schedule is a stage as field wants it.
func (s *Settings) schedule(g Stage) field.Schedule {
	c := field.DefaultSchedule()
	c.Rays = s.Rays
	c.Iterations, c.Beta = g.Iterations, g.Beta
	c.Bilaplace, c.Laplace, c.Eikonal = g.Bilaplace, g.Laplace, g.Eikonal
	return c
}
