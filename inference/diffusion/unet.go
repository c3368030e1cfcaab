// Package diffusion is the multi-view denoiser and what drives it: the UNet of
// MVDream (bytedance/MVDream, ldm/modules/diffusionmodules/openaimodel.py), the
// noise schedule, DDIM and guidance.
//
// Letters: N images of a batch (views of an object are consecutive), F views of
// an object, L latent pixels of a view, T tokens of a prompt, C channels.
package diffusion

import (
	"fmt"
	"math"

	"dreamcad/inference/device"
	"dreamcad/inference/models"
)

const (
	resEps         = 1e-5 // group norms of residual blocks and of the output
	transformerEps = 1e-6 // group norms before transformers
	layerEps       = 1e-5
)

// UNet holds the weights as Params; programs recorded from one UNet share what
// the device made of them.
type UNet struct {
	cfg    models.UNet
	latent int // channels
	l      *device.Loader

	input, output []stage
	middle        [2]*res
	middleAttn    *transformer

	embed    *device.Param // all emb_layers.1.weight stacked: (ΣC, 4·model_channels)
	embBias  *device.Param
	keys     *device.Param // all attn2 to_k and to_v stacked: (ΣKV, context_dim)
	embWidth int           // ΣC
	kvWidth  int           // ΣKV
}

// stage is one entry of input_blocks or output_blocks.
type stage struct {
	conv     string // key of a lone convolution at the start (input_blocks.0.0, *.op)
	down     bool
	res      *res
	attn     *transformer
	up       string // key of the convolution after doubling
	channels int    // of the result
	scale    int    // 1/scale of the latent size is the result's, before up
}

// res is a residual block; its part of the embeddings starts at channel emb.
type res struct {
	l            *device.Loader
	in, out, emb int
}

// transformer is a spatial transformer; its keys start at channel kv of the
// cached ones, its values right behind.
type transformer struct {
	l     *device.Loader
	c, kv int
}

// NewUNet reads keys that start with prefix.
func NewUNet(src device.Weights, prefix string, cfg models.UNet, latentChannels int) (*UNet, error) {
	u := &UNet{cfg: cfg, latent: latentChannels, l: device.NewLoader(src, prefix)}
	var embW, embB, kv []*device.Param
	newRes := func(l *device.Loader, in, out int) *res {
		r := &res{l, in, out, u.embWidth}
		embW = append(embW, l.Param("emb_layers.1.weight", out, cfg.TimeDim()))
		embB = append(embB, l.Param("emb_layers.1.bias", out))
		u.embWidth += out
		return r
	}
	newAttn := func(l *device.Loader, c int) *transformer {
		t := &transformer{l, c, u.kvWidth}
		for _, name := range []string{"to_k", "to_v"} {
			kv = append(kv, l.Param("transformer_blocks.0.attn2."+name+".weight", c, cfg.ContextDim))
		}
		u.kvWidth += 2 * c
		return t
	}
	c := cfg.ModelChannels
	u.input = []stage{{conv: "input_blocks.0.0.", channels: c, scale: 1}}
	for level, m := range cfg.ChannelMult {
		for range cfg.NumResBlocks {
			l := u.l.In(fmt.Sprintf("input_blocks.%d.", len(u.input)))
			s := stage{res: newRes(l.In("0."), c, m*cfg.ModelChannels), channels: m * cfg.ModelChannels, scale: 1 << level}
			c = s.channels
			if cfg.Attention(level) {
				s.attn = newAttn(l.In("1."), c)
			}
			u.input = append(u.input, s)
		}
		if level+1 < len(cfg.ChannelMult) {
			u.input = append(u.input, stage{conv: fmt.Sprintf("input_blocks.%d.0.op.", len(u.input)), down: true, channels: c, scale: 2 << level})
		}
	}
	u.middle[0] = newRes(u.l.In("middle_block.0."), c, c)
	u.middleAttn = newAttn(u.l.In("middle_block.1."), c)
	u.middle[1] = newRes(u.l.In("middle_block.2."), c, c)
	skip := len(u.input)
	for level := len(cfg.ChannelMult) - 1; level >= 0; level-- {
		for i := range cfg.NumResBlocks + 1 {
			skip--
			name := fmt.Sprintf("output_blocks.%d.", len(u.output))
			l := u.l.In(name)
			s := stage{res: newRes(l.In("0."), c+u.input[skip].channels, cfg.ChannelMult[level]*cfg.ModelChannels), scale: 1 << level}
			c = s.res.out
			s.channels = c
			part := 1
			if cfg.Attention(level) {
				s.attn = newAttn(l.In("1."), c)
				part = 2
			}
			if level > 0 && i == cfg.NumResBlocks {
				s.up = fmt.Sprintf("%s%d.conv.", name, part)
			}
			u.output = append(u.output, s)
		}
	}
	u.embed, u.embBias = u.l.Stack("emb_layers", embW...), u.l.Stack("emb_layers", embB...)
	u.keys = u.l.Stack("attn2 keys and values", kv...)
	return u, u.l.Err()
}

