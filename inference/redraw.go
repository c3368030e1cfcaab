package inference

import (
	"context"
	"fmt"

	"dreamcad/inference/camera"
	"dreamcad/inference/distill"
	"dreamcad/inference/field"
)

// Redrawer gives the mesh stage its denoiser for one prompt.
func (m *Model) Redrawer(p *Prompt, guidance float64) distill.Denoiser {
	return &redrawer{m, p, guidance}
}

type redrawer struct {
	m        *Model
	prompt   *Prompt
	guidance float64
}

// redrawCall keeps the noise of redraws apart from that of the first pictures.
const redrawCall = 1

// Redraw implements distill.Denoiser: encode, noise to the timestep, denoise from
// there.
func (r *redrawer) Redraw(images []field.Image, cameras []field.Camera, timestep, stride int, seed uint64) (distill.Redrawing, error) {
	m, size := r.m, r.m.Bundle.ImageSize
	if len(images) != len(cameras) {
		return nil, fmt.Errorf("redraw %d pictures from %d cameras", len(images), len(cameras))
	}
	if timestep < 1 || timestep >= m.schedule.Len() {
		return nil, fmt.Errorf("redraw from timestep %d: outside 1 to %d", timestep, m.schedule.Len()-1)
	}
	var pixels []float32
	var cams []camera.Camera
	for i, im := range images {
		if im.Size != size {
			return nil, fmt.Errorf("redraw a picture of %d pixels with a model of %d", im.Size, size)
		}
		pixels = append(pixels, im.Pix...)
		cams = append(cams, cameras[i].Camera)
	}
	x, err := m.Encode(pixels, len(images))
	if err != nil {
		return nil, err
	}
	x = m.schedule.AddNoise(x, m.Noise(seed, redrawCall, len(images)), timestep)
	run, err := m.Denoise(DenoiseOptions{Prompt: r.prompt, Cameras: cams, Guidance: r.guidance, From: timestep, Stride: stride, Latents: x})
	if err != nil {
		return nil, err
	}
	return &redrawing{run, len(images)}, nil
}

type redrawing struct {
	run *Denoising
	n   int
}

// Step implements distill.Redrawing.
func (r *redrawing) Step(ctx context.Context) (bool, error) {
	err := r.run.Next(ctx)
	return r.run.Done() == r.run.Len(), err
}

// Steps implements distill.Redrawing.
func (r *redrawing) Steps() int { return r.run.Len() }

// Images implements distill.Redrawing.
func (r *redrawing) Images() ([]field.Image, error) {
	x, err := r.run.Latents()
	if err != nil {
		return nil, err
	}
	pixels, err := r.run.m.Decode(x, r.n)
	if err != nil {
		return nil, err
	}
	return split(pixels, r.run.m.Bundle.ImageSize), nil
}
