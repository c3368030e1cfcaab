"""Training data: random objects with captions, rendered and encoded."""
import multiprocessing
import os

import numpy as np
import torch

import objects
import render
from objects.caption import corner_cases

VIEWS, LOW, HIGH = 4, -20., 60.  # views an object, 90 degrees apart, at one elevation within these bounds
CAPTIONS = 2  # phrasings drawn for an object


def _draw(job):
    """(seed, count) -> objects (count, OBJECT), captions [count][CAPTIONS]"""
    seed, count = job
    r, built, texts = objects.Random(seed), np.zeros((count, objects.OBJECT), np.float32), []
    for i in range(count):
        d = objects.draw(r)
        built[i] = objects.build(d, r.random())[0]
        texts.append([objects.caption(d, r) for _ in range(CAPTIONS)])
    return built, texts


def draw_objects(count, seed, processes=None):
    """-> objects (count, OBJECT) not yet normalised, captions [count][CAPTIONS]; the same for any number of processes"""
    part = 1000
    jobs = [(seed * 1000003 + i, min(part, count - i * part)) for i in range(-(-count // part))]
    processes = processes or os.cpu_count()
    if processes == 1 or len(jobs) == 1:
        results = [_draw(j) for j in jobs]
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            results = pool.map(_draw, jobs)
    return torch.from_numpy(np.concatenate([b for b, _ in results])), [t for _, texts in results for t in texts]


def learn_tokenizer(length, count=30000, seed=7, processes=None):
    from tokenizer import Tokenizer
    _, texts = draw_objects(count, seed, processes)
    return Tokenizer.learn([t for pair in texts for t in pair] + corner_cases(), length)


def random_cameras(count, generator):
    """-> azimuth (count, VIEWS), elevation (count, VIEWS), degrees"""
    start = torch.rand(count, 1, generator=generator) * 360
    elevation = LOW + (HIGH - LOW) * torch.rand(count, 1, generator=generator)
    return (start + torch.arange(VIEWS) * (360 / VIEWS)) % 360, elevation.expand(count, VIEWS).contiguous()


def render_objects(built, azimuth, elevation, size=128):
    """Normalised objects (N, OBJECT) and cameras (N, F) -> views (N F, size, size, 3) uint8 on the device of the objects."""
    which = torch.arange(built.shape[0], dtype=torch.int32, device=built.device).repeat_interleave(azimuth.shape[1])
    return render.render(built, which, azimuth.reshape(-1).to(built.device), elevation.reshape(-1).to(built.device), size)


def to_network(images):
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in -1..1, channels-last in memory"""
    return (images.float() / 127.5 - 1).permute(0, 3, 1, 2)


@torch.no_grad()
def encode(vae, images, batch=1024):
    """uint8 (B, H, W, 3) -> posterior means (B, h, w, 4) fp32, not scaled"""
    kind, out = vae.quant_conv.weight.dtype, []
    for part in images.split(batch):
        out.append(vae.moments(to_network(part).to(kind))[0].float().permute(0, 2, 3, 1))
    return torch.cat(out)


class Latents:
    """Encoded objects on the device: latents (N, VIEWS, h, w, 4) fp16 scaled to unit deviation, ids (N, CAPTIONS, T), cameras (N, VIEWS, 16)."""

    def __init__(self, vae, scale, tokenizer, count, seed, device, processes=None, size=128):
        """scale: the latent scale factor, or None to measure it on this data."""
        built, texts = draw_objects(count, seed, processes)
        generator = torch.Generator().manual_seed(seed)
        azimuth, elevation = random_cameras(count, generator)
        built, parts = built.to(device), []
        for i in range(0, count, 4096):
            chunk = slice(i, i + 4096)
            views = render_objects(render.normalise(built[chunk]), azimuth[chunk], elevation[chunk], size)
            z = encode(vae, views)
            if scale is None:
                scale = float(1 / z.std())
            parts.append((z * scale).half())
        z = torch.cat(parts)
        self.scale, self.latents = scale, z.view(count, VIEWS, *z.shape[1:])
        self.ids = torch.tensor([[tokenizer(t) for t in pair] for pair in texts], dtype=torch.int32, device=device)
        self.cameras = render.camera_matrix(azimuth, elevation).to(device)
