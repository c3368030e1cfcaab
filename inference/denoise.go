package inference

import (
	"context"
	"fmt"

	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/diffusion"
)

// denoiser is the compiled DDIM step: noise prediction for both halves of the
// guided batch, then the update, in place on the latents.
type denoiser struct {
	views               int
	x, emb, kv, weights device.Buffer
	exec                device.Exec
	owner               *Denoising // whose latents and keys the buffers hold
}

func (d *denoiser) free() {
	if d.exec != nil {
		d.exec.Free()
	}
	for _, b := range []device.Buffer{d.x, d.emb, d.kv, d.weights} {
		if b != nil {
			b.Free()
		}
	}
}

func (m *Model) newDenoiser(views int, guided bool) (*denoiser, error) {
	size, halves := m.Bundle.LatentSize(), 1
	if guided {
		halves = 2
	}
	d := &denoiser{views: views}
	err := func() (err error) {
		buffer := func(b *device.Buffer, n, h, w, c int, p device.Precision) {
			if err == nil {
				*b, err = m.dev.NewBuffer(device.Shape{N: n, H: h, W: w, C: c}, p)
			}
		}
		buffer(&d.x, views, size, size, m.Bundle.LatentChannels, device.Full)
		buffer(&d.emb, halves*views, 1, 1, m.unet.EmbedWidth(), device.Working)
		buffer(&d.kv, halves, 1, m.Bundle.Text.ContextLength, m.unet.KeysWidth(), device.Working)
		buffer(&d.weights, views, 1, 1, 4, device.Full)
		if err != nil {
			return err
		}
		p := device.NewProgram("denoising step")
		x := p.Bind(d.x)
		eps := p.New(halves*views, size, size, x.C)
		if err := m.unet.Forward(p, x, p.Bind(d.emb), p.Bind(d.kv), views, eps); err != nil {
			return err
		}
		p.Add(&device.Combine{Terms: [4]device.Tensor{x, eps.Images(0, views), eps.Images((halves-1)*views, views)}, Coef: p.Bind(d.weights), Out: x})
		d.exec, err = m.dev.Compile(p)
		return err
	}()
	if err != nil {
		d.free()
		return nil, fmt.Errorf("prepare the denoiser of model %q: %w", m.Bundle.Name, err)
	}
	return d, nil
}

// DenoiseOptions say from where to where. The zero values of From and Stride
// mean a whole run of Steps steps from pure noise.
type DenoiseOptions struct {
	Prompt   *Prompt
	Cameras  []camera.Camera
	Guidance float64 // 1 leaves the negative prompt out
	Steps    int     // of a whole run
	From     int     // timestep at which Latents already are, else 0
	Stride   int     // timesteps a step, with From
	Latents  []float32
}

// Denoising is a run of DDIM steps that can be taken one at a time; runs may
// alternate on one model.
type Denoising struct {
	m        *Model
	steps    []diffusion.Step
	next     int
	guidance float64
	prompt   *Prompt
	table    [][]float32 // embeddings of each step
	x        []float32   // the latents, unless the device holds them
	on       *denoiser
}

// Denoise starts a run from o.Latents (views, h, w, Z): noise, or noised latents.
func (m *Model) Denoise(o DenoiseOptions) (*Denoising, error) {
	s := m.Bundle.LatentSize()
	if want := len(o.Cameras) * s * s * m.Bundle.LatentChannels; len(o.Cameras) == 0 || len(o.Latents) != want {
		return nil, fmt.Errorf("denoise %d views: %d latent numbers, not %d", len(o.Cameras), len(o.Latents), want)
	}
	d := &Denoising{m: m, guidance: o.Guidance, prompt: o.Prompt, x: append([]float32(nil), o.Latents...)}
	var err error
	if o.From != 0 {
		d.steps, err = m.schedule.StepsFrom(o.From, o.Stride)
	} else {
		d.steps, err = m.schedule.Steps(o.Steps)
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	guided := o.Guidance != 1
	if p := m.denoiser[guided]; p != nil && p.views != len(o.Cameras) {
		if p.owner != nil {
			if err := p.owner.leave(); err != nil {
				return nil, err
			}
		}
		p.free()
		delete(m.denoiser, guided)
	}
	if m.denoiser[guided] == nil {
		if m.denoiser[guided], err = m.newDenoiser(len(o.Cameras), guided); err != nil {
			return nil, err
		}
	}
	d.table, err = m.embeddings(d.steps, o.Cameras)
	return d, err
}

// Len is the number of steps of the run, Done how many were taken.
func (d *Denoising) Len() int { return len(d.steps) }

// Done is the number of steps taken.
func (d *Denoising) Done() int { return d.next }

// leave brings the latents back to the host.
func (d *Denoising) leave() error {
	if d.on == nil {
		return nil
	}
	err := d.on.x.Read(d.x)
	d.on.owner, d.on = nil, nil
	return err
}

// enter puts the run's latents and keys on the device, in place of another's.
func (d *Denoising) enter(p *denoiser) error {
	if p.owner == d {
		return nil
	}
	if p.owner != nil {
		if err := p.owner.leave(); err != nil {
			return err
		}
	}
	keys := d.prompt.keys
	if n := p.kv.Shape().Len(); n < len(keys) {
		keys = keys[len(keys)-n:] // without guidance, the prompt only
	}
	if err := p.kv.Write(keys); err != nil {
		return err
	}
	if err := p.x.Write(d.x); err != nil {
		return err
	}
	p.owner, d.on = d, p
	return nil
}

// Next takes one step; it does nothing after the last.
func (d *Denoising) Next(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if d.next == len(d.steps) {
		return nil
	}
	m := d.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	guided := d.guidance != 1
	p := m.denoiser[guided]
	views := len(d.x) / (m.Bundle.LatentSize() * m.Bundle.LatentSize() * m.Bundle.LatentChannels)
	if p == nil || p.views != views { // another run changed the number of views
		var err error
		if p != nil {
			if p.owner != nil {
				if err := p.owner.leave(); err != nil {
					return err
				}
			}
			p.free()
			delete(m.denoiser, guided)
		}
		if p, err = m.newDenoiser(views, guided); err != nil {
			return err
		}
		m.denoiser[guided] = p
	}
	if err := d.enter(p); err != nil {
		return err
	}
	s := d.steps[d.next]
	emb := d.table[d.next]
	c := make([]float32, 0, 4*views)
	for range views {
		if guided {
			// x' = X·x + Eps·(u + g·(c - u))
			c = append(c, float32(s.X), float32(s.Eps*(1-d.guidance)), float32(s.Eps*d.guidance), 0)
		} else {
			c = append(c, float32(s.X), float32(s.Eps), 0, 0)
		}
	}
	if guided {
		emb = append(append(make([]float32, 0, 2*len(emb)), emb...), emb...)
	}
	if err := p.emb.Write(emb); err != nil {
		return err
	}
	if err := p.weights.Write(c); err != nil {
		return err
	}
	if err := p.exec.Run(); err != nil {
		return err
	}
	d.next++
	return nil
}

// Latents are the present state, (views, h, w, Z).
func (d *Denoising) Latents() ([]float32, error) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.on != nil && !d.m.closed {
		if err := d.leave(); err != nil {
			return nil, err
		}
	}
	return append([]float32(nil), d.x...), nil
}

// Run takes all remaining steps; progress, which may be nil, is called after each.
func (d *Denoising) Run(ctx context.Context, progress func(step, total int)) ([]float32, error) {
	for d.next < len(d.steps) {
		if err := d.Next(ctx); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(d.next, len(d.steps))
		}
	}
	return d.Latents()
}
