package inference

import (
	"context"
	"fmt"
	"slices"

	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/diffusion"
)

// denoiserKey tells compiled steps apart.
type denoiserKey struct {
	views  int // of a run
	guided bool
	runs   int // that step together
}

// denoiser is the compiled DDIM step of some runs at once: noise prediction for
// both halves of the guided batch, then the update, in place on the latents. Run i
// has views i·views… of the latents and the i-th keys of each half.
type denoiser struct {
	key                 denoiserKey
	x, emb, kv, weights device.Buffer
	exec                device.Exec
	seats               []*Denoising // whose latents and keys the buffers hold; nil: nobody's
}

func (p *denoiser) free() {
	if p.exec != nil {
		p.exec.Free()
	}
	for _, b := range []device.Buffer{p.x, p.emb, p.kv, p.weights} {
		if b != nil {
			b.Free()
		}
	}
}

// halves is 2 with guidance: negative prompt and prompt.
func (k denoiserKey) halves() int {
	if k.guided {
		return 2
	}
	return 1
}

// denoiserOf finds or compiles a step.
func (m *Model) denoiserOf(k denoiserKey) (*denoiser, error) {
	if d := m.denoisers[k]; d != nil {
		return d, nil
	}
	size, halves, images := m.Bundle.LatentSize(), k.halves(), k.runs*k.views
	d := &denoiser{key: k, seats: make([]*Denoising, k.runs)}
	err := func() (err error) {
		buffer := func(b *device.Buffer, n, h, w, c int, p device.Precision) {
			if err == nil {
				*b, err = m.dev.NewBuffer(device.Shape{N: n, H: h, W: w, C: c}, p)
			}
		}
		buffer(&d.x, images, size, size, m.Bundle.LatentChannels, device.Full)
		buffer(&d.emb, halves*images, 1, 1, m.unet.EmbedWidth(), device.Working)
		buffer(&d.kv, halves*k.runs, 1, m.Bundle.Text.ContextLength, m.unet.KeysWidth(), device.Working)
		buffer(&d.weights, images, 1, 1, 4, device.Full)
		if err != nil {
			return err
		}
		p := device.NewProgram("denoising step")
		x := p.Bind(d.x)
		eps := p.New(halves*images, size, size, x.C)
		if err := m.unet.Forward(p, x, p.Bind(d.emb), p.Bind(d.kv), k.views, eps); err != nil {
			return err
		}
		p.Add(&device.Combine{Terms: [4]device.Tensor{x, eps.Images(0, images), eps.Images((halves-1)*images, images)}, Coef: p.Bind(d.weights), Out: x})
		d.exec, err = m.dev.Compile(p)
		return err
	}()
	if err != nil {
		d.free()
		return nil, fmt.Errorf("prepare the denoiser of model %q for %d images: %w", m.Bundle.Name, images, err)
	}
	m.denoisers[k] = d
	return d, nil
}

// stage is what runs of so many views need beside their seats: the way of one run's
// latents between host and seats, and the embeddings of some steps.
type stage struct {
	x          device.Buffer
	embeddings *recent
}

func (s *stage) free() {
	if s.x != nil {
		s.x.Free()
	}
	if s.embeddings != nil {
		s.embeddings.free()
	}
}

