"""The image autoencoder, with the layer names of MVDream's checkpoint (ldm/modules/diffusionmodules/model.py)."""
import torch
import torch.nn.functional as F
from torch import nn

from .layers import Conv2d, GroupNorm, attention, conv3

EPS = 1e-6


class ResnetBlock(nn.Module):
    def __init__(self, a, b, groups):
        super().__init__()
        self.norm1, self.conv1 = GroupNorm(groups, a, EPS), conv3(a, b)
        self.norm2, self.conv2 = GroupNorm(groups, b, EPS), conv3(b, b)
        if a != b:
            self.nin_shortcut = Conv2d(a, b, 1)

    def forward(self, x):
        h = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class AttnBlock(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.norm = GroupNorm(groups, c, EPS, act=False)
        self.q, self.k, self.v, self.proj_out = (Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        B, C, h, w = x.shape
        y = self.norm(x)
        q, k, v = (t.permute(0, 2, 3, 1).reshape(B, h * w, C) for t in (self.q(y), self.k(y), self.v(y)))
        return x + self.proj_out(attention(q, k, v, 1).view(B, h, w, C).permute(0, 3, 1, 2))


def _middle(c, groups):
    mid = nn.Module()
    mid.block_1, mid.attn_1, mid.block_2 = ResnetBlock(c, c, groups), AttnBlock(c, groups), ResnetBlock(c, c, groups)
    return mid


def _run_middle(mid, h):
    return mid.block_2(mid.attn_1(mid.block_1(h)))


class Downsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv3(c, c, stride=2, padding=0)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as the original


class Upsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv3(c, c)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Encoder(nn.Module):
    def __init__(self, ch, mult, blocks, z, groups):
        super().__init__()
        self.conv_in, self.down, c = conv3(3, ch), nn.ModuleList(), ch
        for i, m in enumerate(mult):
            level = nn.Module()
            level.block = nn.ModuleList()
            for _ in range(blocks):
                level.block.append(ResnetBlock(c, ch * m, groups))
                c = ch * m
            if i < len(mult) - 1:
                level.downsample = Downsample(c)
            self.down.append(level)
        self.mid, self.norm_out, self.conv_out = _middle(c, groups), GroupNorm(groups, c, EPS), conv3(c, 2 * z)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                h = block(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        return self.conv_out(self.norm_out(_run_middle(self.mid, h)))


class Decoder(nn.Module):
    def __init__(self, ch, mult, blocks, z, groups):
        super().__init__()
        c = ch * mult[-1]
        self.conv_in, self.mid, levels = conv3(z, c), _middle(c, groups), []
        for i, m in reversed(list(enumerate(mult))):
            level = nn.Module()
            level.block = nn.ModuleList()
            for _ in range(blocks + 1):
                level.block.append(ResnetBlock(c, ch * m, groups))
                c = ch * m
            if i:
                level.upsample = Upsample(c)
            levels.insert(0, level)
        self.up, self.norm_out, self.conv_out = nn.ModuleList(levels), GroupNorm(groups, c, EPS), conv3(c, 3)

    def forward(self, z):
        h = _run_middle(self.mid, self.conv_in(z))
        for level in reversed(self.up):
            for block in level.block:
                h = block(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(self.norm_out(h))


class VAE(nn.Module):
    """config: the "vae" entry of model.json. Images (B, 3, H, W) in -1..1, latents (B, z, H/8, W/8), not scaled."""

    def __init__(self, config):
        super().__init__()
        z = config["z_channels"]
        args = config["ch"], config["ch_mult"], config["num_res_blocks"], z, config["norm_groups"]
        self.encoder, self.decoder = Encoder(*args), Decoder(*args)
        self.quant_conv, self.post_quant_conv = Conv2d(2 * z, 2 * z, 1), Conv2d(z, z, 1)

    def moments(self, x):
        """-> mean, log-variance of the posterior"""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))
