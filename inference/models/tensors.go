package models

import (
	"fmt"

	"dreamcad/inference/weights"
)

// Prefixes of the networks' tensors in a checkpoint.
const (
	UNetPrefix = "model.diffusion_model."
	VAEPrefix  = "first_stage_model."
	TextPrefix = "cond_stage_model.model."
)

// Tensors lists what the networks need: the names and shapes of the original
// checkpoint's layout for the sizes of this description, in the order of the
// network. What a checkpoint holds beyond them (schedule buffers, text layers
// that are not applied) is not needed.
func (d *Description) Tensors() []weights.Wanted {
	var l list
	d.Text.tensors(l.in(TextPrefix))
	d.UNet.tensors(l.in(UNetPrefix), d.LatentChannels)
	d.VAE.tensors(l.in(VAEPrefix))
	return l.tensors
}

// list collects tensors; a scope of it adds a prefix to their names.
type list struct{ tensors []weights.Wanted }

type scope struct {
	list   *list
	prefix string
}

func (l *list) in(prefix string) scope { return scope{l, prefix} }

func (s scope) in(format string, args ...any) scope {
	return scope{s.list, s.prefix + fmt.Sprintf(format, args...)}
}

func (s scope) add(name string, shape ...int) {
	s.list.tensors = append(s.list.tensors, weights.Wanted{Name: s.prefix + name, Shape: shape})
}

// linear is (out, in) with a bias.
func (s scope) linear(name string, in, out int) {
	s.add(name+".weight", out, in)
	s.add(name+".bias", out)
}

// conv is (out, in, k, k) with a bias.
func (s scope) conv(name string, in, out, k int) {
	s.add(name+".weight", out, in, k, k)
	s.add(name+".bias", out)
}

func (s scope) norm(name string, c int) {
	s.add(name+".weight", c)
	s.add(name+".bias", c)
}

func (t Text) tensors(s scope) {
	const mlpRatio = 4
	s.add("positional_embedding", t.ContextLength, t.Width)
	s.add("token_embedding.weight", t.Vocab, t.Width)
	for i := range t.LayersUsed {
		b := s.in("transformer.resblocks.%d.", i)
		b.norm("ln_1", t.Width)
		b.add("attn.in_proj_weight", 3*t.Width, t.Width)
		b.add("attn.in_proj_bias", 3*t.Width)
		b.linear("attn.out_proj", t.Width, t.Width)
		b.norm("ln_2", t.Width)
		b.linear("mlp.c_fc", t.Width, mlpRatio*t.Width)
		b.linear("mlp.c_proj", mlpRatio*t.Width, t.Width)
	}
	s.norm("ln_final", t.Width)
}

func (u UNet) tensors(s scope, latent int) {
	s.linear("time_embed.0", u.ModelChannels, u.TimeDim())
	s.linear("time_embed.2", u.TimeDim(), u.TimeDim())
	s.linear("camera_embed.0", u.CameraDim, u.TimeDim())
	s.linear("camera_embed.2", u.TimeDim(), u.TimeDim())

	s.conv("input_blocks.0.0", latent, u.ModelChannels, 3)
	skips := []int{u.ModelChannels} // channels of what each input block leaves behind
	c := u.ModelChannels
	last := len(u.ChannelMult) - 1
	for l, m := range u.ChannelMult {
		for range u.NumResBlocks {
			b := s.in("input_blocks.%d.", len(skips))
			u.res(b.in("0."), c, u.ModelChannels*m)
			c = u.ModelChannels * m
			if u.Attention(l) {
				u.transformer(b.in("1."), c)
			}
			skips = append(skips, c)
		}
		if l < last {
			s.conv(fmt.Sprintf("input_blocks.%d.0.op", len(skips)), c, c, 3)
			skips = append(skips, c)
		}
	}

	u.res(s.in("middle_block.0."), c, c)
	u.transformer(s.in("middle_block.1."), c)
	u.res(s.in("middle_block.2."), c, c)

	n := 0
	for l := last; l >= 0; l-- {
		for i := range u.NumResBlocks + 1 {
			b, part := s.in("output_blocks.%d.", n), 1
			n++
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			u.res(b.in("0."), c+skip, u.ModelChannels*u.ChannelMult[l])
			c = u.ModelChannels * u.ChannelMult[l]
			if u.Attention(l) {
				u.transformer(b.in("1."), c)
				part = 2
			}
			if l > 0 && i == u.NumResBlocks {
				b.conv(fmt.Sprintf("%d.conv", part), c, c, 3)
			}
		}
	}
	s.norm("out.0", c)
	s.conv("out.2", u.ModelChannels, latent, 3)
}

