package worker

import (
	"time"

	"dreamcad/queue"
)

// pace learns how long stages take, to say honestly how much is left. It is used
// from the device's goroutine only.
type pace map[string]*stagePace

type stagePace struct {
	now   time.Duration // of the stage under way
	steps int
	whole time.Duration // moving mean of whole stages; 0: none seen yet
}

// order of the stages that take device time.
var order = []queue.Stage{queue.StageText, queue.StageViews, queue.StageOptimise, queue.StageExtract, queue.StageTexture, queue.StagePreview}

// note adds a step; last says that it ended its stage.
func (p pace) note(stage string, took time.Duration, last bool) {
	s := p[stage]
	if s == nil {
		s = &stagePace{}
		p[stage] = s
	}
	s.now += took
	s.steps++
	if !last {
		return
	}
	if s.whole == 0 {
		s.whole = s.now
	} else {
		s.whole += (s.now - s.whole) / 4
	}
	s.now, s.steps = 0, 0
}

// remaining estimates what is left of a job after the given step; 0 means that it
// is not known yet: a stage that is still to come was never seen.
func (p pace) remaining(kind queue.Kind, stage string, step, total int) time.Duration {
	var left time.Duration
	found := false
	for _, o := range order {
		if kind == queue.Views && o == queue.StageOptimise {
			break
		}
		s := p[string(o)]
		switch {
		case string(o) == stage:
			found = true
			if step >= total {
				continue
			}
			if s == nil || s.whole == 0 && s.steps < 3 {
				return 0
			}
			if s.whole > 0 {
				left += s.whole * time.Duration(total-step) / time.Duration(total)
			} else {
				left += s.now / time.Duration(s.steps) * time.Duration(total-step)
			}
		case found:
			if s == nil || s.whole == 0 {
				return 0
			}
			left += s.whole
		}
	}
	return left
}