func (m *Model) stageOf(views int) (*stage, error) {
	if s := m.stages[views]; s != nil {
		return s, nil
	}
	s, size := &stage{}, m.Bundle.LatentSize()
	var err error
	if s.x, err = m.dev.NewBuffer(device.Shape{N: views, H: size, W: size, C: m.Bundle.LatentChannels}, device.Full); err == nil {
		s.embeddings, err = m.newEmbeddings(views)
	}
	if err != nil {
		s.free()
		return nil, err
	}
	m.stages[views] = s
	return s, nil
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
// alternate on one model, or step together (see [Model.Ahead]).
type Denoising struct {
	m        *Model
	views    int
	steps    []diffusion.Step
	next     int
	ahead    bool // the device has taken step next already
	guidance float64
	prompt   *Prompt
	cams     []camera.Camera
	windows  []string  // names of the embeddings of each window of steps
	x        []float32 // the latents, unless the device holds them
	on       *denoiser
	seat     int
}

// Denoise starts a run from o.Latents (views, h, w, Z): noise, or noised latents.
func (m *Model) Denoise(o DenoiseOptions) (*Denoising, error) {
	s := m.Bundle.LatentSize()
	if want := len(o.Cameras) * s * s * m.Bundle.LatentChannels; len(o.Cameras) == 0 || len(o.Latents) != want {
		return nil, fmt.Errorf("denoise %d views: %d latent numbers, not %d", len(o.Cameras), len(o.Latents), want)
	}
	d := &Denoising{m: m, views: len(o.Cameras), guidance: o.Guidance, prompt: o.Prompt,
		cams: slices.Clone(o.Cameras), x: slices.Clone(o.Latents)}
	var err error
	if o.From != 0 {
		d.steps, err = m.schedule.StepsFrom(o.From, o.Stride)
	} else {
		d.steps, err = m.schedule.Steps(o.Steps)
	}
	if err != nil {
		return nil, err
	}
	for w := range slices.Chunk(d.steps, window) {
		d.windows = append(d.windows, windowName(w, d.cams))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if _, err := m.denoiserOf(d.key(1)); err != nil {
		return nil, err
	}
	if _, err := m.stageOf(d.views); err != nil {
		return nil, err
	}
	return d, nil
}

// key is that of the step that the run takes together with others, runs in all.
func (d *Denoising) key(runs int) denoiserKey {
	return denoiserKey{views: d.views, guided: d.guidance != 1, runs: runs}
}

// Len is the number of steps of the run, Done how many were taken.
func (d *Denoising) Len() int { return len(d.steps) }

// Done is the number of steps taken.
func (d *Denoising) Done() int { return d.next }

// leave brings the latents back to the host and frees the seat.
func (d *Denoising) leave() error {
	if d.on == nil {
		return nil
	}
	s, err := d.m.stageOf(d.views)
	if err != nil {
		return err
	}
	if err := s.x.Copy(0, d.on.x, d.seat*d.views, d.views); err != nil {
		return err
	}
	err = s.x.Read(d.x)
	d.on.seats[d.seat], d.on = nil, nil
	return err
}

// enter puts the run's latents and keys into a free seat.
func (d *Denoising) enter(p *denoiser, seat int) error {
	x, from := device.Buffer(nil), 0
	if d.on != nil {
		x, from = d.on.x, d.seat*d.views
	} else {
		s, err := d.m.stageOf(d.views)
		if err != nil {
			return err
		}
		if err := s.x.Write(d.x); err != nil {
			return err
		}
		x = s.x
	}
	if err := p.x.Copy(seat*d.views, x, from, d.views); err != nil {
		return err
	}
	halves := p.key.halves()
	for half, text := range d.prompt.texts[2-halves:] {
		kv, row := device.Buffer(nil), 0
		if d.on != nil {
			kv, row = d.on.kv, half*d.on.key.runs+d.seat
		} else {
			var err error
			if row, err = d.m.keys(text); err != nil {
				return err
			}
			kv = d.m.prompts.kept
		}
		if err := p.kv.Copy(half*p.key.runs+seat, kv, row, 1); err != nil {
			return err
		}
	}
	if d.on != nil {
		d.on.seats[d.seat] = nil
	}
	p.seats[seat], d.on, d.seat = d, p, seat
	return nil
}

// seatAll makes the runs those that sit at p, which has a seat for each.
func (p *denoiser) seatAll(runs []*Denoising) error {
	wanted := map[*Denoising]bool{}
	for _, d := range runs {
		wanted[d] = true
	}
	for _, d := range p.seats {
		if d != nil && !wanted[d] {
			if err := d.leave(); err != nil {
				return err
			}
		}
	}
	seat := 0
	for _, d := range runs {
		if d.on == p {
			continue
		}
		for p.seats[seat] != nil {
			seat++
		}
		if err := d.enter(p, seat); err != nil {
			return err
		}
	}
	return nil
}

// step takes the next step of every run at p.
func (p *denoiser) step() error {
	var c []float32
	for seat, d := range p.seats {
		if err := d.embed(p, seat); err != nil {
			return err
		}
		s := d.steps[d.next]
		for range d.views {
			if p.key.guided {
				// x' = X·x + Eps·(u + g·(c - u))
				c = append(c, float32(s.X), float32(s.Eps*(1-d.guidance)), float32(s.Eps*d.guidance), 0)
			} else {
				c = append(c, float32(s.X), float32(s.Eps), 0, 0)
			}
		}
	}
	if err := p.weights.Write(c); err != nil {
		return err
	}
	return p.exec.Run()
}

// embed gives a seat the embeddings of the run's next step.
func (d *Denoising) embed(p *denoiser, seat int) error {
	s, err := d.m.stageOf(d.views)
	if err != nil {
		return err
	}
	at, err := d.m.embeddings(s.embeddings, d)
	if err != nil {
		return err
	}
	for half := range p.key.halves() {
		if err := p.emb.Copy((half*p.key.runs+seat)*d.views, s.embeddings.kept, at, d.views); err != nil {
			return err
		}
	}
	return nil
}

// stepTogether takes the next step of runs of one key in one call of the UNet.
func (m *Model) stepTogether(runs []*Denoising) error {
	p, err := m.denoiserOf(runs[0].key(len(runs)))
	if err != nil {
		return err
	}
	if err := p.seatAll(runs); err != nil {
		return err
	}
	if err := p.step(); err != nil {
		return err
	}
	// A step ends when the card has made it: progress, cancelling, the rests that spare a hot card and jobs that join would
	// all come too late if fifty steps were queued at once.
	return device.Wait(m.dev)
}

// Ahead takes the next steps of several runs of this model, those of the same
// number of views in one call of the UNet. The Next of each run then finds its
// step taken. After an error the steps that were not taken are left to Next.
func (m *Model) Ahead(runs []*Denoising) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	groups := map[denoiserKey][]*Denoising{}
	for _, d := range runs {
		if d.m != m {
			return fmt.Errorf("step together: a run belongs to another model than %q", m.Bundle.Name)
		}
		if !d.ahead && d.next < len(d.steps) {
			groups[d.key(0)] = append(groups[d.key(0)], d)
		}
	}
	for _, g := range groups {
		if err := m.stepTogether(g); err != nil {
			return err
		}
		for _, d := range g {
			d.ahead = true
		}
	}
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
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.m.closed {
		return errClosed
	}
	if !d.ahead {
		if err := d.m.stepTogether([]*Denoising{d}); err != nil {
			return err
		}
	}
	d.ahead = false
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
