"""The full-size networks in PyTorch: a random checkpoint, reference results and the peer's times.

    python3 tools/peer.py DIR [--model MODEL_JSON] [--merges FILE] [--compile] [--steps 50]

Needs a CUDA build of PyTorch (pip install torch safetensors) and a card with 12 GB. Writes into DIR
  weights.safetensors  every tensor of the UNet, the text encoder and the VAE, fp16, none zero
  model.json           the description, so that DIR is a model bundle with the tokenizer's file (--merges, else downloaded)
  reference.safetensors inputs, and results in fp32
  peer.json            errors of fp16 PyTorch against fp32 PyTorch, and its times in milliseconds
and prints the standard deviation of every block's output. The architecture follows the public bytedance/MVDream;
names of tensors are those of its checkpoint.
"""
import argparse
import json
import math
import pathlib
import shutil
import time
import urllib.request

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
REGISTRY = HERE.parent.parent.parent / "models/registry/mvdream-sd21.json"
TENSORS = HERE.parent.parent.parent / "models/testdata/mvdream-sd21-tensors.tsv"
IDS = [550, 18376, 6765, 320, 4558, 267, 274, 323, 13039]  # "an astronaut riding a horse, 3d asset"
DEVICE = "cuda"
STDS = None  # block name -> standard deviation, filled while not None


def note(name, x):
    if STDS is not None:
        STDS[name] = float(x.float().std())
    return x


def random_checkpoint(path):
    """Weights of unit gain, damped where a residual branch ends; norms near one; nothing zero."""
    g = torch.Generator(DEVICE).manual_seed(1)
    out = {}
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name, shape = line.split("\t")[:2]
        shape = json.loads(shape)
        if not name.startswith(("model.diffusion_model.", "cond_stage_model.model.", "first_stage_model.")):
            continue
        r = torch.randn(shape, generator=g, device=DEVICE)
        if name.endswith(("positional_embedding", "token_embedding.weight")):
            r = 0.5 * r
        elif len(shape) >= 2:
            gain = 1.0
            if any(s in name for s in ("out_layers.3.", "conv2.", "attn1.to_out", "attn2.to_out", "ff.net.2", "mlp.c_proj", "attn.out_proj")):
                gain = 0.3 if name.startswith("cond_stage") else 0.5
            if "proj_out.weight" in name:
                gain = 0.4
            if "proj_in" in name or "in_layers.2" in name or "conv1." in name or "conv_in" in name:
                gain = 1.3
            r = gain * r / math.sqrt(math.prod(shape[1:]))
        elif "norm" in name or ".ln_" in name or "in_layers.0" in name or "out_layers.0" in name or ".out.0." in name:
            r = 1 + 0.1 * r if name.endswith("weight") else 0.1 * r
        else:
            r = 0.1 * r
        r = r.half()
        r[r == 0] = 1e-3
        out[name] = r
    return out


class Weights:
    """Tensors below a prefix in one type; convolution kernels channels-last."""

    def __init__(self, tensors, prefix, dtype):
        self.t = {}
        for name, x in tensors.items():
            if name.startswith(prefix):
                x = x.to(dtype)
                self.t[name[len(prefix):]] = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def linear(self, name, x):
        w = self.t[name + ".weight"]
        return F.linear(x, w.flatten(1) if w.dim() == 4 else w, self.t.get(name + ".bias"))

    def conv(self, name, x, stride=1, padding=1):
        return F.conv2d(x, self.t[name + ".weight"], self.t[name + ".bias"], stride, padding)

    def group(self, name, x, eps, silu=True):
        y = F.group_norm(x, 32, self.t[name + ".weight"], self.t[name + ".bias"], eps)
        return F.silu(y) if silu else y

    def layer(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.t[name + ".weight"], self.t[name + ".bias"], 1e-5)


def attention(q, k, v, heads, causal=False):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def text(w, ids, layers=23):
    x = w.t["token_embedding.weight"][ids] + w.t["positional_embedding"]
    for i in range(layers):
        p = f"transformer.resblocks.{i}."
        q, k, v = F.linear(w.layer(p + "ln_1", x), w.t[p + "attn.in_proj_weight"], w.t[p + "attn.in_proj_bias"]).chunk(3, -1)
        x = x + w.linear(p + "attn.out_proj", attention(q, k, v, 16, causal=True))
        x = note("text " + p, x + w.linear(p + "mlp.c_proj", F.gelu(w.linear(p + "mlp.c_fc", w.layer(p + "ln_2", x)))))
    return w.layer("ln_final", x)


