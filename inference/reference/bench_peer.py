"""Times the Go engine and PyTorch on the same machine, in turns, in one run.

    make bench-peer       (or: python3 inference/reference/bench_peer.py)

PyTorch runs the same networks at its best: channels-last, fused attention, and
torch.compile with --compile (a minute of compiling). Both use the same threads.
Wall times are medians; processor time (per call, all threads) is shown beside
them because it means something on a busy machine too.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time

import torch

import mvdream

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "../.."))


def calls(compiled):
    """Name -> function, on the mini model, channels-last."""
    model = json.load(open(os.path.join(HERE, "../models/mini/model.json")))
    w = mvdream.load(os.path.join(HERE, "../models/mini/weights.safetensors"))
    w = {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in w.items()}
    f = model["views"]
    size = model["image_size"]
    latent = size >> (len(model["vae"]["ch_mult"]) - 1)
    x = torch.randn(2 * f, 4, latent, latent).contiguous(memory_format=torch.channels_last)
    z = torch.randn(f, 4, latent, latent).contiguous(memory_format=torch.channels_last)
    image = torch.rand(f, 3, size, size).contiguous(memory_format=torch.channels_last)
    t = torch.full((2 * f,), 500)
    context = torch.randn(2 * f, model["text"]["context_length"], model["text"]["width"])
    camera = mvdream.cameras([0, 90, 180, 270] * 2, 15)

    def unet(x, t, context, camera):
        return mvdream.unet(w, model["unet"], x, t, context, camera, f, fused=True)

    def decode(z):
        return mvdream.decode(w, model["vae"], z)

    def encode(image):
        return mvdream.encode(w, model["vae"], image)

    if compiled:
        unet, decode, encode = torch.compile(unet), torch.compile(decode), torch.compile(encode)
    return {"UNet": lambda: unet(x, t, context, camera), "Decode": lambda: decode(z), "Encode": lambda: encode(image)}


def timed(f, seconds):
    """Median wall and least processor seconds of a call."""
    f()
    wall, cpu, end = [], [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(wall) < 5:
        a, b = time.perf_counter(), time.process_time()
        f()
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    return statistics.median(wall), min(cpu)


def go_bench(binary, pattern, threads, seconds):
    """Name -> {unit: value}."""
    env = dict(os.environ, GOMAXPROCS=str(threads))
    cmd = [binary, "-test.run=^$", f"-test.bench={pattern}", f"-test.benchtime={seconds}s"]
    text = subprocess.run(cmd, env=env, cwd=os.path.join(ROOT, "inference"), check=True, capture_output=True, text=True).stdout
    out = {}
    for line in text.splitlines():
        if m := re.match(r"Benchmark([\w/]+?)(?:-\d+)?\s", line):
            out[m[1]] = {unit: float(v) for v, unit in re.findall(r"([\d.]+) (\S+)", line)}
    return out


def gemm(binary, threads, seconds):
    """GFLOP/s of a product of 1024³: ours, torch's."""
    ours = go_bench(binary, "^BenchmarkGEMM$/^1024$", threads, seconds)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    wall, _ = timed(lambda: a @ b, seconds)
    return next(iter(ours.values()))["GFLOP/s"], 2 * 1024**3 / wall / 1e9


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--seconds", type=float, default=2, help="for each call and round")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--compile", action="store_true", help="time torch.compile too")
    a = p.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(a.threads)
    folder = tempfile.TemporaryDirectory()
    binary, kernels = os.path.join(folder.name, "inference.test"), os.path.join(folder.name, "cpu.test")
    subprocess.run(["go", "test", "-c", "-o", binary, "./inference"], cwd=ROOT, check=True)
    subprocess.run(["go", "test", "-c", "-o", kernels, "./inference/device/cpu"], cwd=ROOT, check=True)
    peers = {"channels-last": calls(False)}
    if a.compile:
        peers["compiled"] = calls(True)
    ours, theirs, products = {}, {}, []
    for _ in range(a.rounds):
        for name, v in go_bench(binary, "^Benchmark(UNet|Decode|Encode)$", a.threads, a.seconds).items():
            ours.setdefault(name, []).append((v["ns/op"] / 1e9, v["cpu-ns/op"] / 1e9, v["GFLOP/s"]))
        products.append(gemm(kernels, a.threads, a.seconds))
        for kind, fs in peers.items():
            for name, f in fs.items():
                theirs.setdefault(name, {}).setdefault(kind, []).append(timed(f, a.seconds))
    print(f"torch {torch.__version__}, {a.threads} threads, {a.rounds} rounds; ms a call; ratio > 1: Go is faster")
    print("product of 1024³: Go {:.0f}, torch {:.0f} GFLOP/s".format(*(statistics.median(x) for x in zip(*products))))
    print(f"{'call':8}{'Go':>9}{'GFLOP/s':>9}{'torch':>9}{'ratio':>7}{'Go cpu':>9}{'torch cpu':>10}{'ratio':>7}  torch as")
    for name, v in ours.items():
        wall = statistics.median(x[0] for x in v)
        cpu = min(x[1] for x in v)
        rate = statistics.median(x[2] for x in v)
        kind, best = min(theirs[name].items(), key=lambda kv: statistics.median(x[0] for x in kv[1]))
        w2, c2 = statistics.median(x[0] for x in best), min(x[1] for x in best)
        print(f"{name:8}{1e3 * wall:9.1f}{rate:9.0f}{1e3 * w2:9.1f}{w2 / wall:7.2f}{1e3 * cpu:9.1f}{1e3 * c2:10.1f}{c2 / cpu:7.2f}  {kind}")


if __name__ == "__main__":
    main()
