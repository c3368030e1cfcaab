// Package vae is the image coder of latent diffusion models
// (CompVis/latent-diffusion, ldm/modules/diffusionmodules/model.py).
//
// Letters: N images, H, W pixels of the latent, f = 2^(levels-1), Z latent channels.
package vae

import (
	"fmt"
	"math"

	"dreamcad/inference/device"
	"dreamcad/inference/models"
)

const eps = 1e-6

// VAE holds the weights of both halves; they reach the device with the first
// program that uses them.
type VAE struct {
	cfg models.VAE
	l   *device.Loader
}

// New reads keys that start with prefix.
func New(src device.Weights, prefix string, cfg models.VAE) *VAE {
	return &VAE{cfg: cfg, l: device.NewLoader(src, prefix)}
}

// net records into one program; with a tape, it can then record the way back.
type net struct {
	*device.Program
	cfg  models.VAE
	tape *tape
}

func (v *VAE) width(level int) int { return v.cfg.Ch * v.cfg.ChMult[level] }

// norm is GroupNorm, with SiLU if silu.
func (n net) norm(l *device.Loader, name string, x device.Tensor, silu bool) device.Tensor {
	y := n.Like(x, x.C)
	o := &device.GroupNorm{In: x, Out: y, Gamma: l.Param(name+".weight", x.C), Beta: l.Param(name+".bias", x.C), Groups: n.cfg.NormGroups, Eps: eps, Silu: silu}
	n.Add(o)
	n.tape.norm(n.Program, o)
	return y
}

// conv is a 3×3 convolution with a border of one; residual may be absent.
func (n net) conv(l *device.Loader, name string, x device.Tensor, out int, residual device.Tensor) device.Tensor {
	y := n.Like(x, out)
	o := &device.Conv{In: x, Out: y, Residual: residual, Weight: l.Param(name+".weight", out, x.C, 3, 3), Bias: l.Param(name+".bias", out), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1}
	n.Add(o)
	n.tape.conv(n.Program, o)
	return y
}

// linear is a 1×1 convolution.
func (n net) linear(l *device.Loader, name string, x device.Tensor, out int, residual device.Tensor) device.Tensor {
	y := n.Like(x, out)
	o := &device.Linear{In: x, Out: y, Residual: residual, Weight: l.Param(name+".weight", out, x.C), Bias: l.Param(name+".bias", out)}
	n.Add(o)
	n.tape.linear(n.Program, o)
	return y
}

// res is a residual block without time embedding.
func (n net) res(l *device.Loader, x device.Tensor, out int) device.Tensor {
	h := n.conv(l, "conv1", n.norm(l, "norm1", x, true), out, device.Tensor{})
	if x.C != out {
		x = n.linear(l, "nin_shortcut", x, out, device.Tensor{})
	}
	return n.conv(l, "conv2", n.norm(l, "norm2", h, true), out, x)
}

// attn is single-head self-attention over the pixels of each image.
func (n net) attn(l *device.Loader, x device.Tensor) device.Tensor {
	c := x.C
	y := n.norm(l, "norm", x, false)
	qkv := n.Like(x, 3*c)
	o := &device.Linear{In: y, Out: qkv,
		Weight: l.Stack("q, k, v", l.Param("q.weight", c, c), l.Param("k.weight", c, c), l.Param("v.weight", c, c)),
		Bias:   l.Stack("q, k, v", l.Param("q.bias", c), l.Param("k.bias", c), l.Param("v.bias", c))}
	n.Add(o)
	n.tape.linear(n.Program, o)
	t := qkv.As(x.N, 1, x.H*x.W)
	a := n.Like(x, c)
	at := &device.Attention{Q: t.Channels(0, c), K: t.Channels(c, c), V: t.Channels(2*c, c), Out: a.As(x.N, 1, x.H*x.W), Heads: 1, Scale: float32(1 / math.Sqrt(float64(c)))}
	n.Add(at)
	n.tape.attention(n.Program, at, qkv, a)
	return n.linear(l, "proj_out", a, c, x)
}

