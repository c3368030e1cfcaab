package inference

import (
	"context"
	"math"
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/models"
	"dreamcad/inference/models/mini"
	"dreamcad/inference/tensor"
	"dreamcad/inference/weights"
)

func open(t testing.TB, o cpu.Options) *Model {
	t.Helper()
	b, err := models.Open(mini.FS)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(b, dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		dev.Close()
	})
	return m
}

// golden reads a tensor of the goldens, channels last where it has pixels.
func golden(t testing.TB, name string) []float32 {
	t.Helper()
	f, err := weights.OpenSafetensors("testdata/golden.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x, err := f.Float32(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if i, _ := f.Lookup(name); len(i.Shape) == 4 {
		y := make([]float32, len(x))
		tensor.ToLast(y, x, i.Shape[0], i.Shape[1], i.Shape[2]*i.Shape[3])
		return y
	}
	return x
}

// relative is ‖got - want‖ / ‖want‖.
func relative(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, s float64
	for i := range want {
		d += math.Pow(float64(got[i])-float64(want[i]), 2)
		s += math.Pow(float64(want[i]), 2)
	}
	return math.Sqrt(d / s)
}

const tolerance = 1e-4

func agree(t *testing.T, what string, got, want []float32) {
	t.Helper()
	r := relative(got, want)
	if !(r <= tolerance) {
		t.Errorf("%s: off by %.2g relative, more than %.0e", what, r, tolerance)
	}
	t.Logf("%s: off by %.2g relative", what, r)
}

func TestAgainstPyTorch(t *testing.T) {
	for _, name := range cpu.KernelNames() {
		t.Run(name, func(t *testing.T) {
			// The portable loops are slow and small: one forward pass shows them.
			against(t, open(t, cpu.Options{Kernels: name}), name == "portable")
		})
	}
}

func against(t *testing.T, m *Model, brief bool) {
	cams := camera.Orbit(90, 15, 360, 4)
	agree(t, "cameras", camera.Matrices(cams), golden(t, "camera"))
	prompt, err := m.Prompt("a ceramic coffee mug", "")
	if err != nil {
		t.Fatal(err)
	}
	text := make([]float32, m.text.Context().Shape().Len())
	if err := m.text.Context().Read(text); err != nil {
		t.Fatal(err)
	}
	want := golden(t, "context")
	n := len(want) / 4
	agree(t, "text, empty", text[:n], want[3*n:])
	agree(t, "text, prompt", text[n:], want[:n])

	noise := golden(t, "noise")
	for _, c := range []struct {
		step int
		name string
	}{{981, "unet.t981"}, {500, "unet.t500"}, {1, "unet.t1"}} {
		agree(t, c.name, unet(t, m, prompt, cams, noise, c.step, false), golden(t, c.name))
		if brief {
			return
		}
		agree(t, c.name+", shared", unet(t, m, prompt, cams, noise, c.step, true), golden(t, c.name))
	}
	d, err := m.Denoise(DenoiseOptions{Prompt: prompt, Cameras: cams, Guidance: 5, Steps: 20, Latents: noise})
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	agree(t, "20 steps of DDIM", x, golden(t, "latents.ddim20.cfg5"))
	images, err := m.Decode(golden(t, "latents.ddim20.cfg5"), 4)
	if err != nil {
		t.Fatal(err)
	}
	pixels := golden(t, "image")
	for i, v := range pixels {
		pixels[i] = min(max((v+1)/2, 0), 1)
	}
	agree(t, "decoded images", images, pixels)
	latents, err := m.Encode(pixels, 4)
	if err != nil {
		t.Fatal(err)
	}
	moments := golden(t, "moments_of_clamped_image")
	mean := make([]float32, len(latents))
	for i := range mean {
		mean[i] = moments[i/4*8+i%4] * float32(m.Bundle.ScaleFactor)
	}
	agree(t, "encoded images", latents, mean)
}

// unet is one raw forward pass, with the latents given once or for both halves.
func unet(t *testing.T, m *Model, prompt *Prompt, cams []camera.Camera, x []float32, step int, shared bool) []float32 {
	t.Helper()
	steps, err := m.schedule.StepsFrom(step, step)
	if err != nil {
		t.Fatal(err)
	}
	table, err := m.embeddings(steps[:1], cams)
	if err != nil {
		t.Fatal(err)
	}
	s, f := m.Bundle.LatentSize(), len(cams)
	in := device.Shape{N: 2 * f, H: s, W: s, C: 4}
	latents := append(append([]float32(nil), x...), x...)
	if shared {
		in.N, latents = f, x
	}
	p, err := m.compile("forward pass", []device.Shape{in, {N: 2 * f, H: 1, W: 1, C: m.unet.EmbedWidth()}, {N: 2, H: 1, W: m.Bundle.Text.ContextLength, C: m.unet.KeysWidth()}},
		[]device.Shape{{N: 2 * f, H: s, W: s, C: 4}}, func(p *device.Program, in, out []device.Tensor) error {
			return m.unet.Forward(p, in[0], in[1], in[2], f, out[0])
		})
	if err != nil {
		t.Fatal(err)
	}
	defer p.free()
	y, err := p.run(latents, append(append([]float32(nil), table[0]...), table[0]...), prompt.keys)
	if err != nil {
		t.Fatal(err)
	}
	return y
}