// EmbedWidth is ΣC, the channels of the embeddings that Embed makes.
func (u *UNet) EmbedWidth() int { return u.embWidth }

// KeysWidth is ΣKV, the channels of the cached keys and values that Keys makes.
func (u *UNet) KeysWidth() int { return u.kvWidth }

// Keys records the keys and values of every cross-attention: context
// (N', 1, T, context_dim) becomes out (N', 1, T, ΣKV).
func (u *UNet) Keys(p *device.Program, context, out device.Tensor) error {
	p.Add(&device.Linear{In: context, Out: out, Weight: u.keys})
	return u.l.Err()
}

// Embed records the time and camera embeddings of every residual block: sinus
// (R, 1, 1, model_channels) from Sinusoid, camera (R, 1, 1, camera_dim) or
// absent, out (R, 1, 1, ΣC).
func (u *UNet) Embed(p *device.Program, sinus, camera, out device.Tensor) error {
	d := u.cfg.TimeDim()
	mlp := func(name string, x, residual device.Tensor) device.Tensor {
		l := u.l.In(name)
		h, y := p.Like(x, d), p.Like(x, d)
		p.Add(&device.Linear{In: x, Out: h, Weight: l.Param("0.weight", d, x.C), Bias: l.Param("0.bias", d), Act: device.SiLU})
		p.Add(&device.Linear{In: h, Out: y, Residual: residual, Weight: l.Param("2.weight", d, d), Bias: l.Param("2.bias", d)})
		return y
	}
	e := mlp("time_embed.", sinus, device.Tensor{})
	if camera.Present() {
		e = mlp("camera_embed.", camera, e)
	}
	a := p.Like(e, d)
	p.Add(&device.Elementwise{In: e, Out: a, Act: device.SiLU})
	p.Add(&device.Linear{In: a, Out: out, Weight: u.embed, Bias: u.embBias})
	return u.l.Err()
}

// Sinusoid is the encoding of a timestep, (model_channels): cosines, then sines.
func (u *UNet) Sinusoid(t float64) []float32 {
	half := u.cfg.ModelChannels / 2
	out := make([]float32, 2*half)
	for i := range half {
		f := float32(math.Exp(-math.Log(10000) * float64(i) / float64(half)))
		s, c := math.Sincos(float64(float32(t) * f))
		out[i], out[half+i] = float32(c), float32(s)
	}
	return out
}

// recorder is one recording of the forward pass.
type recorder struct {
	*device.Program
	u       *UNet
	emb, kv device.Tensor
	views   int
	n       int  // images of the whole batch
	half    bool // still on what both halves of a guided batch share
}

