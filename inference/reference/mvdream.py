"""The networks of MVDream in plain PyTorch functions, independent of the Go code.

Every size comes from model.json, every weight from a dictionary with the keys of
the original checkpoint. Shapes are PyTorch's (N, C, H, W). Sources:
bytedance/MVDream ldm/modules (UNet, VAE, DDIM), mlfoundations/open_clip (text).
"""

import hashlib
import json
import math
import mmap
import struct

import torch
import torch.nn.functional as F

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32}


def load(path):
    """Tensors of a safetensors file, floats as fp32."""
    with open(path, "rb") as f:
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    (n,) = struct.unpack("<Q", data[:8])
    out = {}
    for key, d in json.loads(data[8 : 8 + n]).items():
        if key == "__metadata__":
            continue
        a, b = d["data_offsets"]
        kind = TYPES[d["dtype"]]
        t = torch.frombuffer(data, dtype=kind, offset=8 + n + a, count=(b - a) // kind.itemsize)
        t = t.reshape(d["shape"])
        out[key] = t.float() if t.is_floating_point() else t
    return out


def save(path, tensors, metadata):
    """Writes fp32 and int32 tensors."""
    header, at, body = {"__metadata__": metadata}, 0, []
    for key, t in sorted(tensors.items()):
        raw = t.contiguous().numpy().tobytes()
        kind = "I32" if t.dtype == torch.int32 else "F32"
        header[key] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        body.append(raw)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + b"".join(body))


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class Net:
    """Weights below a prefix."""

    def __init__(self, w, prefix=""):
        self.w, self.prefix = w, prefix

    def at(self, name):
        return Net(self.w, self.prefix + name + ".")

    def has(self, name):
        return self.prefix + name in self.w

    def __getitem__(self, name):
        return self.w[self.prefix + name]

    def linear(self, name, x, bias=True):
        w = self[name + ".weight"]
        return F.linear(x, w.reshape(w.shape[0], -1), self[name + ".bias"] if bias else None)

    def conv(self, name, x, stride=1, padding=1):
        return F.conv2d(x, self[name + ".weight"], self[name + ".bias"], stride, padding)

    def group(self, name, x, groups, eps):
        return F.group_norm(x, groups, self[name + ".weight"], self[name + ".bias"], eps)

    def layer(self, name, x):
        c = x.shape[-1]
        return F.layer_norm(x, (c,), self[name + ".weight"], self[name + ".bias"], 1e-5)


