// Package text is the text encoder of CLIP-guided diffusion models: a causal
// transformer over token ids (mlfoundations/open_clip, open_clip/transformer.py).
//
// Letters: P prompts, T tokens of a context, C width.
package text

import (
	"fmt"
	"math"

	"dreamcad/inference/device"
	"dreamcad/inference/models"
)

const eps = 1e-5

// Encoder turns ids into the context that the UNet attends to.
type Encoder struct {
	cfg       models.Text
	dev       device.Device
	src       device.Weights
	prefix    string
	positions []float32 // (T, C)
	in, out   device.Buffer
	exec      device.Exec
}

// New loads the encoder for batches of prompts; prefix is put before its keys.
func New(dev device.Device, src device.Weights, prefix string, cfg models.Text, prompts int) (*Encoder, error) {
	l := device.NewLoader(src, prefix)
	e := &Encoder{cfg: cfg, dev: dev, src: src, prefix: prefix}
	c, t := cfg.Width, cfg.ContextLength
	l.Param("token_embedding.weight", cfg.Vocab, c)
	pos := l.Param("positional_embedding", t, c)
	if err := l.Err(); err != nil {
		return nil, err
	}
	e.positions = make([]float32, t*c)
	if err := pos.Load(e.positions); err != nil {
		return nil, err
	}
	var err error
	if e.in, err = dev.NewBuffer(device.Shape{N: prompts, H: 1, W: t, C: c}, device.Full); err != nil {
		return nil, err
	}
	if e.out, err = dev.NewBuffer(device.Shape{N: prompts, H: 1, W: t, C: c}, device.Working); err != nil {
		return nil, err
	}
	p := device.NewProgram("text encoder")
	x := p.New(prompts, 1, t, c)
	p.Add(&device.Elementwise{In: p.Bind(e.in), Out: x})
	for i := range cfg.LayersUsed {
		block(p, l.In(fmt.Sprintf("transformer.resblocks.%d.", i)), x, cfg.Heads)
	}
	p.Add(&device.LayerNorm{In: x, Out: p.Bind(e.out), Gamma: l.Param("ln_final.weight", c), Beta: l.Param("ln_final.bias", c), Eps: eps})
	if err := l.Err(); err != nil {
		return nil, err
	}
	if e.exec, err = dev.Compile(p); err != nil {
		e.in.Free()
		e.out.Free()
		return nil, err
	}
	return e, nil
}

// block is one pre-norm transformer layer, in place on x (P, 1, T, C).
func block(p *device.Program, l *device.Loader, x device.Tensor, heads int) {
	c := x.C
	y := p.Like(x, c)
	qkv := p.Like(x, 3*c)
	a := p.Like(x, c)
	h := p.Like(x, 4*c)
	p.Add(&device.LayerNorm{In: x, Out: y, Gamma: l.Param("ln_1.weight", c), Beta: l.Param("ln_1.bias", c), Eps: eps})
	p.Add(&device.Linear{In: y, Out: qkv, Weight: l.Param("attn.in_proj_weight", 3*c, c), Bias: l.Param("attn.in_proj_bias", 3*c)})
	p.Add(&device.Attention{Q: qkv.Channels(0, c), K: qkv.Channels(c, c), V: qkv.Channels(2*c, c), Out: a,
		Heads: heads, Scale: float32(1 / math.Sqrt(float64(c/heads))), Causal: true})
	p.Add(&device.Linear{In: a, Out: x, Residual: x, Weight: l.Param("attn.out_proj.weight", c, c), Bias: l.Param("attn.out_proj.bias", c)})
	z := p.Like(x, c)
	p.Add(&device.LayerNorm{In: x, Out: z, Gamma: l.Param("ln_2.weight", c), Beta: l.Param("ln_2.bias", c), Eps: eps})
	p.Add(&device.Linear{In: z, Out: h, Weight: l.Param("mlp.c_fc.weight", 4*c, c), Bias: l.Param("mlp.c_fc.bias", 4*c), Act: device.GELU})
	p.Add(&device.Linear{In: h, Out: x, Residual: x, Weight: l.Param("mlp.c_proj.weight", c, 4*c), Bias: l.Param("mlp.c_proj.bias", c)})
}

// Context is where Encode leaves its result: (P, 1, T, C).
func (e *Encoder) Context() device.Buffer { return e.out }

// Exec is the compiled encoder, which repeats the last Encode when it runs.
func (e *Encoder) Exec() device.Exec { return e.exec }

// Encode runs the encoder on one context of ids a prompt.
func (e *Encoder) Encode(ids ...[]int32) error {
	s := e.in.Shape()
	if len(ids) != s.N {
		return fmt.Errorf("encode text: %d prompts, not %d", len(ids), s.N)
	}
	x := make([]float32, s.Len())
	for p, context := range ids {
		if len(context) != s.W {
			return fmt.Errorf("encode text: %d tokens, not %d", len(context), s.W)
		}
		for i, id := range context {
			if id < 0 || int(id) >= e.cfg.Vocab {
				return fmt.Errorf("encode text: token %d is outside the vocabulary of %d", id, e.cfg.Vocab)
			}
			row := x[(p*s.W+i)*s.C:][:s.C]
			if err := e.src.Float32(e.prefix+"token_embedding.weight", int(id)*s.C, row); err != nil {
				return err
			}
			for c := range row {
				row[c] += e.positions[i*s.C+c]
			}
		}
	}
	if err := e.in.Write(x); err != nil {
		return err
	}
	return e.exec.Run()
}

// Close frees the encoder's memory on the device.
func (e *Encoder) Close() {
	e.exec.Free()
	e.in.Free()
	e.out.Free()
}