// Forward records the noise prediction. x holds the latents (N, H, W, latent),
// emb (N, 1, 1, ΣC) from Embed, kv (N', 1, T, ΣKV) from Keys with image n reading
// row n·N'/N, views images belong to one object; out (N, H, W, latent).
//
// When x has half as many images as emb, the batch is guided: image n and image
// n+N/2 share latents, timestep and camera and differ by their prompt only. What
// comes before the first cross-attention is then computed once for both.
func (u *UNet) Forward(p *device.Program, x, emb, kv device.Tensor, views int, out device.Tensor) error {
	if emb.N != x.N && emb.N != 2*x.N || x.N%views != 0 {
		return fmt.Errorf("record the unet: %d latents, %d embeddings, %d views", x.N, emb.N, views)
	}
	levels := len(u.cfg.ChannelMult) - 1
	if x.H%(1<<levels) != 0 || x.W%(1<<levels) != 0 {
		return fmt.Errorf("record the unet: latents of %d×%d do not halve %d times", x.H, x.W, levels)
	}
	r := &recorder{Program: p, u: u, emb: emb, kv: kv, views: views, n: emb.N, half: emb.N == 2*x.N}
	// The result of input block i is written where output block len-1-i will read
	// it, behind the channels that come up from below: no concatenation.
	joined := make([]device.Tensor, len(u.input))
	h := x
	for i, s := range u.input {
		below := u.output[len(u.input)-1-i].res.in - s.channels
		height, width := x.H/s.scale, x.W/s.scale
		joined[i] = p.New(r.n, height, width, below+s.channels)
		slot := joined[i].Channels(below, s.channels)
		dst := slot
		// Blocks that end before the first cross-attention have half the images.
		short := r.half && s.attn == nil
		if short {
			dst = p.New(r.n/2, height, width, s.channels)
		}
		h = r.block(s, h, dst)
		if short {
			p.Add(&device.Elementwise{In: h, Out: slot})
		}
	}
	h = r.res(u.middle[0], h, p.Like(h, u.middle[0].out))
	if r.half {
		return fmt.Errorf("record the unet: no attention before the middle") // no such configuration exists
	}
	h = r.attn(u.middleAttn, h, p.Like(h, h.C))
	r.res(u.middle[1], h, joined[len(joined)-1].Channels(0, u.middle[1].out))
	for i, s := range u.output {
		in := joined[len(joined)-1-i]
		var dst device.Tensor
		if i+1 < len(u.output) {
			dst = joined[len(joined)-2-i].Channels(0, s.channels)
		} else {
			dst = p.Like(in, s.channels)
		}
		h = r.block(s, in, dst)
	}
	y := p.Like(h, h.C)
	p.Add(&device.GroupNorm{In: h, Out: y, Gamma: u.l.Param("out.0.weight", h.C), Beta: u.l.Param("out.0.bias", h.C), Groups: u.cfg.NormGroups, Eps: resEps, Silu: true})
	r.conv(u.l.In("out.2."), y, out, device.Tensor{}, 1, false)
	return u.l.Err()
}

// block records one entry of input_blocks or output_blocks into dst.
func (r *recorder) block(s stage, h, dst device.Tensor) device.Tensor {
	step := func(last bool, channels int) device.Tensor {
		if last {
			return dst
		}
		return r.Like(h, channels)
	}
	if s.conv != "" {
		stride := 1
		if s.down {
			stride = 2
		}
		r.conv(r.u.l.In(s.conv), h, dst, device.Tensor{}, stride, false)
		return dst
	}
	h = r.res(s.res, h, step(s.attn == nil && s.up == "", s.channels))
	if s.attn != nil {
		out := step(s.up == "", s.channels)
		if s.up != "" {
			out = r.New(r.n, h.H, h.W, s.channels)
		}
		h = r.attn(s.attn, h, out)
	}
	if s.up != "" {
		r.conv(r.u.l.In(s.up), h, dst, device.Tensor{}, 1, true)
		h = dst
	}
	return h
}

func (r *recorder) conv(l *device.Loader, x, out, residual device.Tensor, stride int, up bool) {
	r.Add(&device.Conv{In: x, Out: out, Residual: residual, Weight: l.Param("weight", out.C, x.C, 3, 3), Bias: l.Param("bias", out.C),
		Stride: stride, Top: 1, Left: 1, Bottom: 1, Right: 1, Upsample: up})
}

// res: h = conv(silu(norm(x))); h += embedding; dst = skip(x) + conv(silu(norm(h))).
func (r *recorder) res(b *res, x, dst device.Tensor) device.Tensor {
	norm := func(name string, x, add device.Tensor) device.Tensor {
		y := r.Like(x, x.C)
		r.Add(&device.GroupNorm{In: x, Out: y, Add: add, Gamma: b.l.Param(name+".weight", x.C), Beta: b.l.Param(name+".bias", x.C), Groups: r.u.cfg.NormGroups, Eps: resEps, Silu: true})
		return y
	}
	skip := x
	if b.in != b.out {
		r.Add(&device.Linear{In: x, Out: dst, Weight: b.l.Param("skip_connection.weight", b.out, b.in), Bias: b.l.Param("skip_connection.bias", b.out)})
		skip = dst
	}
	h := r.Like(x, b.out)
	r.conv(b.l.In("in_layers.2."), norm("in_layers.0", x, device.Tensor{}), h, device.Tensor{}, 1, false)
	emb := r.emb.Images(0, x.N).Channels(b.emb, b.out)
	r.conv(b.l.In("out_layers.3."), norm("out_layers.0", h, emb), dst, skip, 1, false)
	return dst
}

