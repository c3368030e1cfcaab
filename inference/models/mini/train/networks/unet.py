"""The multi-view UNet, with the layer names of MVDream's checkpoint (bytedance/MVDream, ldm/modules/diffusionmodules/openaimodel.py,
MultiViewUNetModel). Shapes: N objects of F views, B = N F, C channels, L pixels, T context tokens."""
import math

import torch
import torch.nn.functional as F
from torch import nn

from .layers import Conv2d, GroupNorm, LayerNorm, Linear, attention, conv3, geglu, zeroed


def timestep_embedding(t, width):
    """t (B) -> (B, width): cosines, then sines."""
    half = width // 2
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    return torch.cat([angles.cos(), angles.sin()], -1)


class ResBlock(nn.Module):
    def __init__(self, a, b, emb, groups):
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm(groups, a, 1e-5), nn.Identity(), conv3(a, b))
        self.emb_layers = nn.Sequential(nn.Identity(), Linear(emb, b))
        self.out_layers = nn.Sequential(GroupNorm(groups, b, 1e-5), nn.Identity(), nn.Identity(), zeroed(conv3(b, b)))
        self.skip_connection = Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x, emb):
        """x (B, a, h, w), emb (B, emb) after SiLU -> (B, b, h, w)"""
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class SelfAttention(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (Linear(c, c, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(Linear(c, c))

    def forward(self, x):
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])  # one product reads x once
        q, k, v = F.linear(x, weight).chunk(3, -1)
        return self.to_out(attention(q, k, v, self.heads))


class CrossAttention(nn.Module):
    def __init__(self, c, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = Linear(c, c, bias=False)
        self.to_k, self.to_v = Linear(context, c, bias=False), Linear(context, c, bias=False)
        self.to_out = nn.Sequential(Linear(c, c))

    def forward(self, x, context):
        return self.to_out(attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class Gate(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.proj = Linear(c, 8 * c)

    def forward(self, x):
        return geglu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.net = nn.Sequential(Gate(c), nn.Identity(), Linear(4 * c, c))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, c, context, heads):
        super().__init__()
        self.attn1, self.attn2, self.ff = SelfAttention(c, heads), CrossAttention(c, context, heads), FeedForward(c)
        self.norm1, self.norm2, self.norm3 = LayerNorm(c), LayerNorm(c), LayerNorm(c)

    def forward(self, x, context):
        """x (N, F L, C): the tokens of all views of an object attend to one another; context (N, T, D), one for all views."""
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, c, context, heads, groups):
        super().__init__()
        self.norm = GroupNorm(groups, c, 1e-6, act=False)
        self.proj_in, self.proj_out = Linear(c, c), zeroed(Linear(c, c))
        self.transformer_blocks = nn.ModuleList([TransformerBlock(c, context, heads)])

    def forward(self, x, context):
        B, C, h, w = x.shape
        y = self.norm(x).permute(0, 2, 3, 1).reshape(context.shape[0], -1, C)
        y = self.proj_out(self.transformer_blocks[0](self.proj_in(y), context))
        return y.view(B, h, w, C).permute(0, 3, 1, 2) + x


class Downsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = conv3(c, c, stride=2)

    def forward(self, x):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv3(c, c)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class UNet(nn.Module):
    """config: the "unet" entry of model.json; latent: channels of the latent."""

    def __init__(self, config, latent=4):
        super().__init__()
        width, groups, context = config["model_channels"], config["norm_groups"], config["context_dim"]
        emb, blocks, head = 4 * width, config["num_res_blocks"], config["num_head_channels"]
        self.width = width
        self.time_embed = nn.Sequential(Linear(width, emb), nn.SiLU(), Linear(emb, emb))
        self.camera_embed = nn.Sequential(Linear(config["camera_dim"], emb), nn.SiLU(), Linear(emb, emb))

        def transformer(c, factor):
            return [SpatialTransformer(c, context, c // head, groups)] if factor in config["attention_downsample"] else []

        c, factor, widths = width, 1, [width]
        self.input_blocks = nn.ModuleList([nn.ModuleList([conv3(latent, width)])])
        last = len(config["channel_mult"]) - 1
        for level, mult in enumerate(config["channel_mult"]):
            for _ in range(blocks):
                self.input_blocks.append(nn.ModuleList([ResBlock(c, width * mult, emb, groups)] + transformer(width * mult, factor)))
                c = width * mult
                widths.append(c)
            if level < last:
                self.input_blocks.append(nn.ModuleList([Downsample(c)]))
                widths.append(c)
                factor *= 2
        self.middle_block = nn.ModuleList([ResBlock(c, c, emb, groups), SpatialTransformer(c, context, c // head, groups), ResBlock(c, c, emb, groups)])
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config["channel_mult"]))):
            for i in range(blocks + 1):
                layers = [ResBlock(c + widths.pop(), width * mult, emb, groups)] + transformer(width * mult, factor)
                c = width * mult
                if level and i == blocks:
                    layers.append(Upsample(c))
                    factor //= 2
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(GroupNorm(groups, c, 1e-5), nn.Identity(), zeroed(conv3(c, latent)))

    def forward(self, x, t, context, camera):
        """x (B, 4, h, w), t (B), context (N, T, D), camera (B, 16) -> predicted noise (B, 4, h, w). Views of an object are consecutive."""
        kind = self.out[2].weight.dtype
        emb = self.time_embed(timestep_embedding(t, self.width).to(kind)) + self.camera_embed(camera.to(kind))
        emb, h, skips = F.silu(emb), x.to(kind), []

        def run(block, h):
            for layer in block:
                h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h, context) if isinstance(layer, SpatialTransformer) else layer(h)
            return h

        for block in self.input_blocks:
            h = run(block, h)
            skips.append(h)
        h = run(self.middle_block, h)
        for block in self.output_blocks:
            h = run(block, torch.cat([h, skips.pop()], 1))
        return self.out(h)
