package inference

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strconv"
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

// goldens are what PyTorch computed for a bundle; see reference/goldens.py.
type goldens struct {
	t testing.TB
	f *weights.Safetensors
}

// openGoldens fails when the file was made for other weights than the bundle's.
func openGoldens(t testing.TB, path string, b *models.Bundle) goldens {
	t.Helper()
	f, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	digest, err := b.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if made := "sha256:" + f.Metadata()["weights_sha256"]; made != digest {
		t.Fatalf("%s was made for weights %.19s…, but model %q has %.19s…: run `make goldens` and commit the result", path, made, b.Name, digest)
	}
	return goldens{t, f}
}

func (g goldens) number(name string) int {
	g.t.Helper()
	n, err := strconv.Atoi(g.f.Metadata()[name])
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// get reads a tensor, channels last where it has pixels.
func (g goldens) get(name string) []float32 {
	g.t.Helper()
	x, err := g.f.Float32(name, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if i, _ := g.f.Lookup(name); len(i.Shape) == 4 {
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
			m := open(t, cpu.Options{Kernels: name})
			against(t, m, openGoldens(t, "testdata/golden.safetensors", m.Bundle), name == "portable")
		})
	}
}

func against(t *testing.T, m *Model, g goldens, brief bool) {
	t.Helper()
	var prompts []string
	if err := json.Unmarshal([]byte(g.f.Metadata()["prompts"]), &prompts); err != nil {
		t.Fatal(err)
	}
	raw, err := g.f.Raw("ids")
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range prompts {
		ids, _ := m.tok.Context(p)
		for j, id := range ids {
			if want := int32(binary.LittleEndian.Uint32(raw[4*(i*len(ids)+j):])); id != want {
				t.Fatalf("token %d of %q is %d, want %d", j, p, id, want)
			}
		}
	}
	cams := camera.Orbit(90, 15, 360, 4)
	agree(t, "cameras", camera.Matrices(cams), g.get("camera"))
	prompt, err := m.Prompt(prompts[0], "")
	if err != nil {
		t.Fatal(err)
	}
	want := g.get("context")
	n := len(want) / 4
	agree(t, "text, empty", encoded(t, m, ""), want[3*n:])
	agree(t, "text, prompt", encoded(t, m, prompts[0]), want[:n])

	noise := g.get("noise")
	for _, c := range []struct {
		step int
		name string
	}{{981, "unet.t981"}, {500, "unet.t500"}, {1, "unet.t1"}} {
		agree(t, c.name, unet(t, m, prompt, cams, noise, c.step, false), g.get(c.name))
		if brief {
			return
		}
		agree(t, c.name+", shared", unet(t, m, prompt, cams, noise, c.step, true), g.get(c.name))
	}
	d, err := m.Denoise(DenoiseOptions{Prompt: prompt, Cameras: cams, Guidance: 5, Steps: g.number("steps"), Latents: noise})
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	agree(t, "sampling", x, g.get("latents"))
	images, err := m.Decode(g.get("latents"), 4)
	if err != nil {
		t.Fatal(err)
	}
	pixels := g.get("image")
	for i, v := range pixels {
		pixels[i] = min(max((v+1)/2, 0), 1)
	}
	agree(t, "decoded images", images, pixels)
	latents, err := m.Encode(pixels, 4)
	if err != nil {
		t.Fatal(err)
	}
	moments := g.get("moments_of_clamped_image")
	mean := make([]float32, len(latents))
	for i := range mean {
		mean[i] = moments[i/4*8+i%4] * float32(m.Bundle.ScaleFactor)
	}
	agree(t, "encoded images", latents, mean)
	// The goldens differentiate the mean with respect to an image in [-1, 1].
	cotangent, want := g.get("vjp.cotangent_of_mean"), g.get("vjp.image_gradient")
	latents, gradient, err := m.EncodeGradient(pixels, cotangent, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i] *= 2 * float32(m.Bundle.ScaleFactor)
	}
	agree(t, "encoded images, again", latents, mean)
	agree(t, "gradient of the encoder", gradient, want)
}

// encoded is what the text encoder makes of one text, (T, C).
func encoded(t *testing.T, m *Model, text string) []float32 {
	t.Helper()
	ids, _ := m.tok.Context(text)
	if err := m.text.Encode(ids); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, m.text.Context().Shape().Len())
	if err := m.text.Context().Read(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// images reads n images of a buffer from image at on.
func images(t *testing.T, m *Model, from device.Buffer, at, n int) []float32 {
	t.Helper()
	s := from.Shape()
	s.N = n
	b, err := m.dev.NewBuffer(s, device.Working)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	if err := b.Copy(0, from, at, n); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, s.Len())
	if err := b.Read(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// promptKeys are the keys and values of a prompt, (2, T, ΣKV): negative, prompt.
func promptKeys(t *testing.T, m *Model, p *Prompt) []float32 {
	t.Helper()
	var out []float32
	for _, text := range p.texts {
		at, err := m.keys(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, images(t, m, m.prompts.kept, at, 1)...)
	}
	return out
}

// unet is one raw forward pass, with the latents given once or for both halves.
func unet(t *testing.T, m *Model, prompt *Prompt, cams []camera.Camera, x []float32, step int, shared bool) []float32 {
	t.Helper()
	run, err := m.Denoise(DenoiseOptions{Prompt: prompt, Cameras: cams, Guidance: 5, From: step, Stride: step, Latents: x})
	if err != nil {
		t.Fatal(err)
	}
	at, err := m.embeddings(m.stages[len(cams)].embeddings, run)
	if err != nil {
		t.Fatal(err)
	}
	emb := images(t, m, m.stages[len(cams)].embeddings.kept, at, len(cams))
	s, f := m.Bundle.LatentSize(), len(cams)
	in := device.Shape{N: 2 * f, H: s, W: s, C: 4}
	latents := append(append([]float32(nil), x...), x...)
	if shared {
		in.N, latents = f, x
	}
	p, err := m.compile("forward pass", []device.Shape{in, {N: 2 * f, H: 1, W: 1, C: m.unet.EmbedWidth()}, {N: 2, H: 1, W: m.Bundle.Text.ContextLength, C: m.unet.KeysWidth()}},
		[]device.Shape{{N: 2 * f, H: s, W: s, C: 4}}, device.Full, func(p *device.Program, in, out []device.Tensor) error {
			return m.unet.Forward(p, in[0], in[1], in[2], f, out[0])
		})
	if err != nil {
		t.Fatal(err)
	}
	defer p.free()
	y, err := p.run(latents, slices.Repeat(emb, 2), promptKeys(t, m, prompt))
	if err != nil {
		t.Fatal(err)
	}
	return y
}