func (n net) mid(l *device.Loader, x device.Tensor) device.Tensor {
	x = n.res(l.In("mid.block_1."), x, x.C)
	x = n.attn(l.In("mid.attn_1."), x)
	return n.res(l.In("mid.block_2."), x, x.C)
}

// Decode records the decoder: z (N, H, W, Z), already divided by the scale
// factor, becomes an image (N, f·H, f·W, 3) in out, in [-1, 1] but not clamped.
func (v *VAE) Decode(p *device.Program, z, out device.Tensor) error {
	n := net{p, v.cfg, nil}
	l := v.l.In("decoder.")
	top := len(v.cfg.ChMult) - 1
	x := n.linear(v.l, "post_quant_conv", z, z.C, device.Tensor{})
	x = n.conv(l, "conv_in", x, v.width(top), device.Tensor{})
	x = n.mid(l, x)
	for level := top; level >= 0; level-- {
		for i := range v.cfg.NumResBlocks + 1 {
			x = n.res(l.In(fmt.Sprintf("up.%d.block.%d.", level, i)), x, v.width(level))
		}
		if level > 0 {
			up := l.In(fmt.Sprintf("up.%d.upsample.conv.", level))
			y := n.New(x.N, 2*x.H, 2*x.W, x.C)
			n.Add(&device.Conv{In: x, Out: y, Weight: up.Param("weight", x.C, x.C, 3, 3), Bias: up.Param("bias", x.C), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1, Upsample: true})
			x = y
		}
	}
	x = n.norm(l, "norm_out", x, true)
	n.Add(&device.Conv{In: x, Out: out, Weight: l.Param("conv_out.weight", 3, x.C, 3, 3), Bias: l.Param("conv_out.bias", 3), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
	return v.l.Err()
}

// Encode records the encoder: image (N, f·H, f·W, 3) in [-1, 1] becomes the
// moments (N, H, W, 2·Z) in out: means, then logarithms of variances, unclamped.
func (v *VAE) Encode(p *device.Program, image, out device.Tensor) error {
	return v.encode(net{p, v.cfg, nil}, image, out)
}

// EncodeGrad records the encoder and the way back: grad (N, H, W, 2·Z), the
// gradient of something with respect to the moments, becomes that with respect to
// the image in imageGrad (N, f·H, f·W, 3).
func (v *VAE) EncodeGrad(p *device.Program, image, out, grad, imageGrad device.Tensor) error {
	n := net{p, v.cfg, &tape{grads: map[device.ValueID]device.Tensor{}}}
	if err := v.encode(n, image, out); err != nil {
		return err
	}
	n.tape.grads[out.Value] = grad
	n.tape.last, n.tape.to = image.Value, imageGrad
	n.tape.back()
	return v.l.Err()
}

func (v *VAE) encode(n net, image, out device.Tensor) error {
	l := v.l.In("encoder.")
	top := len(v.cfg.ChMult) - 1
	x := n.conv(l, "conv_in", image, v.cfg.Ch, device.Tensor{})
	for level := range v.cfg.ChMult {
		for i := range v.cfg.NumResBlocks {
			x = n.res(l.In(fmt.Sprintf("down.%d.block.%d.", level, i)), x, v.width(level))
		}
		if level < top {
			down := l.In(fmt.Sprintf("down.%d.downsample.conv.", level))
			y := n.New(x.N, x.H/2, x.W/2, x.C)
			// The border of zeros is on the right and at the bottom only.
			o := &device.Conv{In: x, Out: y, Weight: down.Param("weight", x.C, x.C, 3, 3), Bias: down.Param("bias", x.C), Stride: 2, Bottom: 1, Right: 1}
			n.Add(o)
			n.tape.conv(n.Program, o)
			x = y
		}
	}
	x = n.mid(l, x)
	x = n.norm(l, "norm_out", x, true)
	x = n.conv(l, "conv_out", x, 2*v.cfg.ZChannels, device.Tensor{})
	q := v.l.In("quant_conv.")
	o := &device.Linear{In: x, Out: out, Weight: q.Param("weight", x.C, x.C), Bias: q.Param("bias", x.C)}
	n.Add(o)
	n.tape.linear(n.Program, o)
	return v.l.Err()
}
