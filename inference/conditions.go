package inference

import (
	"fmt"
	"slices"

	"dreamcad/inference/camera"
	"dreamcad/inference/device"
	"dreamcad/inference/diffusion"
	"dreamcad/inference/models"
	"dreamcad/inference/text"
)

// What the denoiser is conditioned on is made on the device and stays there: keys and
// values of texts, embeddings of timesteps and cameras. It is kept for the jobs that
// ask for the same, as most do for the negative prompt and for the cameras.
const (
	keptPrompts = 10 // texts
	keptWindows = 16 // for each number of views
	window      = 10 // steps of a run whose embeddings are computed at once
)

// keptElements is the size of all that is kept for runs of so many views.
func (m *Model) keptElements(views int) int {
	return (keptPrompts+1)*m.keysShape().Len() + (keptWindows+1)*m.embeddingsShape(views).Len()
}

// keysShape is that of the keys and values of one text.
func (m *Model) keysShape() device.Shape {
	return device.Shape{N: 1, H: 1, W: m.Bundle.Text.ContextLength, C: m.unet.KeysWidth()}
}

// embeddingsShape is that of one window, step by step and view by view.
func (m *Model) embeddingsShape(views int) device.Shape {
	return device.Shape{N: window * views, H: 1, W: 1, C: m.unet.EmbedWidth()}
}

// Prompt is a prompt and its negative. The model has the keys and values that they
// give every cross-attention at hand, for the latest prompts.
type Prompt struct {
	Cut   int       // tokens of the prompt beyond the context, which were lost
	texts [2]string // negative, prompt
}

// Prompt encodes a prompt and its negative. A card may still be at it afterwards.
func (m *Model) Prompt(prompt, negative string) (*Prompt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	_, cut := m.tok.Context(prompt)
	p := &Prompt{Cut: cut, texts: [2]string{negative, prompt}}
	for _, t := range p.texts {
		if _, err := m.keys(t); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// keys is the image of m.prompts.kept that holds a text's keys and values.
func (m *Model) keys(of string) (int, error) {
	if err := m.openPrompts(); err != nil {
		return 0, err
	}
	return m.prompts.at(of, func() error {
		ids, _ := m.tok.Context(of)
		if err := m.text.Encode(ids); err != nil {
			return err
		}
		return m.prompts.start()
	})
}

func (m *Model) openPrompts() (err error) {
	if m.text == nil {
		if m.text, err = text.New(m.dev, checkpoint{m.source}, models.TextPrefix, m.Bundle.Text, 1); err != nil {
			return fmt.Errorf("prepare the text encoder of model %q: %w", m.Bundle.Name, err)
		}
	}
	if m.prompts != nil {
		return nil
	}
	p, err := m.compile("cross-attention", nil, []device.Shape{m.keysShape()}, device.Working,
		func(p *device.Program, _, out []device.Tensor) error {
			return m.unet.Keys(p, p.Bind(m.text.Context()), out[0])
		})
	if err == nil {
		m.prompts, err = m.keep(p, keptPrompts)
	}
	return err
}

// newEmbeddings prepares the time and camera embeddings of runs of so many views.
func (m *Model) newEmbeddings(views int) (*recent, error) {
	sinus := device.Shape{N: window * views, H: 1, W: 1, C: m.Bundle.UNet.ModelChannels}
	matrices := sinus
	matrices.C = m.Bundle.UNet.CameraDim
	p, err := m.compile("embedding", []device.Shape{sinus, matrices}, []device.Shape{m.embeddingsShape(views)}, device.Working,
		func(p *device.Program, in, out []device.Tensor) error { return m.unet.Embed(p, in[0], in[1], out[0]) })
	if err != nil {
		return nil, err
	}
	return m.keep(p, keptWindows)
}

// windowName tells windows of steps and their cameras apart.
func windowName(steps []diffusion.Step, cams []camera.Camera) string {
	ts := make([]int, len(steps))
	for i, s := range steps {
		ts[i] = s.T
	}
	return fmt.Sprint(ts, cams)
}

// embeddings is the first of the images of r.kept that hold the embeddings of the
// views of a run at its next step.
func (m *Model) embeddings(r *recent, d *Denoising) (int, error) {
	w := d.next / window
	at, err := r.at(d.windows[w], func() error {
		var sinus []float32
		for i := range window { // behind the end the last step again
			s := m.unet.Sinusoid(float64(d.steps[min(w*window+i, len(d.steps)-1)].T))
			for range d.views {
				sinus = append(sinus, s...)
			}
		}
		return r.start(sinus, slices.Repeat(camera.Matrices(d.cams), window))
	})
	return at + d.next%window*d.views, err
}
