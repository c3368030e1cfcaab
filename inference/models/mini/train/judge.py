"""The judge: a small classifier of views, trained on fresh renders alone. It never sees a generated image, nor the autoencoder.

It names the thing, its main colour, the pattern, and tall or short, from one view; and the colour of a named part, from one or more views.
"""
import multiprocessing
import os
import time

import torch
import torch.nn.functional as F
from torch import nn

import data
import objects
import render
from objects.palette import MAIN_COLOURS

SIZE = 96  # pixels a side that the judge looks at
WIDTH = 224  # channels of the last maps
FEATURES = 2 * WIDTH + 128


class Residual(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                                  nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b))
        self.skip = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


class Judge(nn.Module):
    """Views (B, 3, 96, 96) in -1..1 -> (whole (B, FEATURES), places (B, WIDTH, 36)): a vector of the view, and vectors of its places."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), Residual(32, 48, 2), Residual(48, 64, 2))
        self.coarse = nn.Sequential(Residual(64, 128, 2), Residual(128, WIDTH, 2))
        self.thing, self.colour, self.pattern, self.size = (nn.Linear(FEATURES, len(names)) for names in (
            objects.THING_NAMES, objects.COLOUR_NAMES, objects.PATTERN_NAMES, objects.SIZE_NAMES))
        # A part is looked for where the thing has it: its query depends on the part and on the whole.
        self.part = nn.Embedding(len(objects.PART_NAMES), 64)
        self.query = nn.Linear(FEATURES + 64, WIDTH)
        self.key = nn.Conv1d(WIDTH, WIDTH, 1)
        self.part_colour = nn.Sequential(nn.Linear(FEATURES + 64 + WIDTH, 192), nn.ReLU(), nn.Linear(192, len(objects.COLOUR_NAMES)))

    def features(self, views):
        fine = self.fine(views)
        coarse = self.coarse(fine)
        whole = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3)), fine.mean((2, 3)), fine.amax((2, 3))], 1)
        return whole, coarse.flatten(2)

    def part_logits(self, features, part):
        """features of B views, part numbers (B) -> logits of its colour (B, colours)"""
        whole, places = features
        asked = torch.cat([whole, self.part(part).to(whole.dtype)], 1)
        weight = torch.softmax((self.query(asked)[:, None] @ self.key(places)).float() * WIDTH ** -.5, -1).to(places.dtype)
        return self.part_colour(torch.cat([asked, (places @ weight.transpose(1, 2))[..., 0]], 1))


def prepare(views):
    """uint8 (B, H, W, 3) -> (B, 3, SIZE, SIZE) in -1..1, averaged down"""
    x = (views.float() / 127.5 - 1).permute(0, 3, 1, 2)
    return F.interpolate(x, size=(SIZE, SIZE), mode="area")


def labels_of(d, slots):
    """Training labels, -1 where nothing can be said: thing, colour, pattern, size."""
    thing = objects.THINGS[d.thing]
    colours = objects.COLOUR_NAMES
    main = colours.index(slots[0]) if slots[0] in MAIN_COLOURS else -1
    size = objects.SIZE_NAMES.index(d.size) if thing.size else -1
    return [objects.THING_NAMES.index(d.thing), main, objects.PATTERN_NAMES.index(d.pattern or "plain"), size]


def _draw(job):
    """(seed, count) -> [object], [labels]: what a thing may be, with more of what is hard to see than training has"""
    seed, count = job
    r, built, labels = objects.Random(seed), [], []
    for _ in range(count):
        d = objects.draw(r)
        thing = objects.THINGS[d.thing]
        if r.chance(.4):
            d.colour = r.pick(objects.COLOUR_NAMES)  # pairs that training never names, too
        if thing.size and r.chance(.5):
            d.size = r.pick(objects.SIZE_NAMES)
        d.parts = {p: c for p, c in d.parts.items() if thing.parts[p] != 0}
        own = [p for p in sorted(thing.parts) if thing.parts[p] != 0]
        if own and not d.parts and r.chance(.5):
            d.parts = {r.pick(own): r.pick(objects.COLOUR_NAMES)}
        o, slots = objects.build(d, r.random())
        part, colour = -1, -1
        if thing.parts:
            name = r.pick(sorted(d.parts)) if d.parts and r.chance(.8) else r.pick(sorted(thing.parts))
            tone = slots[thing.parts[name]]
            if tone in MAIN_COLOURS:
                part, colour = objects.PART_NAMES.index(name), objects.COLOUR_NAMES.index(tone)
        built.append(torch.from_numpy(o))
        labels.append(labels_of(d, slots) + [part, colour])
    return torch.stack(built), torch.tensor(labels)


def draw_labelled(count, seed, processes=None):
    """Objects of all descriptions, held-out pairs included -> objects (count, OBJECT), labels (count, 6)"""
    size = 2000
    jobs = [(seed * 1000003 + i, min(size, count - i * size)) for i in range(-(-count // size))]
    if len(jobs) == 1:
        return _draw(jobs[0])
    with multiprocessing.get_context("fork").Pool(processes or os.cpu_count()) as pool:
        drawn = pool.map(_draw_numpy, jobs)
    return torch.cat([torch.from_numpy(b) for b, _ in drawn]), torch.cat([torch.from_numpy(n) for _, n in drawn])


def _draw_numpy(job):
    return tuple(t.numpy() for t in _draw(job))  # arrays travel between processes without shared file handles


def _augment(x):
    """Blur, noise, contrast and brightness: a judge must not live on the renderer's crispness."""
    B = x.shape[0]
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = torch.rand(B, 1, 1, 1, device=x.device) * (torch.rand(B, 1, 1, 1, device=x.device) < .5)
    x = x + mix * (blurred - x)
    contrast = 1 + .07 * torch.randn(B, 1, 1, 1, device=x.device)
    return x * contrast + .02 * torch.randn(B, 3, 1, 1, device=x.device) + .04 * torch.rand(B, 1, 1, 1, device=x.device) * torch.randn_like(x)


