// Package inference makes pictures and meshes from prompts. It knows nothing of
// chat, queue or storage.
//
// [Model] is a model bundle on a device: text encoder, UNet and image coder.
// [Views] is the job that turns a prompt into pictures; it proceeds in steps, so
// that a scheduler can run several jobs alternately on one device.
//
// Images are channels-last, (N, H, W, 3), in [0, 1]; latents (N, h, w, Z), scaled
// as the denoiser expects them.
package inference

import (
	"errors"
	"fmt"
	"sync"

	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/diffusion"
	"dreamcad/inference/field"
	"dreamcad/inference/models"
	"dreamcad/inference/tensor"
	"dreamcad/inference/text"
	"dreamcad/inference/tokenizer"
	"dreamcad/inference/vae"
	"dreamcad/inference/weights"
)

// Model is a bundle whose networks are ready to run on a device. Its methods may
// be called by several goroutines; the device does one thing at a time.
type Model struct {
	Bundle *models.Bundle

	dev      device.Device
	source   weights.Source
	tok      *tokenizer.Tokenizer
	unet     *diffusion.UNet
	vae      *vae.VAE
	schedule *diffusion.Schedule

	mu         sync.Mutex // guards what follows and is held while a program runs
	text       *text.Encoder
	prompts    *recent // keys and values of one text each
	encodeGrad *compiled
	coders     map[coderKey]*compiled
	denoisers  map[denoiserKey]*denoiser
	stages     map[int]*stage // by views of a run
	closed     bool
}

type coderKey struct {
	encode bool
	images int
}

// Open loads a bundle onto a device. The networks reach the device when they are
// first needed.
func Open(b *models.Bundle, dev device.Device) (*Model, error) {
	tok, err := b.OpenTokenizer()
	if err != nil {
		return nil, err
	}
	src, err := b.OpenWeights()
	if err != nil {
		return nil, err
	}
	m := &Model{Bundle: b, dev: dev, source: src, tok: tok,
		vae:      vae.New(checkpoint{src}, models.VAEPrefix, b.VAE),
		schedule: diffusion.NewSchedule(b.Timesteps, b.BetaStart, b.BetaEnd),
		coders:   map[coderKey]*compiled{}, denoisers: map[denoiserKey]*denoiser{}, stages: map[int]*stage{}}
	if m.unet, err = diffusion.NewUNet(checkpoint{src}, models.UNetPrefix, b.UNet, b.LatentChannels); err != nil {
		src.Close()
		return nil, fmt.Errorf("load model %q: %w", b.Name, err)
	}
	return m, nil
}

// Device is what the model runs on.
func (m *Model) Device() device.Device { return m.dev }

// Fields fits and draws fields: on the device where that can, else on the processor.
func (m *Model) Fields() field.Engine {
	if d, ok := m.dev.(interface{ Fields() field.Engine }); ok {
		return d.Fields()
	}
	return field.CPU{}
}

// Schedule is the model's noise schedule.
func (m *Model) Schedule() *diffusion.Schedule { return m.schedule }

// Lens is the camera lens of the model's pictures.
func (m *Model) Lens() camera.Lens {
	return camera.Lens{FOV: m.Bundle.Camera.FOV, Distance: m.Bundle.Camera.Distance}
}

// Close frees the model's memory on the device; the device stays open.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	if m.text != nil {
		m.text.Close()
	}
	if m.prompts != nil {
		m.prompts.free()
	}
	if m.encodeGrad != nil {
		m.encodeGrad.free()
	}
	for _, p := range m.coders {
		p.free()
	}
	for _, d := range m.denoisers {
		d.free()
	}
	for _, s := range m.stages {
		s.free()
	}
	return m.source.Close()
}

var errClosed = errors.New("the model is closed")

// Encode turns n images (n, H, W, 3) in [0, 1] into latents: the means of the
// coder, scaled.
func (m *Model) Encode(images []float32, n int) ([]float32, error) {
	d, size, z := m.Bundle, m.Bundle.ImageSize, m.Bundle.LatentChannels
	if n < 1 || len(images) != n*size*size*3 {
		return nil, fmt.Errorf("encode %d images of %d×%d: got %d numbers", n, size, size, len(images))
	}
	x := make([]float32, len(images))
	for i, v := range images {
		x[i] = 2*v - 1
	}
	moments, err := m.code(coderKey{true, n}, x)
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(moments)/2)
	for i := range out {
		out[i] = moments[i/z*2*z+i%z] * float32(d.ScaleFactor)
	}
	return out, nil
}

