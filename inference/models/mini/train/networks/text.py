"""The text encoder: the causal pre-norm transformer of OpenCLIP's text tower, with its layer names."""
import torch
import torch.nn.functional as F
from torch import nn

from .layers import LayerNorm, Linear, attention


class MultiheadAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj_weight, self.in_proj_bias = nn.Parameter(torch.empty(3 * width, width)), nn.Parameter(torch.zeros(3 * width))
        nn.init.normal_(self.in_proj_weight, std=width ** -.5)
        self.out_proj = Linear(width, width)

    def forward(self, x):
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        return self.out_proj(attention(q, k, v, self.heads, causal=True))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2, self.attn = LayerNorm(width), LayerNorm(width), MultiheadAttention(width, heads)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = Linear(width, 4 * width), Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


class TextEncoder(nn.Module):
    """config: the "text" entry of model.json. ids (N, T) -> context (N, T, width)."""

    def __init__(self, config):
        super().__init__()
        width = config["width"]
        self.token_embedding = nn.Embedding(config["vocab"], width)
        self.positional_embedding = nn.Parameter(torch.empty(config["context_length"], width))
        nn.init.normal_(self.token_embedding.weight, std=.02)
        nn.init.normal_(self.positional_embedding, std=.01)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([Block(width, config["heads"]) for _ in range(config["layers"])])
        self.ln_final, self.used = LayerNorm(width), config["layers_used"]

    def forward(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding[:ids.shape[1]]
        for block in self.transformer.resblocks[:self.used]:
            x = block(x)
        return self.ln_final(x)