def _loss(net, x, y):
    f = net.features(x)
    loss = sum(F.cross_entropy(head(f[0]).float(), y[:, k], ignore_index=-1) for k, head in enumerate((net.thing, net.colour, net.pattern, net.size)))
    return loss + F.cross_entropy(net.part_logits(f, y[:, 4].clamp(min=0)).float(), y[:, 5], ignore_index=-1)


def train(seconds, device, count=150000, batch=512, most=10 ** 9, seed=77, say=print):
    """Trains for about the given time, renders included."""
    begun = time.time()
    torch.manual_seed(seed)
    built, labels = draw_labelled(count, seed)
    generator, frames = torch.Generator().manual_seed(seed), []
    azimuth, elevation = data.random_cameras(count, generator)
    built, azimuth, elevation = built.to(device), azimuth[:, :2], elevation[:, :2]
    for i in range(0, count, 4096):
        chunk = slice(i, i + 4096)
        views = data.render_objects(render.normalise(built[chunk]), azimuth[chunk], elevation[chunk])
        frames.append((prepare(views) * 127.5 + 127.5).to(torch.uint8))
    frames, labels = torch.cat(frames), labels.repeat_interleave(2, 0).to(device)
    say(f"judge: {frames.shape[0]} renders after {time.time() - begun:.0f} s")
    net = Judge().to(device).to(memory_format=torch.channels_last)
    rate = 2e-3
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=.03)
    i = 0
    while i < most:
        spent = (time.time() - begun) / seconds
        if spent >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (i + 1) / 200) * max(.002, 1 - spent)
        for _ in range(min(20, most)):
            pick = torch.randint(0, frames.shape[0], (batch,), device=device)
            x = _augment(frames[pick].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = _loss(net, x, labels[pick])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 2.)
            optimizer.step()
        i += 20
    say(f"judge: {i} iterations in {time.time() - begun:.0f} s, loss {float(loss.detach()):.3f}")
    return net.eval()


@torch.no_grad()
def judge_views(net, views, parts=None, batch=1024):
    """views (N, F, H, W, 3) uint8 -> dictionary: thing and colour (N, F) class numbers; pattern and size (N), from all views together;
    part (list over N of {part: colour name}) for the part names asked in parts (list over N)."""
    N, F_ = views.shape[:2]
    device = next(net.parameters()).device
    flat = views.reshape(-1, *views.shape[2:])
    whole, places = (torch.cat(t) for t in zip(*(net.features(prepare(p.to(device))) for p in flat.split(batch))))
    together = lambda logits: logits.log_softmax(-1).view(N, F_, -1).sum(1).argmax(-1).cpu()
    verdict = {"thing": net.thing(whole).argmax(-1).view(N, F_).cpu(), "colour": net.colour(whole).argmax(-1).view(N, F_).cpu(),
               "pattern": together(net.pattern(whole)), "size": together(net.size(whole))}
    found = []
    for i, names in enumerate(parts or []):
        answer, mine = {}, slice(i * F_, (i + 1) * F_)
        for name in names:
            part = torch.full((F_,), objects.PART_NAMES.index(name), device=device)
            logits = net.part_logits((whole[mine], places[mine]), part).log_softmax(-1).sum(0)
            answer[name] = objects.COLOUR_NAMES[int(logits.argmax())]
        found.append(answer)
    verdict["part"] = found
    return verdict


def save(net, path):
    from networks import tensorfile
    tensorfile.save({k: v.half() if v.is_floating_point() else v.int() for k, v in net.state_dict().items()}, path)


def load(path, device="cpu"):
    from networks import tensorfile
    tensors, _ = tensorfile.load(path)
    net = Judge()
    net.load_state_dict({k: v.float() if v.is_floating_point() else v.long() for k, v in tensors.items()})
    return net.to(device).eval()
