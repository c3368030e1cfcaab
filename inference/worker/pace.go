package worker

import (
	"time"

	"dreamcad/queue"
)

// pace learns how long stages take, to say honestly how much is left: the moving
// mean of whole stages by name. It is used from the device's goroutine only.
type pace map[string]time.Duration

// spent is what one job has spent in the stage that it is in.
type spent struct {
	time  time.Duration
	steps int
}

// order of the stages that take device time.
var order = []queue.Stage{queue.StageText, queue.StageViews, queue.StageOptimise, queue.StageExtract, queue.StageTexture, queue.StagePreview}

// note adds a step of a job; last says that it ended its stage.
func (p pace) note(w *spent, stage string, took time.Duration, last bool) {
	w.time += took
	w.steps++
	if !last {
		return
	}
	if whole := p[stage]; whole == 0 {
		p[stage] = w.time
	} else {
		p[stage] += (w.time - whole) / 4
	}
	*w = spent{}
}

// remaining estimates what is left of a job after the given step; 0 means that it
// is not known yet: a stage that is still to come was never seen.
func (p pace) remaining(w *spent, kind queue.Kind, stage string, step, total int) time.Duration {
	var left time.Duration
	found := false
	for _, o := range order {
		if kind == queue.Views && o == queue.StageOptimise {
			break
		}
		whole := p[string(o)]
		switch {
		case string(o) == stage:
			found = true
			switch {
			case step >= total:
			case whole > 0:
				left += whole * time.Duration(total-step) / time.Duration(total)
			case w.steps >= 3:
				left += w.time / time.Duration(w.steps) * time.Duration(total-step)
			default:
				return 0
			}
		case found:
			if whole == 0 {
				return 0
			}
			left += whole
		}
	}
	return left
}
