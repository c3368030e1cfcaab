"""Layers that the three networks share. Norms, GEGLU and attention take the fused kernels on a GPU."""
import math

import torch
import torch.nn.functional as F
from torch import nn

try:
    from . import kernels
except ImportError:  # no Triton: plain PyTorch throughout
    kernels = None

FUSED = {"on": None}  # None: where the tensor is on a GPU; tests set True


def _fused(x):
    return kernels is not None and (x.is_cuda if FUSED["on"] is None else FUSED["on"])


class GroupNorm(nn.Module):
    """Group norm of (B, C, H, W), statistics in fp32; act adds SiLU."""

    def __init__(self, groups, channels, eps, act=True):
        super().__init__()
        self.groups, self.eps, self.act = groups, eps, act
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        if _fused(x):
            return kernels.group_norm(x, self.weight, self.bias, self.groups, self.eps, self.act)
        y = F.group_norm(x.float(), self.groups, self.weight.float(), self.bias.float(), self.eps)
        return (F.silu(y) if self.act else y).to(x.dtype)


class LayerNorm(nn.Module):
    """Layer norm over the last dimension, statistics in fp32."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        if _fused(x):
            return kernels.layer_norm(x, self.weight, self.bias, 1e-5)
        return F.layer_norm(x.float(), x.shape[-1:], self.weight.float(), self.bias.float(), 1e-5).to(x.dtype)


class Linear(nn.Linear):
    """nn.Linear whose bias gradient is summed by a kernel of ours."""

    def forward(self, x):
        if _fused(x) and torch.is_grad_enabled() and self.bias is not None:
            return kernels.linear(x, self.weight, self.bias)
        return super().forward(x)


class Conv2d(nn.Conv2d):
    """nn.Conv2d, likewise."""

    def forward(self, x):
        if _fused(x) and torch.is_grad_enabled():
            return kernels.conv(x, self.weight, self.bias, self.stride, self.padding)
        return super().forward(x)


def geglu(x):
    """x (.., 2 H) -> (.., H): the first half times GELU of the second."""
    if _fused(x):
        return kernels.geglu(x)
    value, gate = x.chunk(2, -1)
    return value * F.gelu(gate)


def attention(q, k, v, heads, causal=False):
    """q (B, L, C), k and v (B, M, C) -> (B, L, C); heads of C / heads, logits over the square root of that."""
    q, k, v = (t.reshape(t.shape[0], t.shape[1], heads, -1).transpose(1, 2) for t in (q, k, v))
    if hasattr(F, "scaled_dot_product_attention"):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:  # PyTorch 1.13
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if causal:
            logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -math.inf)
        y = logits.softmax(-1) @ v
    return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1)


def conv3(a, b, stride=1, padding=1):
    return Conv2d(a, b, 3, stride, padding)


def zeroed(layer):
    """A layer that starts as zero, so that its residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