// EncodeGradient is Encode and, for grad, the gradient of something with respect
// to the latents, that with respect to the images.
func (m *Model) EncodeGradient(images, grad []float32, n int) (latents, imageGrad []float32, err error) {
	d, size, z := m.Bundle, m.Bundle.ImageSize, m.Bundle.LatentChannels
	s := d.LatentSize()
	if n < 1 || len(images) != n*size*size*3 || len(grad) != n*s*s*z {
		return nil, nil, fmt.Errorf("differentiate the encoder for %d images of %d×%d: got %d and %d numbers", n, size, size, len(images), len(grad))
	}
	x, g := make([]float32, len(images)), make([]float32, 2*len(grad))
	for i, v := range images {
		x[i] = 2*v - 1
	}
	f := float32(d.ScaleFactor)
	for i, v := range grad {
		g[i/z*2*z+i%z] = v * f
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, errClosed
	}
	if m.encodeGrad != nil && m.encodeGrad.in[0].Shape().N != n {
		m.encodeGrad.free()
		m.encodeGrad = nil
	}
	if m.encodeGrad == nil {
		image, moments := device.Shape{N: n, H: size, W: size, C: 3}, device.Shape{N: n, H: s, W: s, C: 2 * d.VAE.ZChannels}
		m.encodeGrad, err = m.compile("encoder's gradient", []device.Shape{image, moments}, []device.Shape{moments, image}, device.Full,
			func(p *device.Program, in, out []device.Tensor) error {
				return m.vae.EncodeGrad(p, in[0], out[0], in[1], out[1])
			})
		if err != nil {
			return nil, nil, err
		}
	}
	out, err := m.encodeGrad.run(x, g)
	if err != nil {
		return nil, nil, err
	}
	imageGrad = make([]float32, len(images))
	if err := m.encodeGrad.out[1].Read(imageGrad); err != nil {
		return nil, nil, err
	}
	for i := range imageGrad {
		imageGrad[i] *= 2
	}
	latents = make([]float32, len(grad))
	for i := range latents {
		latents[i] = out[i/z*2*z+i%z] * f
	}
	return latents, imageGrad, nil
}

// Decode turns latents of n images into images (n, H, W, 3), clamped to [0, 1].
func (m *Model) Decode(latents []float32, n int) ([]float32, error) {
	x, err := m.DecodeWhole(latents, n)
	for i, v := range x {
		x[i] = min(max((v+1)/2, 0), 1)
	}
	return x, err
}

// DecodeWhole is Decode without the clamping: images around [-1, 1].
func (m *Model) DecodeWhole(latents []float32, n int) ([]float32, error) {
	s := m.Bundle.LatentSize()
	if n < 1 || len(latents) != n*s*s*m.Bundle.LatentChannels {
		return nil, fmt.Errorf("decode %d latents of %d×%d: got %d numbers", n, s, s, len(latents))
	}
	z := make([]float32, len(latents))
	for i, v := range latents {
		z[i] = v / float32(m.Bundle.ScaleFactor)
	}
	return m.code(coderKey{false, n}, z)
}

// code runs one half of the image coder.
func (m *Model) code(k coderKey, x []float32) ([]float32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if m.coders[k] == nil {
		size, small := m.Bundle.ImageSize, m.Bundle.LatentSize()
		image := device.Shape{N: k.images, H: size, W: size, C: 3}
		name, in, out, record := "decoder", device.Shape{N: k.images, H: small, W: small, C: m.Bundle.LatentChannels}, image, m.vae.Decode
		if k.encode {
			name, in, record = "encoder", image, m.vae.Encode
			out = device.Shape{N: k.images, H: small, W: small, C: 2 * m.Bundle.VAE.ZChannels}
		}
		p, err := m.compile(name, []device.Shape{in}, []device.Shape{out}, device.Full,
			func(p *device.Program, in, out []device.Tensor) error { return record(p, in[0], out[0]) })
		if err != nil {
			return nil, err
		}
		m.coders[k] = p
	}
	return m.coders[k].run(x)
}

// Noise is the initial latent noise of n views for a seed. Several draws of one
// seed differ by call. The order of the numbers is upstream's, (n, Z, h, w).
func (m *Model) Noise(seed uint64, call uint32, n int) []float32 {
	s, z := m.Bundle.LatentSize(), m.Bundle.LatentChannels
	x, y := make([]float32, n*s*s*z), make([]float32, n*s*s*z)
	tensor.Normal(x, seed, call)
	tensor.ToLast(y, x, n, z, s*s)
	return y
}