func (u UNet) res(s scope, in, out int) {
	s.norm("in_layers.0", in)
	s.conv("in_layers.2", in, out, 3)
	s.linear("emb_layers.1", u.TimeDim(), out)
	s.norm("out_layers.0", out)
	s.conv("out_layers.3", out, out, 3)
	if in != out {
		s.conv("skip_connection", in, out, 1)
	}
}

func (u UNet) transformer(s scope, c int) {
	s.norm("norm", c)
	s.linear("proj_in", c, c)
	b := s.in("transformer_blocks.0.")
	for i, context := range []int{c, u.ContextDim} {
		a := b.in("attn%d.", i+1)
		a.add("to_q.weight", c, c)
		a.add("to_k.weight", c, context)
		a.add("to_v.weight", c, context)
		a.linear("to_out.0", c, c)
	}
	b.linear("ff.net.0.proj", c, 8*c) // value and gate
	b.linear("ff.net.2", 4*c, c)
	for i := range 3 {
		b.norm(fmt.Sprintf("norm%d", i+1), c)
	}
	s.linear("proj_out", c, c)
}

func (v VAE) tensors(s scope) {
	const rgb = 3
	last := len(v.ChMult) - 1
	e := s.in("encoder.")
	e.conv("conv_in", rgb, v.Ch, 3)
	c := v.Ch
	for l, m := range v.ChMult {
		for i := range v.NumResBlocks {
			vaeBlock(e.in("down.%d.block.%d.", l, i), c, v.Ch*m)
			c = v.Ch * m
		}
		if l < last {
			e.conv(fmt.Sprintf("down.%d.downsample.conv", l), c, c, 3)
		}
	}
	vaeMiddle(e.in("mid."), c)
	e.norm("norm_out", c)
	e.conv("conv_out", c, 2*v.ZChannels, 3) // mean and log variance
	s.conv("quant_conv", 2*v.ZChannels, 2*v.ZChannels, 1)

	s.conv("post_quant_conv", v.ZChannels, v.ZChannels, 1)
	d := s.in("decoder.")
	d.conv("conv_in", v.ZChannels, c, 3)
	vaeMiddle(d.in("mid."), c)
	for l := last; l >= 0; l-- {
		for i := range v.NumResBlocks + 1 {
			vaeBlock(d.in("up.%d.block.%d.", l, i), c, v.Ch*v.ChMult[l])
			c = v.Ch * v.ChMult[l]
		}
		if l > 0 {
			d.conv(fmt.Sprintf("up.%d.upsample.conv", l), c, c, 3)
		}
	}
	d.norm("norm_out", c)
	d.conv("conv_out", c, rgb, 3)
}

func vaeBlock(s scope, in, out int) {
	s.norm("norm1", in)
	s.conv("conv1", in, out, 3)
	s.norm("norm2", out)
	s.conv("conv2", out, out, 3)
	if in != out {
		s.conv("nin_shortcut", in, out, 1)
	}
}

func vaeMiddle(s scope, c int) {
	vaeBlock(s.in("block_1."), c, c)
	a := s.in("attn_1.")
	a.norm("norm", c)
	for _, n := range []string{"q", "k", "v", "proj_out"} {
		a.conv(n, c, c, 1)
	}
	vaeBlock(s.in("block_2."), c, c)
}
