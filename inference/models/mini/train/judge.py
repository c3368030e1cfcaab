"""The judge: a small classifier of views, trained on fresh renders alone. It never sees a generated image, nor the autoencoder.

It names the thing, its main colour, the pattern, and tall or short, from one view; and the colour of a named part, from one or more views.
"""
import time

import torch
import torch.nn.functional as F
from torch import nn

import data
import objects
import render
from objects.palette import MAIN_COLOURS

SIZE = 64  # pixels a side that the judge looks at


class Judge(nn.Module):
    """Views (B, 3, 64, 64) in -1..1 -> features (B, 384)."""

    def __init__(self):
        super().__init__()

        def block(a, b, stride):
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())

        self.body = nn.Sequential(block(3, 32, 2), block(32, 64, 2), block(64, 64, 1), block(64, 128, 2), block(128, 128, 1), block(128, 192, 2))
        things, colours = len(objects.THING_NAMES), len(objects.COLOUR_NAMES)
        self.thing, self.colour = nn.Linear(384, things), nn.Linear(384, colours)
        self.pattern, self.size = nn.Linear(384, len(objects.PATTERN_NAMES)), nn.Linear(384, len(objects.SIZE_NAMES))
        self.part = nn.Embedding(len(objects.PART_NAMES), 32)
        self.part_colour = nn.Sequential(nn.Linear(384 + 32, 160), nn.ReLU(), nn.Linear(160, colours))

    def features(self, views):
        h = self.body(views)
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)

    def part_logits(self, features, part):
        return self.part_colour(torch.cat([features, self.part(part)], 1))


def prepare(views):
    """uint8 (B, H, W, 3) -> (B, 3, 64, 64) in -1..1, averaged down"""
    x = (views.float() / 127.5 - 1).permute(0, 3, 1, 2)
    return F.interpolate(x, size=(SIZE, SIZE), mode="area")


def labels_of(d, slots):
    """Training labels, -1 where nothing can be said: thing, colour, pattern, size."""
    thing = objects.THINGS[d.thing]
    colours = objects.COLOUR_NAMES
    main = colours.index(slots[0]) if slots[0] in MAIN_COLOURS else -1
    size = objects.SIZE_NAMES.index(d.size) if thing.size else -1
    return [objects.THING_NAMES.index(d.thing), main, objects.PATTERN_NAMES.index(d.pattern or "plain"), size]


def draw_labelled(count, seed):
    """Objects of all descriptions, held-out pairs included -> objects (count, OBJECT), labels (count, 6)"""
    r, built, labels = objects.Random(seed), [], []
    for _ in range(count):
        d = objects.draw(r)
        if r.chance(.4):
            d.colour = r.pick(objects.COLOUR_NAMES)  # pairs that training never names, too
        thing = objects.THINGS[d.thing]
        d.parts = {p: c for p, c in d.parts.items() if thing.parts[p] != 0}
        o, slots = objects.build(d, r.random())
        part, colour = -1, -1
        if thing.parts:
            name = r.pick(sorted(d.parts)) if d.parts else r.pick(sorted(thing.parts))
            tone = slots[thing.parts[name]]
            if tone in MAIN_COLOURS:
                part, colour = objects.PART_NAMES.index(name), objects.COLOUR_NAMES.index(tone)
        built.append(torch.from_numpy(o))
        labels.append(labels_of(d, slots) + [part, colour])
    return torch.stack(built), torch.tensor(labels)


def _augment(x):
    """Blur, noise, contrast and brightness: a judge must not live on the renderer's crispness."""
    B = x.shape[0]
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = torch.rand(B, 1, 1, 1, device=x.device) * (torch.rand(B, 1, 1, 1, device=x.device) < .5)
    x = x + mix * (blurred - x)
    contrast = 1 + .1 * torch.randn(B, 1, 1, 1, device=x.device)
    return x * contrast + .03 * torch.randn(B, 3, 1, 1, device=x.device) + .04 * torch.rand(B, 1, 1, 1, device=x.device) * torch.randn_like(x)


def train(seconds, device, count=60000, batch=512, most=10 ** 9, seed=77, say=print):
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
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=.02)
    i = 0
    while i < most:
        spent = (time.time() - begun) / seconds
        if spent >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (i + 1) / 100) * max(.01, 1 - spent)
        for _ in range(min(20, most)):
            pick = torch.randint(0, frames.shape[0], (batch,), device=device)
            x, y = _augment(frames[pick].float() / 127.5 - 1), labels[pick]
            f = net.features(x)
            loss = sum(F.cross_entropy(head(f), y[:, k], ignore_index=-1) for k, head in enumerate((net.thing, net.colour, net.pattern, net.size)))
            loss = loss + F.cross_entropy(net.part_logits(f, y[:, 4].clamp(min=0)), y[:, 5], ignore_index=-1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        i += 20
    say(f"judge: {i} iterations in {time.time() - begun:.0f} s, loss {float(loss.detach()):.3f}")
    return net.eval()


@torch.no_grad()
def judge_views(net, views, parts=None, batch=2048):
    """views (N, F, H, W, 3) uint8 -> dictionary: thing and colour (N, F) class numbers; pattern and size (N), from all views together;
    part (list over N of {part: colour name}) for the part names asked in parts (list over N)."""
    N, F_ = views.shape[:2]
    device = next(net.parameters()).device
    flat = views.reshape(-1, *views.shape[2:])
    f = torch.cat([net.features(prepare(p.to(device))) for p in flat.split(batch)])
    together = lambda logits: logits.log_softmax(-1).view(N, F_, -1).sum(1).argmax(-1).cpu()
    verdict = {"thing": net.thing(f).argmax(-1).view(N, F_).cpu(), "colour": net.colour(f).argmax(-1).view(N, F_).cpu(),
               "pattern": together(net.pattern(f)), "size": together(net.size(f))}
    found = []
    for i, names in enumerate(parts or []):
        answer = {}
        for name in names:
            part = torch.full((F_,), objects.PART_NAMES.index(name), device=device)
            logits = net.part_logits(f[i * F_:(i + 1) * F_], part).log_softmax(-1).sum(0)
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
