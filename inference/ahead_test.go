package inference

import (
	"context"
	"errors"
	"testing"

	"dreamcad/inference/device/cpu"
)

// Jobs of different prompts, seeds, guidance and lengths that step together, join
// and leave between steps and are given up half-way give what each gives alone.
func TestTogetherEqualsAlone(t *testing.T) {
	requests := []Request{
		{Prompt: "a ceramic coffee mug", Seed: 7, Steps: 5},
		{Prompt: "a red chair", Negative: "blue", Seed: 8, Steps: 4, Guidance: 3},
		{Prompt: "a green car", Seed: 9, Steps: 4},
		{Prompt: "a lamp", Seed: 10, Steps: 3, Guidance: 1}, // no guidance: another program
		{Prompt: "a wooden table", Seed: 11, Steps: 6},
	}
	const givenUp = 4
	m := open(t, cpu.Options{})
	jobs := make([]*Views, len(requests))
	for i, r := range requests {
		var err error
		if jobs[i], err = m.NewViews(r); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stop := errors.New("given up")
	sizes := map[int]bool{}
	for turn := 0; ; turn++ {
		var runs []*Denoising
		working := 0
		for i, v := range jobs[:min(len(jobs), 1+turn)] { // one joins at each turn
			if v.Done() || i == givenUp && gone.Err() != nil {
				continue
			}
			working++
			if d := v.Denoising(); d != nil {
				runs = append(runs, d)
			}
		}
		if working == 0 {
			break
		}
		sizes[len(runs)] = true
		if err := m.Ahead(runs); err != nil {
			t.Fatal(err)
		}
		for i, v := range jobs[:min(len(jobs), 1+turn)] {
			ctx := context.Background()
			if i == givenUp {
				if turn == 6 {
					cancel(stop) // between the joint step and its own
				}
				if ctx = gone; turn > 6 {
					continue
				}
			}
			if err := v.Step(ctx); err != nil && (i != givenUp || !errors.Is(err, stop)) {
				t.Fatal(err)
			}
		}
	}
	if !sizes[2] || !sizes[4] {
		t.Fatalf("the jobs stepped in groups of %v", sizes)
	}
	alone := open(t, cpu.Options{Threads: 1})
	for i, r := range requests {
		if i == givenUp {
			if jobs[i].Done() {
				t.Error("the job that was given up ended")
			}
			continue
		}
		want, err := alone.Views(context.Background(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, im := range jobs[i].Result().Images {
			for p, v := range im.Pix {
				if v != want.Images[k].Pix[p] {
					t.Fatalf("%q: view %d differs at %d: %g, alone %g", r.Prompt, k, p, v, want.Images[k].Pix[p])
				}
			}
		}
	}
}

func TestAheadRefusesOtherModels(t *testing.T) {
	a, b := open(t, cpu.Options{}), open(t, cpu.Options{})
	v, err := a.NewViews(Request{Prompt: "a mug", Steps: 2})
	if err != nil {
		t.Fatal(err)
	}
	if v.Denoising() != nil {
		t.Fatal("a job whose prompt is not encoded has no step to take")
	}
	if err := v.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Ahead([]*Denoising{v.Denoising()}); err == nil {
		t.Fatal("a run of another model was taken")
	}
}