def text(w, cfg, ids):
    """ids (P, T) -> context (P, T, width)."""
    n = Net(w, "cond_stage_model.model.")
    x = n["token_embedding.weight"][ids.long()] + n["positional_embedding"]
    heads = cfg["heads"]
    p, t, c = x.shape
    mask = torch.full((t, t), -math.inf).triu(1)
    for i in range(cfg["layers_used"]):
        b = n.at(f"transformer.resblocks.{i}")
        y = b.layer("ln_1", x)
        qkv = F.linear(y, b["attn.in_proj_weight"], b["attn.in_proj_bias"])
        q, k, v = (z.reshape(p, t, heads, c // heads).transpose(1, 2) for z in qkv.chunk(3, -1))
        s = q @ k.transpose(-1, -2) / math.sqrt(c // heads) + mask
        y = (s.softmax(-1) @ v).transpose(1, 2).reshape(p, t, c)
        x = x + b.linear("attn.out_proj", y)
        x = x + b.linear("mlp.c_proj", F.gelu(b.linear("mlp.c_fc", b.layer("ln_2", x))))
    return n.layer("ln_final", x)


def sinusoid(t, dim):
    half = dim // 2
    f = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    a = t.float()[:, None] * f
    return torch.cat([a.cos(), a.sin()], -1)


def attention(q, k, v, heads, fused):
    n, l, c = q.shape
    q, k, v = (z.reshape(n, -1, heads, c // heads).transpose(1, 2) for z in (q, k, v))
    if fused:
        y = F.scaled_dot_product_attention(q, k, v)
    else:
        y = (q @ k.transpose(-1, -2) / math.sqrt(c // heads)).softmax(-1) @ v
    return y.transpose(1, 2).reshape(n, l, c)


def res(n, x, emb, groups):
    h = n.conv("in_layers.2", F.silu(n.group("in_layers.0", x, groups, 1e-5)))
    h = h + n.linear("emb_layers.1", F.silu(emb))[:, :, None, None]
    h = n.conv("out_layers.3", F.silu(n.group("out_layers.0", h, groups, 1e-5)))
    if n.has("skip_connection.weight"):
        x = n.conv("skip_connection", x, padding=0)
    return x + h


def transformer(n, x, context, cfg, frames, fused):
    b, c, h, w = x.shape
    heads = c // cfg["num_head_channels"]
    y = n.group("norm", x, cfg["norm_groups"], 1e-6)
    y = n.linear("proj_in", y.permute(0, 2, 3, 1).reshape(b, h * w, c))
    t = n.at("transformer_blocks.0")

    def attn(name, z, other):
        q, k, v = (t.linear(f"{name}.to_{s}", i, bias=False) for s, i in (("q", z), ("k", other), ("v", other)))
        return t.linear(name + ".to_out.0", attention(q, k, v, heads, fused))

    y = y.reshape(b // frames, frames * h * w, c)
    z = t.layer("norm1", y)
    y = (attn("attn1", z, z) + y).reshape(b, h * w, c)
    y = attn("attn2", t.layer("norm2", y), context) + y
    value, gate = t.linear("ff.net.0.proj", t.layer("norm3", y)).chunk(2, -1)
    y = t.linear("ff.net.2", value * F.gelu(gate)) + y
    return n.linear("proj_out", y).reshape(b, h, w, c).permute(0, 3, 1, 2) + x


def unet(w, cfg, x, t, context, camera, frames, fused=False):
    """x (B, 4, h, w), t (B), context (B, T, width), camera (B, 16) -> noise."""
    n = Net(w, "model.diffusion_model.")

    def mlp(name, v):
        return n.linear(name + ".2", F.silu(n.linear(name + ".0", v)))

    emb = mlp("time_embed", sinusoid(t, cfg["model_channels"])) + mlp("camera_embed", camera)

    def parts(block, h):
        """Runs the numbered parts of a block, which its weights tell apart."""
        for i in range(4):
            p = block.at(str(i))
            if p.has("in_layers.0.weight"):
                h = res(p, h, emb, cfg["norm_groups"])
            elif p.has("proj_in.weight"):
                h = transformer(p, h, context, cfg, frames, fused)
            elif p.has("op.weight"):
                h = p.conv("op", h, stride=2)
            elif p.has("conv.weight"):
                h = p.conv("conv", F.interpolate(h, scale_factor=2, mode="nearest"))
            elif p.has("weight"):
                h = block.conv(str(i), h)
        return h

    levels = len(cfg["channel_mult"])
    count = 1 + levels * cfg["num_res_blocks"] + levels - 1
    skips = []
    h = x
    for i in range(count):
        h = parts(n.at(f"input_blocks.{i}"), h)
        skips.append(h)
    h = parts(n.at("middle_block"), h)
    for i in range(levels * (cfg["num_res_blocks"] + 1)):
        h = parts(n.at(f"output_blocks.{i}"), torch.cat([h, skips.pop()], 1))
    return n.conv("out.2", F.silu(n.group("out.0", h, cfg["norm_groups"], 1e-5)))


def vae_res(n, x, groups):
    h = n.conv("conv1", F.silu(n.group("norm1", x, groups, 1e-6)))
    h = n.conv("conv2", F.silu(n.group("norm2", h, groups, 1e-6)))
    if n.has("nin_shortcut.weight"):
        x = n.conv("nin_shortcut", x, padding=0)
    return x + h


def vae_mid(n, x, groups):
    x = vae_res(n.at("mid.block_1"), x, groups)
    a = n.at("mid.attn_1")
    y = a.group("norm", x, groups, 1e-6)
    q, k, v = (a.conv(s, y, padding=0).flatten(2).transpose(1, 2) for s in "qkv")
    y = attention(q, k, v, 1, False).transpose(1, 2).reshape(x.shape)
    return vae_res(n.at("mid.block_2"), x + a.conv("proj_out", y, padding=0), groups)


def encode(w, cfg, x):
    """image (N, 3, H, W) in [-1, 1] -> moments (N, 2z, H/f, W/f)."""
    first = Net(w, "first_stage_model.")
    n, groups, levels = first.at("encoder"), cfg["norm_groups"], len(cfg["ch_mult"])
    x = n.conv("conv_in", x)
    for level in range(levels):
        for i in range(cfg["num_res_blocks"]):
            x = vae_res(n.at(f"down.{level}.block.{i}"), x, groups)
        if level < levels - 1:
            x = n.conv(f"down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
    x = vae_mid(n, x, groups)
    x = n.conv("conv_out", F.silu(n.group("norm_out", x, groups, 1e-6)))
    return first.conv("quant_conv", x, padding=0)


def decode(w, cfg, z):
    """z (N, 4, h, w), unscaled -> image, not clamped."""
    first = Net(w, "first_stage_model.")
    n, groups, levels = first.at("decoder"), cfg["norm_groups"], len(cfg["ch_mult"])
    x = n.conv("conv_in", first.conv("post_quant_conv", z, padding=0))
    x = vae_mid(n, x, groups)
    for level in reversed(range(levels)):
        for i in range(cfg["num_res_blocks"] + 1):
            x = vae_res(n.at(f"up.{level}.block.{i}"), x, groups)
        if level > 0:
            x = n.conv(f"up.{level}.upsample.conv", F.interpolate(x, scale_factor=2, mode="nearest"))
    return n.conv("conv_out", F.silu(n.group("norm_out", x, groups, 1e-6)))


def cameras(azimuths, elevation):
    """OpenGL camera-to-world matrices in Blender's axes, flattened: (F, 16)."""
    out = []
    for a in azimuths:
        a, e = math.radians(a), math.radians(elevation)
        p = torch.tensor([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)], dtype=torch.float64)
        right = torch.linalg.cross(-p, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        right = right / right.norm()
        up = torch.linalg.cross(right, -p)
        m = torch.eye(4, dtype=torch.float64)
        m[:3, 0], m[:3, 1], m[:3, 2], m[:3, 3] = right, up, p, p
        blender = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
        out.append((blender @ m).flatten())
    return torch.stack(out).float()


def alphas(model):
    lo, hi = math.sqrt(model["beta_start"]), math.sqrt(model["beta_end"])
    beta = torch.linspace(lo, hi, model["timesteps"], dtype=torch.float64) ** 2
    return torch.cumprod(1 - beta, 0)


def ddim(predict, x, abar, steps, scale):
    """predict(x, t) gives the two halves' noise, unconditional first."""
    c = len(abar) // steps
    ts = [i + 1 for i in range(0, len(abar), c)]
    for i in reversed(range(len(ts))):
        a, prev = abar[ts[i]].item(), abar[ts[i - 1]].item() if i else abar[0].item()
        u, e = predict(x, ts[i]).chunk(2)
        e = u + scale * (e - u)
        x0 = (x - math.sqrt(1 - a) * e) / math.sqrt(a)
        x = math.sqrt(prev) * x0 + math.sqrt(1 - prev) * e
    return x


class Tokenizer:
    """Byte-level BPE by CLIP's rules, for plain ASCII prompts."""

    def __init__(self, path, vocab, length):
        lines = open(path, encoding="utf-8").read().split("\n")[1:]
        merges = [tuple(l.split()) for l in lines if l][: vocab - 514]
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [b for b in range(256) if b not in plain]
        self.char = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
        symbols = [self.char[b] for b in plain + rest]
        words = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
        self.id = {s: i for i, s in enumerate(words)}
        self.rank = {m: i for i, m in enumerate(merges)}
        self.start, self.end, self.length = vocab - 2, vocab - 1, length

    def word(self, w):
        s = [self.char[b] for b in w.encode()]
        s[-1] += "</w>"
        while len(s) > 1:
            pairs = [(self.rank.get((s[i], s[i + 1]), math.inf), i) for i in range(len(s) - 1)]
            best, _ = min(pairs)
            if best == math.inf:
                break
            out, i = [], 0
            while i < len(s):
                if i + 1 < len(s) and self.rank.get((s[i], s[i + 1])) == best:
                    out.append(s[i] + s[i + 1])
                    i += 2
                else:
                    out.append(s[i])
                    i += 1
            s = out
        return [self.id[x] for x in s]

    def __call__(self, prompt):
        import re

        pieces = re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", prompt.lower().strip())
        ids = [self.start] + [i for p in pieces for i in self.word(p)] + [self.end]
        if len(ids) > self.length:
            ids = ids[: self.length - 1] + [self.end]
        return ids + [0] * (self.length - len(ids))
