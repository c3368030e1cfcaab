"""Stage 1: the autoencoder, on fresh renders."""
import time

import torch
import torch.nn.functional as F

import data
import render
from flat import FlatAdam, captured


def loss_of(vae, x, noise):
    """x (B, 3, H, W) -> loss. Object pixels and their surroundings weigh more than the empty background."""
    kind = vae.quant_conv.weight.dtype
    mean, logvar = (t.float() for t in vae.moments(x.to(kind)))
    y = vae.decode((mean + (.5 * logvar).exp() * noise).to(kind)).float()
    object_near = F.max_pool2d((x.abs().amax(1, keepdim=True) > .04).float(), 5, 1, 2)
    weight = .4 + 1.2 * object_near
    weight = weight / weight.mean()
    e = y - x
    edges = (weight[..., 1:] * (e[..., 1:] - e[..., :-1]).abs()).mean() + (weight[:, :, 1:] * (e[:, :, 1:] - e[:, :, :-1]).abs()).mean()
    blocks = F.avg_pool2d(e, 4).abs().mean()
    kl = .5 * (mean ** 2 + logvar.exp() - 1 - logvar).mean()
    return (weight * (e.abs() + e * e)).mean() + .5 * edges + .5 * blocks + 3e-4 * kl


def train(vae, seconds, device, objects=20000, batch=64, rate=1.5e-3, most=10 ** 9, processes=None, size=128, say=print):
    """Trains in place and leaves the averaged weights in vae (fp32)."""
    begun = time.time()
    generator = torch.Generator().manual_seed(11)
    built, _ = data.draw_objects(objects, 11, processes)
    azimuth, elevation = data.random_cameras(objects, generator)
    images = data.render_objects(render.normalise(built.to(device)), azimuth, elevation, size)
    say(f"vae: {images.shape[0]} renders after {time.time() - begun:.1f} s")
    adam = FlatAdam({"vae": vae}, torch.bfloat16 if device == "cuda" else torch.float32, 0., average=.998)
    seen, side = torch.zeros((), device=device), size // 8

    def step():
        x = data.to_network(images[torch.randint(0, images.shape[0], (batch,), device=device)])
        noise = torch.randn(batch, side, side, vae.quant_conv.weight.shape[0] // 2, device=device).permute(0, 3, 1, 2)
        loss = loss_of(vae, x, noise)
        loss.backward()
        adam.step()
        seen.lerp_(loss.detach(), .02)

    run, i = captured(step, device), 0
    say(f"vae: captured after {time.time() - begun:.1f} s")
    while i < most:
        spent = (time.time() - begun) / seconds
        if spent >= 1:
            break
        adam.rate.fill_(rate * min(1., (i + 1) / 100) * min(1., max(.01, (1 - spent) / .4)))
        for _ in range(min(25, most)):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        i += 25
        if i % 1000 == 0:
            say(f"vae: {i} iterations, loss {float(seen):.4f}, {time.time() - begun:.0f} s")
    with torch.no_grad():
        average = adam.averaged("vae")
        for name, p in vae.named_parameters():
            p.grad = None
            p.data = average[name]
            p.requires_grad_(False)
    say(f"vae: {i} iterations in {time.time() - begun:.0f} s, loss {float(seen):.4f}")


@torch.no_grad()
def score(vae, device, count=250, processes=1, size=128):
    """Reconstruction of unseen renders: PSNR in dB over all pixels, and over object pixels."""
    built, _ = data.draw_objects(count, 999331, processes)
    azimuth, elevation = data.random_cameras(count, torch.Generator().manual_seed(5))
    x = data.to_network(data.render_objects(render.normalise(built.to(device)), azimuth, elevation, size))
    kind = vae.quant_conv.weight.dtype
    y = torch.cat([vae.decode(vae.moments(p.to(kind))[0]).float() for p in x.split(100)]).clamp(-1, 1)
    error, mask = ((x - y) / 2) ** 2, (x.abs().amax(1) > .04)
    psnr = lambda e: float(-10 * e.mean().log10())
    return psnr(error), psnr(error.mean(1)[mask])