def unet_res(w, p, x, emb):
    h = w.conv(p + "in_layers.2", w.group(p + "in_layers.0", x, 1e-5))
    h = h + w.linear(p + "emb_layers.1", emb)[:, :, None, None]
    h = w.conv(p + "out_layers.3", w.group(p + "out_layers.0", h, 1e-5))
    if p + "skip_connection.weight" in w.t:
        x = w.conv(p + "skip_connection", x, padding=0)
    return note(p, x + h)


def unet_attn(w, p, x, context, views):
    b, c, height, width = x.shape
    y = w.group(p + "norm", x, 1e-6, silu=False).permute(0, 2, 3, 1).flatten(1, 2)
    y = w.linear(p + "proj_in", y)
    t, heads = p + "transformer_blocks.0.", c // 64
    n = w.layer(t + "norm1", y).reshape(b // views, -1, c)
    a = attention(w.linear(t + "attn1.to_q", n), w.linear(t + "attn1.to_k", n), w.linear(t + "attn1.to_v", n), heads)
    y = y + w.linear(t + "attn1.to_out.0", a).reshape(b, -1, c)
    n = w.layer(t + "norm2", y)
    a = attention(w.linear(t + "attn2.to_q", n), w.linear(t + "attn2.to_k", context), w.linear(t + "attn2.to_v", context), heads)
    y = y + w.linear(t + "attn2.to_out.0", a)
    value, gate = w.linear(t + "ff.net.0.proj", w.layer(t + "norm3", y)).chunk(2, -1)
    y = y + w.linear(t + "ff.net.2", value * F.gelu(gate))
    y = w.linear(p + "proj_out", y).unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return note(p, x + y)


def unet(w, x, t, context, camera, views=4):
    f = torch.exp(-math.log(10000) * torch.arange(160, device=x.device, dtype=torch.float32) / 160)
    a = t.float()[:, None] * f
    s = torch.cat([a.cos(), a.sin()], -1).to(x.dtype)
    emb = w.linear("time_embed.2", F.silu(w.linear("time_embed.0", s)))
    emb = F.silu(emb + w.linear("camera_embed.2", F.silu(w.linear("camera_embed.0", camera))))
    x = x.contiguous(memory_format=torch.channels_last)
    h, stack = x, []
    for i in range(12):
        p = f"input_blocks.{i}."
        if i == 0:
            h = note(p, w.conv(p + "0", h))
        elif i % 3 == 0:
            h = note(p, w.conv(p + "0.op", h, stride=2))
        else:
            h = unet_res(w, p + "0.", h, emb)
            if i < 9:
                h = unet_attn(w, p + "1.", h, context, views)
        stack.append(h)
    h = unet_res(w, "middle_block.0.", h, emb)
    h = unet_attn(w, "middle_block.1.", h, context, views)
    h = unet_res(w, "middle_block.2.", h, emb)
    for i in range(12):
        p = f"output_blocks.{i}."
        h = unet_res(w, p + "0.", torch.cat([h, stack.pop()], 1), emb)
        if i >= 3:
            h = unet_attn(w, p + "1.", h, context, views)
        if i in (2, 5, 8):
            h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = note(p + "up", w.conv(p + ("1.conv" if i == 2 else "2.conv"), h))
    return note("out", w.conv("out.2", w.group("out.0", h, 1e-5)))


def vae_res(w, p, x):
    h = w.conv(p + "conv1", w.group(p + "norm1", x, 1e-6))
    h = w.conv(p + "conv2", w.group(p + "norm2", h, 1e-6))
    if p + "nin_shortcut.weight" in w.t:
        x = w.conv(p + "nin_shortcut", x, padding=0)
    return note("vae " + p, x + h)


def vae_mid(w, p, x):
    x = vae_res(w, p + "block_1.", x)
    b, c, height, width = x.shape
    y = w.group(p + "attn_1.norm", x, 1e-6, silu=False).permute(0, 2, 3, 1).flatten(1, 2)
    q, k, v = (w.linear(p + "attn_1." + n, y) for n in "qkv")
    a = w.linear(p + "attn_1.proj_out", attention(q, k, v, 1))
    x = x + a.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return vae_res(w, p + "block_2.", x)


def decode(w, z):
    x = w.conv("post_quant_conv", z.contiguous(memory_format=torch.channels_last), padding=0)
    x = vae_mid(w, "decoder.mid.", w.conv("decoder.conv_in", x))
    for level in (3, 2, 1, 0):
        for i in range(3):
            x = vae_res(w, f"decoder.up.{level}.block.{i}.", x)
        if level:
            x = w.conv(f"decoder.up.{level}.upsample.conv", F.interpolate(x, scale_factor=2, mode="nearest"))
    return w.conv("decoder.conv_out", w.group("decoder.norm_out", x, 1e-6))


def encode(w, image):
    x = w.conv("encoder.conv_in", image.contiguous(memory_format=torch.channels_last))
    for level in range(4):
        for i in range(2):
            x = vae_res(w, f"encoder.down.{level}.block.{i}.", x)
        if level < 3:
            x = w.conv(f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
    x = vae_mid(w, "encoder.mid.", x)
    x = w.conv("encoder.conv_out", w.group("encoder.norm_out", x, 1e-6))
    return w.conv("quant_conv", x, padding=0)


def encode_gradient(w, image, direction):
    """The gradient of <encode(image), direction> with respect to the image, which must not require one yet."""
    with torch.enable_grad():
        image = image.detach().requires_grad_()
        return torch.autograd.grad(encode(w, image), image, direction)[0]


def cameras(azimuths, elevation):
    """Matrices in the network's axes (z up, front +x) for azimuths counted from the front."""
    out = []
    for a in azimuths:
        a, e = math.radians(a + 90), math.radians(elevation)
        p = torch.tensor([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
        forward = -p
        right = torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0]))
        right = right / right.norm()
        up = torch.linalg.cross(right, forward)
        m = torch.eye(4)
        m[:3, 0], m[:3, 1], m[:3, 2], m[:3, 3] = right, up, -forward, p
        turn = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        out.append((turn @ m).flatten())
    return torch.stack(out).to(DEVICE)


def sample(w, x, context, camera, steps, guidance):
    """DDIM without noise; context holds the negative prompt first. Returns the latents after every step."""
    beta = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - beta, 0)
    times = list(range(1, 1001, 1000 // steps))
    cam, trace = torch.cat([camera, camera]), []
    ctx = context.repeat_interleave(4, 0)
    for i in reversed(range(len(times))):
        a, prev = float(abar[times[i]]), float(abar[times[i - 1]]) if i else float(abar[0])
        t = torch.full((8,), times[i], device=DEVICE)
        e = unet(w, torch.cat([x, x]).to(ctx.dtype), t, ctx, cam).float()
        e = e[:4] + guidance * (e[4:] - e[:4])
        x = prev ** 0.5 * (x - (1 - a) ** 0.5 * e) / a ** 0.5 + (1 - prev) ** 0.5 * e
        trace.append(x)
    return torch.stack(trace)


def timed(fn, graph=True):
    """Median of 20 replays in milliseconds."""
    for _ in range(3):
        fn()
    torch.cuda.synchronize()
    run = fn
    if graph:
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g):
            fn()
        run = g.replay
    times = []
    for _ in range(20):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        run()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[10]


def error(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


@torch.no_grad()
def main():
    global STDS, DEVICE
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("dir", type=pathlib.Path)
    args.add_argument("--model", type=pathlib.Path, default=REGISTRY)
    args.add_argument("--tensors", type=pathlib.Path, default=TENSORS)
    args.add_argument("--merges", type=pathlib.Path)
    args.add_argument("--compile", action="store_true", help="also time torch.compile (two or three minutes)")
    args.add_argument("--steps", type=int, default=50)
    args.add_argument("--guidance", type=float, default=5.0)
    args.add_argument("--speed-only", action="store_true", help="skip the references")
    args.add_argument("--device", default="cuda", help="cpu: references in fp32 only, no times")
    args = args.parse_args()
    DEVICE = args.device
    args.dir.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    start = time.time()
    tensors = random_checkpoint(args.tensors)
    save_file({k: v.cpu() for k, v in tensors.items()}, args.dir / "weights.safetensors")
    description = json.loads(args.model.read_text())
    description["name"] = "random-sd21"
    description["files"]["weights"] = {"name": "weights.safetensors"}
    sources, description["sources"] = description["sources"], []
    merges = args.dir / description["files"]["merges"]["name"]
    if args.merges:
        shutil.copyfile(args.merges, merges)
    elif not merges.exists():
        urllib.request.urlretrieve(next(s["url"] for s in sources if s["name"] == merges.name), merges)
    (args.dir / "model.json").write_text(json.dumps(description))
    print(f"checkpoint written after {time.time() - start:.1f} s", flush=True)

    def networks(dtype):
        return [Weights(tensors, p, dtype) for p in ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.model.")]

    g = torch.Generator(DEVICE).manual_seed(2)
    draw = lambda *s: torch.randn(*s, generator=g, device=DEVICE)
    ids = torch.zeros(2, 77, dtype=torch.long, device=DEVICE)
    ids[:, 0], ids[0, 1], ids[1, 1:10], ids[1, 10] = 49406, 49407, torch.tensor(IDS), 49407
    camera = cameras([0, 90, 180, 270], 15)
    x, z, image = draw(4, 4, 32, 32), draw(4, 4, 32, 32), torch.tanh(draw(4, 3, 256, 256))
    direction = draw(4, 8, 32, 32)
    t = torch.full((8,), 501, device=DEVICE)
    result = {"gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else "", "torch": torch.__version__, "guidance": args.guidance}

    def everything(dtype):
        u, v, c = networks(dtype)
        r = {"context": text(c, ids).float()}
        ctx = reference.get("context", r["context"]).to(dtype)
        eight = torch.cat([x, x]).to(dtype), t, ctx.repeat_interleave(4, 0), torch.cat([camera, camera]).to(dtype)
        r["eps"] = unet(u, *eight).float()
        r["image"] = decode(v, z.to(dtype)).float()
        r["moments"] = encode(v, image.to(dtype)).float()
        r["gradient"] = encode_gradient(v, image.to(dtype), direction.to(dtype)).float()
        return r, u, ctx

    reference = {}
    if not args.speed_only:
        STDS = {}
        r, u, ctx = everything(torch.float32)
        low, high = min(STDS.values()), max(STDS.values())
        print("standard deviations of block outputs:", {k: round(v, 2) for k, v in STDS.items()})
        print(f"all between {low:.2f} and {high:.2f}", flush=True)
        STDS = None
        result["std"] = [low, high]
        reference = r
        reference["trace"] = sample(u, x, ctx, camera, args.steps, args.guidance)
        del u
        if DEVICE == "cuda":
            h, u, ctx = everything(torch.float16)
            h["trace"] = sample(u, x, ctx, camera.half(), args.steps, args.guidance)
            result["fp16_error"] = {k: error(h[k], reference[k]) for k in ("context", "eps", "image", "moments", "gradient")}
            result["fp16_error"]["latents"] = error(h["trace"][-1], reference["trace"][-1])
            result["fp16_error"]["step"] = max(error(a, b) for a, b in zip(h["trace"], reference["trace"]))
            print("fp16 PyTorch against fp32:", result["fp16_error"], flush=True)
        nhwc = lambda a: a.movedim(-3, -1).contiguous().cpu()
        save_file({"context": reference["context"].cpu(), "camera": camera.cpu(), "x": nhwc(x), "z": nhwc(z), "pixels": nhwc(image), "eps": nhwc(reference["eps"]),
                   "image": nhwc(reference["image"]), "direction": nhwc(direction), "gradient": nhwc(reference["gradient"]), "moments": nhwc(reference["moments"]), "trace": nhwc(reference["trace"])}, args.dir / "reference.safetensors")
    if DEVICE != "cuda":
        return
    u, v, c = networks(torch.float16)
    torch.cuda.empty_cache()
    times, result["compile_seconds"] = {}, {}

    def compiled(name, fn, *inputs):
        torch.compiler.reset()
        begin = time.time()
        run = torch.compile(fn, mode="reduce-overhead", fullgraph=True, dynamic=False)
        times[name + " compiled"] = timed(lambda: run(*inputs), graph=False)
        result["compile_seconds"][name] = time.time() - begin

    for batch in (8, 16, 32, 64):
        a = [draw(batch, 4, 32, 32).half(), torch.full((batch,), 501, device=DEVICE), draw(batch, 77, 1024).half(), camera.half().repeat(batch // 4, 1)]
        times[f"unet {batch}"] = timed(lambda: unet(u, *a))
        if args.compile and batch in (8, 64):
            compiled(f"unet {batch}", lambda *b: unet(u, *b), *a)
    zh, ih = z.half(), image.half()
    times["decode 4"] = timed(lambda: decode(v, zh))
    if args.compile:
        compiled("decode 4", lambda b: decode(v, b), zh)
    times["encode 4"] = timed(lambda: encode(v, ih))
    dh = direction.half()
    times["gradient 4"] = timed(lambda: encode_gradient(v, ih, dh))
    result["ms"] = times
    (args.dir / "peer.json").write_text(json.dumps(result, indent=1))
    print("PyTorch, half, channels-last, graph, ms:", {k: round(v, 2) for k, v in times.items()}, f"({time.time() - start:.0f} s in all)")
    print("seconds to compile:", {k: round(v) for k, v in result["compile_seconds"].items()})


if __name__ == "__main__":
    main()
