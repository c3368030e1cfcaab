package inference

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"dreamcad/inference/device/cpu"
	"dreamcad/inference/field"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two jobs that alternate on one model give what each gives alone, and the same
// seed gives the same bytes whatever the number of threads.
func TestViewsAreDeterministicAndMayAlternate(t *testing.T) {
	mug, chair := Request{Prompt: "a ceramic coffee mug", Seed: 7, Steps: 4}, Request{Prompt: "a red chair", Seed: 8, Steps: 5, Guidance: 3}
	m := open(t, cpu.Options{})
	want, err := m.Views(context.Background(), mug, nil)
	if err != nil {
		t.Fatal(err)
	}
	one := open(t, cpu.Options{Threads: 1})
	a, err := one.NewViews(mug)
	if err != nil {
		t.Fatal(err)
	}
	b, err := one.NewViews(chair)
	if err != nil {
		t.Fatal(err)
	}
	for !a.Done() || !b.Done() {
		for _, v := range []*Views{a, b} {
			if err := v.Step(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, im := range a.Result().Images {
		if !slices.Equal(im.Pix, want.Images[i].Pix) {
			t.Fatalf("view %d depends on what ran beside it or on the number of threads", i)
		}
	}
	if slices.Equal(b.Result().Images[0].Pix, want.Images[0].Pix) {
		t.Fatal("two prompts gave the same picture")
	}
}

func TestViewsStopBetweenSteps(t *testing.T) {
	m := open(t, cpu.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	var last int
	_, err := m.Views(ctx, Request{Prompt: "a mug", Steps: 10}, func(stage string, step, total int) {
		if stage == StageViews && step == 2 {
			if total != 11 {
				t.Errorf("%d steps in all, want 10 and the decoding", total)
			}
			cancel()
		}
		last = step
	})
	if !errors.Is(err, context.Canceled) || last != 2 {
		t.Fatalf("error %v after step %d, want a cancellation after step 2", err, last)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	m := open(t, cpu.Options{})
	steep := 91.0
	for name, r := range map[string]Request{
		"one step": {Prompt: "x", Steps: 1}, "many steps": {Prompt: "x", Steps: 501}, "guidance": {Prompt: "x", Guidance: math.NaN()},
		"elevation": {Prompt: "x", Elevation: &steep}, "azimuths": {Prompt: "x", Azimuths: []float64{0}},
	} {
		if _, err := m.NewViews(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A mug's views describe one solid; views whose cameras are mixed up do not.
func TestViewsAreConsistent(t *testing.T) {
	m := open(t, cpu.Options{})
	r, err := m.Views(context.Background(), Request{Prompt: "a ceramic coffee mug", Seed: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, c := range Consistency(r.Images, r.Cameras) {
		if c < 0.97 {
			t.Errorf("the hull covers %.3f of view %d", c, k)
		}
	}
	cams := slices.Clone(r.Cameras)
	cams[0], cams[1] = cams[1], cams[0]
	worst := slices.Min(Consistency(r.Images, cams))
	if worst > 0.97 {
		t.Errorf("with two cameras swapped the hull still covers %.3f", worst)
	}
	// A redraw from a low noise level keeps the pictures.
	p, err := m.Prompt("a ceramic coffee mug", "")
	if err != nil {
		t.Fatal(err)
	}
	re, err := m.Redrawer(p, 5).Redraw(r.Images, r.Cameras, 101, 50, 3)
	if err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		if done, err = re.Step(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	again, err := re.Images()
	if err != nil {
		t.Fatal(err)
	}
	for k := range again {
		if p := psnr(again[k], r.Images[k]); p < 25 {
			t.Errorf("view %d redrawn from timestep 101 has %.1f dB", k, p)
		}
	}
}

func psnr(a, b field.Image) float64 {
	var s float64
	for i := range a.Pix {
		s += math.Pow(float64(a.Pix[i]-b.Pix[i]), 2)
	}
	return -10 * math.Log10(s/float64(len(a.Pix)))
}

// A mesh of a bundle that is marked experimental says so, pictures do not.
func TestExperimentalMeshesSaySo(t *testing.T) {
	m := open(t, cpu.Options{})
	m.Bundle.ExperimentalMesh = true
	set := DefaultMeshSettings()
	for _, mesh := range []*MeshSettings{nil, &set} {
		k, err := m.NewMaking(Order{Request: Request{Prompt: "a ceramic coffee mug", Seed: 7, Steps: 10}, Mesh: mesh})
		if err != nil {
			t.Fatal(err)
		}
		for len(k.Images()) == 0 {
			if _, err := k.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if said := strings.Contains(strings.Join(k.Notices(), " "), "experimental"); said != (mesh != nil) {
			t.Errorf("mesh %v: notices %q", mesh != nil, k.Notices())
		}
	}
}