// attn is the spatial transformer with self-attention over the tokens of all
// views. While the batch is halved, x has N/2 images and dst has N.
func (r *recorder) attn(t *transformer, x, dst device.Tensor) device.Tensor {
	c, l := t.c, t.l.In("transformer_blocks.0.")
	tokens := x.H * x.W
	y := r.Like(x, c)
	norm := r.Like(x, c)
	r.Add(&device.GroupNorm{In: x, Out: norm, Gamma: t.l.Param("norm.weight", c), Beta: t.l.Param("norm.bias", c), Groups: r.u.cfg.NormGroups, Eps: transformerEps})
	r.Add(&device.Linear{In: norm, Out: y, Weight: t.l.Param("proj_in.weight", c, c), Bias: t.l.Param("proj_in.bias", c)})

	qkv := r.Like(x, 3*c)
	r.linearAfterNorm(l, "norm1", y, &device.Linear{Out: qkv, Weight: l.Stack("attn1 q, k, v",
		l.Param("attn1.to_q.weight", c, c), l.Param("attn1.to_k.weight", c, c), l.Param("attn1.to_v.weight", c, c))})
	groups := qkv.As(x.N/r.views, 1, r.views*tokens) // (B, 1, F·L, 3C)
	a := r.Like(x, c)
	r.attention(groups.Channels(0, c), groups.Channels(c, c), groups.Channels(2*c, c), a.As(groups.N, 1, groups.W))
	r.Add(&device.Linear{In: a, Out: y, Residual: y, Weight: l.Param("attn1.to_out.0.weight", c, c), Bias: l.Param("attn1.to_out.0.bias", c)})

	if r.half { // from here on the prompts differ
		r.half = false
		yy, xx := r.New(r.n, x.H, x.W, c), r.New(r.n, x.H, x.W, c)
		r.Add(&device.Elementwise{In: y, Out: yy})
		r.Add(&device.Elementwise{In: x, Out: xx})
		x, y = xx, yy
	}
	q, b := r.Like(x, c), r.Like(x, c)
	r.linearAfterNorm(l, "norm2", y, &device.Linear{Out: q, Weight: l.Param("attn2.to_q.weight", c, c)})
	r.attention(q.As(x.N, 1, tokens), r.kv.Channels(t.kv, c), r.kv.Channels(t.kv+c, c), b.As(x.N, 1, tokens))
	r.Add(&device.Linear{In: b, Out: y, Residual: y, Weight: l.Param("attn2.to_out.0.weight", c, c), Bias: l.Param("attn2.to_out.0.bias", c)})

	g := r.Like(x, 4*c)
	r.linearAfterNorm(l, "norm3", y, &device.Linear{Out: g, Weight: l.Param("ff.net.0.proj.weight", 8*c, c), Bias: l.Param("ff.net.0.proj.bias", 8*c), Act: device.GEGLU})
	r.Add(&device.Linear{In: g, Out: y, Residual: y, Weight: l.Param("ff.net.2.weight", c, 4*c), Bias: l.Param("ff.net.2.bias", c)})
	r.Add(&device.Linear{In: y, Out: dst, Residual: x, Weight: t.l.Param("proj_out.weight", c, c), Bias: t.l.Param("proj_out.bias", c)})
	return dst
}

func (r *recorder) linearAfterNorm(l *device.Loader, name string, x device.Tensor, o *device.Linear) {
	y := r.Like(x, x.C)
	r.Add(&device.LayerNorm{In: x, Out: y, Gamma: l.Param(name+".weight", x.C), Beta: l.Param(name+".bias", x.C), Eps: layerEps})
	o.In = y
	r.Add(o)
}

func (r *recorder) attention(q, k, v, out device.Tensor) {
	d := r.u.cfg.NumHeadChannels
	r.Add(&device.Attention{Q: q, K: k, V: v, Out: out, Heads: q.C / d, Scale: float32(1 / math.Sqrt(float64(d)))})
}
