package inference

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/models"
	"dreamcad/inference/text"
)

// Keys and values of texts that are encoded one by one and kept on the device equal,
// bit for bit, those of one batch of prompt and negative that goes through the host;
// so do embeddings of a window of steps and those of each step alone.
func TestConditionsEqualThoseThroughTheHost(t *testing.T) {
	for _, kernels := range cpu.KernelNames() {
		t.Run(kernels, func(t *testing.T) {
			m := open(t, cpu.Options{Kernels: kernels})
			const prompt, negative = "a ceramic coffee mug", "blue"
			p, err := m.Prompt(prompt, negative)
			if err != nil {
				t.Fatal(err)
			}
			e, err := text.New(m.dev, checkpoint{m.source}, models.TextPrefix, m.Bundle.Text, 2)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			s := m.keysShape()
			s.N = 2
			pair, err := m.compile("pair", nil, []device.Shape{s}, device.Full, func(p *device.Program, _, out []device.Tensor) error {
				return m.unet.Keys(p, p.Bind(e.Context()), out[0])
			})
			if err != nil {
				t.Fatal(err)
			}
			defer pair.free()
			none, _ := m.tok.Context(negative)
			ids, _ := m.tok.Context(prompt)
			if err := e.Encode(none, ids); err != nil {
				t.Fatal(err)
			}
			want, err := pair.run()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(promptKeys(t, m, p), want) {
				t.Error("the keys and values differ")
			}

			cams := camera.Orbit(90, 15, 360, 4)
			f := len(cams)
			run, err := m.Denoise(DenoiseOptions{Prompt: p, Cameras: cams, Guidance: 5, Steps: window + 2, Latents: m.Noise(1, 0, f)})
			if err != nil {
				t.Fatal(err)
			}
			one, err := m.compile("embedding", []device.Shape{{N: f, H: 1, W: 1, C: m.Bundle.UNet.ModelChannels}, {N: f, H: 1, W: 1, C: m.Bundle.UNet.CameraDim}},
				[]device.Shape{{N: f, H: 1, W: 1, C: m.unet.EmbedWidth()}}, device.Full,
				func(p *device.Program, in, out []device.Tensor) error { return m.unet.Embed(p, in[0], in[1], out[0]) })
			if err != nil {
				t.Fatal(err)
			}
			defer one.free()
			kept := m.stages[f].embeddings
			for run.next = range run.steps {
				want, err := one.run(slices.Repeat(m.unet.Sinusoid(float64(run.steps[run.next].T)), f), camera.Matrices(cams))
				if err != nil {
					t.Fatal(err)
				}
				at, err := m.embeddings(kept, run)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(images(t, m, kept.kept, at, f), want) {
					t.Errorf("the embeddings of step %d differ", run.next)
				}
			}
		})
	}
}

// A text that was seen is not encoded again, nor are the embeddings of another job
// with the same cameras and steps; and a job whose keys and embeddings had to make
// room for those of others goes on as if nothing had been.
func TestConditionsAreKeptAndComeBack(t *testing.T) {
	m := open(t, cpu.Options{})
	r := Request{Prompt: "a ceramic coffee mug", Seed: 7, Steps: 3}
	want, err := m.Views(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	prompts, embeddings := m.prompts, m.stages[m.Bundle.Views].embeddings
	filled := func(k *recent) (n int) {
		for _, e := range k.results {
			if e.used > 0 {
				n++
			}
		}
		return n
	}
	if filled(prompts) != 2 || filled(embeddings) != 1 {
		t.Fatalf("%d texts and %d windows are kept after one job", filled(prompts), filled(embeddings))
	}
	if _, err := m.Views(t.Context(), Request{Prompt: "a red chair", Seed: 8, Steps: 3}, nil); err != nil {
		t.Fatal(err)
	}
	if filled(prompts) != 3 || filled(embeddings) != 1 {
		t.Fatalf("%d texts and %d windows are kept after two jobs", filled(prompts), filled(embeddings))
	}
	v, err := m.NewViews(r)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the prompt, one step
		if err := v.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.run.leave(); err != nil {
		t.Fatal(err)
	}
	for i := range keptPrompts {
		if _, err := m.Prompt(fmt.Sprint("a robot ", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	other := *v.run
	for i := range keptWindows {
		other.windows = []string{fmt.Sprint("others ", i)}
		other.cams = camera.Orbit(float64(i), 0, 360, len(v.cams))
		if _, err := m.embeddings(embeddings, &other); err != nil {
			t.Fatal(err)
		}
	}
	has := func(k *recent, name string) bool {
		return slices.ContainsFunc(k.results, func(e kept) bool { return e.name == name })
	}
	mug := v.prompt.texts[1]
	if has(prompts, mug) || has(embeddings, v.run.windows[0]) || !has(prompts, v.prompt.texts[0]) {
		t.Fatal("the oldest must make room, and the negative prompt is not it")
	}
	for !v.Done() {
		if err := v.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, im := range v.Result().Images {
		if !slices.Equal(im.Pix, want.Images[i].Pix) {
			t.Fatalf("view %d differs", i)
		}
	}
}

// What failed is not kept.
func TestRecentForgetsFailures(t *testing.T) {
	m := open(t, cpu.Options{})
	if _, err := m.Prompt("a mug", ""); err != nil {
		t.Fatal(err)
	}
	broken, times := errors.New("broken"), 0
	for range 2 {
		if _, err := m.prompts.at("a chair", func() error { times++; return broken }); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if times != 2 {
		t.Errorf("tried %d times, want 2", times)
	}
}
