//go:build cuda

package cuda

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gorgonia.org/cu"

	"dreamcad/inference"
	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/diffusion"
	"dreamcad/inference/models"
	"dreamcad/inference/vae"
	"dreamcad/inference/weights"
)

// peer is what tools/peer.py left in a folder: the full-size networks with random weights and what PyTorch made of them.
type peer struct {
	dir       string
	bundle    *models.Bundle
	source    weights.Source
	reference weights.Source
	Guidance  float64            `json:"guidance"`
	FP16      map[string]float64 `json:"fp16_error"`
	Ms        map[string]float64 `json:"ms"`
}

// openPeer needs DREAM_PEER, the folder that tools/peer.py wrote.
func openPeer(t *testing.T) *peer {
	p := &peer{dir: os.Getenv("DREAM_PEER")}
	if p.dir == "" {
		t.Skip("DREAM_PEER names no folder of tools/peer.py")
	}
	var err error
	if p.bundle, err = models.OpenDir(p.dir); err != nil {
		t.Fatal(err)
	}
	if p.source, err = weights.OpenSafetensors(filepath.Join(p.dir, "weights.safetensors")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.source.Close() })
	if p.reference, err = weights.OpenSafetensors(filepath.Join(p.dir, "reference.safetensors")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.reference.Close() })
	if b, err := os.ReadFile(filepath.Join(p.dir, "peer.json")); err == nil {
		if err := json.Unmarshal(b, p); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *peer) get(t *testing.T, name string) []float32 {
	v, err := p.reference.Float32(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// judge demands an error of at most 1e-2, and at most one and a half times that of PyTorch in fp16.
func (p *peer) judge(t *testing.T, name string, got, want []float32) {
	t.Helper()
	d := distance(got, want)
	fmt.Printf("%-10s error %.2e   PyTorch in fp16 %.2e\n", name, d, p.FP16[name])
	if limit := p.FP16[name] * 1.5; !(d <= 1e-2) || (limit > 0 && d > limit) {
		t.Errorf("%s is off by %.3g", name, d)
	}
}

// checkpoint shows a file to the networks, with its bytes.
type checkpointFile struct{ weights.Source }

func (c checkpointFile) Shape(name string) ([]int, bool) {
	i, ok := c.Lookup(name)
	return i.Shape, ok
}

func (c checkpointFile) Float32(name string, offset int, dst []float32) error {
	v, err := c.Source.Float32(name, nil)
	if err == nil {
		copy(dst, v[offset:])
	}
	return err
}

func (c checkpointFile) Raw(name string) (string, []byte, bool) {
	i, ok := c.Lookup(name)
	if !ok {
		return "", nil, false
	}
	b, err := c.Source.Raw(name)
	return i.DType.String(), b, err == nil
}

// session runs programs between full-precision buffers.
type session struct {
	t   *testing.T
	dev device.Device
	p   *device.Program
}

func (s *session) bind(v []float32, n, h, w, c int) (device.Tensor, device.Buffer) {
	b, err := s.dev.NewBuffer(device.Shape{N: n, H: h, W: w, C: c}, device.Full)
	if err != nil {
		s.t.Fatal(err)
	}
	if v != nil {
		if err := b.Write(v); err != nil {
			s.t.Fatal(err)
		}
	}
	return s.p.Bind(b), b
}

func (s *session) exec() device.Exec {
	e, err := s.dev.Compile(s.p)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := e.Run(); err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *session) read(b device.Buffer) []float32 {
	v := make([]float32, b.Shape().Len())
	if err := b.Read(v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

// unetExec records the UNet for a guided batch of so many images (half of them latents).
func (p *peer) unetExec(t *testing.T, dev device.Device, batch int, x, context, cam []float32) (*session, device.Exec, device.Buffer) {
	s := &session{t, dev, device.NewProgram("unet")}
	u, err := diffusion.NewUNet(checkpointFile{p.source}, models.UNetPrefix, p.bundle.UNet, 4)
	if err != nil {
		t.Fatal(err)
	}
	repeat := func(v []float32, n int) []float32 { return slices.Repeat(v, n) }
	groups := batch / 8
	xt, _ := s.bind(repeat(x, groups), batch/2, 32, 32, 4)
	ct, _ := s.bind(repeat(context, groups), 2*groups, 1, 77, 1024)
	sinus, _ := s.bind(repeat(u.Sinusoid(501), batch), batch, 1, 1, 320)
	camT, _ := s.bind(repeat(cam, batch/4), batch, 1, 1, 16)
	emb, kv := s.p.New(batch, 1, 1, u.EmbedWidth()), s.p.New(2*groups, 1, 77, u.KeysWidth())
	// The prepared parts are a program of their own in use; here they come first.
	if err := u.Keys(s.p, ct, kv); err != nil {
		t.Fatal(err)
	}
	if err := u.Embed(s.p, sinus, camT, emb); err != nil {
		t.Fatal(err)
	}
	et, eb := s.bind(nil, batch, 32, 32, 4)
	if err := u.Forward(s.p, xt, emb, kv, 4, et); err != nil {
		t.Fatal(err)
	}
	return s, s.exec(), eb
}

// full runs the networks and compares them with PyTorch.
func (p *peer) networks(t *testing.T, dev device.Device) {
	cams := make([]camera.Camera, 4)
	for i := range cams {
		cams[i] = camera.FromFront(float64(90*i), 15)
	}
	if d := distance(camera.Matrices(cams), p.get(t, "camera")); d > 1e-5 {
		t.Errorf("the cameras differ by %g", d)
	}
	_, exec, eps := p.unetExec(t, dev, 8, p.get(t, "x"), p.get(t, "context"), p.get(t, "camera"))
	got := make([]float32, eps.Shape().Len())
	if err := eps.Read(got); err != nil {
		t.Fatal(err)
	}
	exec.Free()
	p.judge(t, "eps", got, p.get(t, "eps"))
	exec, image := p.decodeExec(t, dev)
	exec.Free()
	got = make([]float32, image.Shape().Len())
	if err := image.Read(got); err != nil {
		t.Fatal(err)
	}
	p.judge(t, "image", got, p.get(t, "image"))
	coder := vae.New(checkpointFile{p.source}, models.VAEPrefix, p.bundle.VAE)
	s := &session{t, dev, device.NewProgram("encode")}
	pixels, _ := s.bind(p.get(t, "pixels"), 4, 256, 256, 3)
	moments, mb := s.bind(nil, 4, 32, 32, 8)
	if err := coder.Encode(s.p, pixels, moments); err != nil {
		t.Fatal(err)
	}
	s.exec().Free()
	p.judge(t, "moments", s.read(mb), p.get(t, "moments"))
	s, exec, _, gradient := p.gradientExec(t, dev)
	exec.Free()
	p.judge(t, "gradient", s.read(gradient), p.get(t, "gradient"))
}

// decodeExec records the decoder for four pictures and runs it.
func (p *peer) decodeExec(t *testing.T, dev device.Device) (device.Exec, device.Buffer) {
	coder := vae.New(checkpointFile{p.source}, models.VAEPrefix, p.bundle.VAE)
	s := &session{t, dev, device.NewProgram("decode")}
	z, _ := s.bind(p.get(t, "z"), 4, 32, 32, 4)
	image, b := s.bind(nil, 4, 256, 256, 3)
	if err := coder.Decode(s.p, z, image); err != nil {
		t.Fatal(err)
	}
	return s.exec(), b
}

// gradientExec records the encoder and the gradient of its result, in the reference's direction, to the image.
func (p *peer) gradientExec(t *testing.T, dev device.Device) (s *session, e device.Exec, moments, gradient device.Buffer) {
	coder := vae.New(checkpointFile{p.source}, models.VAEPrefix, p.bundle.VAE)
	s = &session{t, dev, device.NewProgram("gradient")}
	pixels, _ := s.bind(p.get(t, "pixels"), 4, 256, 256, 3)
	direction, _ := s.bind(p.get(t, "direction"), 4, 32, 32, 8)
	mt, moments := s.bind(nil, 4, 32, 32, 8)
	gt, gradient := s.bind(nil, 4, 256, 256, 3)
	if err := coder.EncodeGrad(s.p, pixels, mt, direction, gt); err != nil {
		t.Fatal(err)
	}
	return s, s.exec(), moments, gradient
}

// TestFullOnCPU checks the reference itself: the CPU device must agree with PyTorch far below fp16.
func TestFullOnCPU(t *testing.T) {
	if os.Getenv("DREAM_PEER_CPU") == "" {
		t.Skip("DREAM_PEER_CPU is not set (half a minute and 8 GB)")
	}
	p := openPeer(t)
	dev := cpuDevice(t)
	p.networks(t, dev)
	p.sampling(t, dev)
}

// sampling takes the model's own way from a prompt to latents and compares every step.
func (p *peer) sampling(t *testing.T, dev device.Device) {
	m, err := inference.Open(p.bundle, dev)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	prompt, err := m.Prompt("an astronaut riding a horse, 3d asset", "")
	if err != nil {
		t.Fatal(err)
	}
	cams := make([]camera.Camera, 4)
	for i := range cams {
		cams[i] = camera.FromFront(float64(90*i), 15)
	}
	trace, n := p.get(t, "trace"), 4*32*32*4
	run, err := m.Denoise(inference.DenoiseOptions{Prompt: prompt, Cameras: cams, Guidance: p.Guidance, Steps: len(trace) / n, Latents: p.get(t, "x")})
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for i := range run.Len() {
		if err := run.Next(context.Background()); err != nil {
			t.Fatal(err)
		}
		x, err := run.Latents()
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, distance(x, trace[i*n:(i+1)*n]))
		if i == run.Len()-1 {
			p.judge(t, "latents", x, trace[i*n:])
		}
	}
	fmt.Printf("%d steps, worst error of a step %.2e   PyTorch in fp16 %.2e\n", run.Len(), worst, p.FP16["step"])
	if !(worst <= 1e-2) {
		t.Errorf("a step is off by %.3g", worst)
	}
}

// TestFullAgainstPyTorch compares every network and a whole sampling run at full size.
func TestFullAgainstPyTorch(t *testing.T) {
	p := openPeer(t)
	card := openCard(t, Options{})
	p.networks(t, card)
	p.sampling(t, card)
}

// TestFullSpeed prints our times beside those of PyTorch in the same folder, and the device memory of a views job.
func TestFullSpeed(t *testing.T) {
	p := openPeer(t)
	empty, err := nvmlUsed()
	if err != nil {
		t.Error(err)
	}
	card := openCard(t, Options{}).(*Card)
	ours := map[string]float64{}
	measure := func(name string, e device.Exec) {
		times := make([]float64, 20)
		for i := range times {
			times[i] = card.timed(t, e)
		}
		slices.Sort(times)
		ours[name] = times[len(times)/2]
		graph, compiled := p.Ms[name], p.Ms[name+" compiled"]
		best := graph
		if compiled > 0 {
			best = min(best, compiled)
		}
		fmt.Printf("%-10s ours %8.2f ms   PyTorch, graph %8.2f ms   compiled %8.2f ms   ratio %.2f\n", name, ours[name], graph, compiled, best/ours[name])
	}
	begin := time.Now()
	m, err := inference.Open(p.bundle, card)
	if err != nil {
		t.Fatal(err)
	}
	views := func(prompt string) *inference.ViewsResult {
		v, err := m.NewViews(inference.Request{Prompt: prompt, Seed: 1, Steps: 50})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; !v.Done(); i++ {
			if err := v.Step(context.Background()); err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				fmt.Printf("to the first step of a job: %.2f s\n", time.Since(begin).Seconds())
			}
		}
		return v.Result()
	}
	views("an astronaut riding a horse")
	begin = time.Now()
	r := views("a bear playing the guitar") // the encoding of a prompt that was seen is kept
	fmt.Printf("4 views, 50 steps: %.0f ms %v\n", time.Since(begin).Seconds()*1e3, r.Timings)
	prompts := make([]float64, 5)
	for i := range prompts {
		begin = time.Now()
		if _, err := m.Prompt(fmt.Sprint("a robot ", i), ""); err != nil {
			t.Fatal(err)
		}
		if err := card.do(card.synchronize); err != nil {
			t.Fatal(err)
		}
		prompts[i] = time.Since(begin).Seconds() * 1e3
	}
	slices.Sort(prompts)
	fmt.Printf("a prompt, text to keys and values: %.2f ms\n", prompts[2])
	_ = card.do(func() error {
		free, total, err := cu.MemInfo()
		fmt.Printf("device memory in use: %.2f GiB (ours: weights, buffers and arena %.2f GiB)\n", float64(total-free)/(1<<30), float64(card.totalBytes)/(1<<30))
		return err
	})
	viewsMemory(t, card.info.UUID, empty)
	_ = m.Close()
	for _, batch := range []int{8, 16, 32, 64} {
		_, exec, _ := p.unetExec(t, card, batch, p.get(t, "x"), p.get(t, "context"), p.get(t, "camera"))
		if batch == 8 && os.Getenv("DREAM_PROFILE") != "" {
			profile(t, exec.(*program))
		}
		measure(fmt.Sprint("unet ", batch), exec)
		exec.Free()
	}
	exec, _ := p.decodeExec(t, card)
	measure("decode 4", exec)
	coder := vae.New(checkpointFile{p.source}, models.VAEPrefix, p.bundle.VAE)
	s := &session{t, card, device.NewProgram("encode")}
	pixels, _ := s.bind(p.get(t, "pixels"), 4, 256, 256, 3)
	moments, _ := s.bind(nil, 4, 32, 32, 8)
	if err := coder.Encode(s.p, pixels, moments); err != nil {
		t.Fatal(err)
	}
	measure("encode 4", s.exec())
	_, exec, _, _ = p.gradientExec(t, card)
	if os.Getenv("DREAM_PROFILE") != "" {
		profile(t, exec.(*program))
	}
	measure("gradient 4", exec)
	b, err := json.MarshalIndent(map[string]any{"gpu": card.info.Name, "ms": ours}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "ours.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// timed is the milliseconds of one run by the card's clock.
func (c *Card) timed(t *testing.T, e device.Exec) float64 {
	t.Helper()
	mark := func(event cu.Event) {
		if err := c.do(func() error { return event.Record(c.stream) }); err != nil {
			t.Fatal(err)
		}
	}
	mark(c.tuner.start)
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	mark(c.tuner.stop)
	var ms float64
	err := c.do(func() error {
		if err := c.synchronize(); err != nil {
			return err
		}
		var err error
		ms, err = c.tuner.start.Elapsed(c.tuner.stop)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ms
}
