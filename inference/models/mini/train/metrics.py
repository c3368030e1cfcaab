"""Figures about sets of four views: right or wrong by the judge, consistent between views, varied between seeds."""
import math

import torch
import torch.nn.functional as F

import objects
import render


def mask_of(views, threshold=.02):
    """uint8 (.., H, W, 3) -> object mask (.., H, W)"""
    return (views.float() / 255 - .5).abs().amax(-1) > threshold


def right(verdict, descriptions):
    """Shares in percent of what a description says and the judge agrees with; sizes of the samples in brackets of the names."""
    things = torch.tensor([objects.THING_NAMES.index(d.thing) for d in descriptions])[:, None]
    thing_ok = verdict["thing"] == things
    share = lambda hits: 100 * sum(hits) / len(hits) if len(hits) else float("nan")
    named = [i for i, d in enumerate(descriptions) if objects.main_colour(d) in objects.COLOUR_NAMES and not d.pattern]
    out = {"prompts": len(descriptions), "thing, view": 100 * float(thing_ok.float().mean()), "thing, all views": share(thing_ok.all(1).tolist())}
    if named:
        colours = torch.tensor([objects.COLOUR_NAMES.index(objects.main_colour(descriptions[i])) for i in named])[:, None]
        colour_ok = verdict["colour"][named] == colours
        out["colour, view"] = 100 * float(colour_ok.float().mean())
        out["thing and colour, all views"] = share((colour_ok & thing_ok[named]).all(1).tolist())
    parts = [answer[p] == c for d, answer in zip(descriptions, verdict["part"]) for p, c in d.parts.items()]
    patterns = [objects.PATTERN_NAMES[int(v)] == d.pattern for d, v in zip(descriptions, verdict["pattern"]) if d.pattern]
    sizes = [objects.SIZE_NAMES[int(v)] == d.size for d, v in zip(descriptions, verdict["size"]) if d.size != "normal"]
    for name, hits in (("part colour", parts), ("pattern", patterns), ("tall or short", sizes)):
        if hits:
            out[name] = share(hits)
    return out


def _rays(azimuth, elevation, size):
    """Camera positions (V, 3) and directions (V, size^2, 3) of views (V)."""
    az, el = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    sa, ca, se, ce = az.sin(), az.cos(), el.sin(), el.cos()
    zero = torch.zeros_like(sa)
    position = torch.stack([ce * sa, -ce * ca, se], -1)
    right_, up = torch.stack([ca, sa, zero], -1), torch.stack([-se * sa, se * ca, ce], -1)
    c = ((torch.arange(size, device=az.device) + .5) / size * 2 - 1) * math.tan(math.radians(render.FIELD_OF_VIEW) / 2)
    v, u = torch.meshgrid(-c, c, indexing="ij")
    direction = -position[:, None] + right_[:, None] * u.reshape(1, -1, 1) + up[:, None] * v.reshape(1, -1, 1)
    return position * render.DISTANCE, F.normalize(direction, dim=-1)


def _project(points, position, azimuth, elevation):
    """World points (P, 3) -> image positions in -1..1 (P, 2) for one view (x right, y down, as grid_sample wants)."""
    az, el = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    sa, ca, se, ce = az.sin(), az.cos(), el.sin(), el.cos()
    right_, up = torch.stack([ca, sa, 0 * sa]), torch.stack([-se * sa, se * ca, ce])
    d = points - position
    depth = -(d @ position) / position.norm()
    half = math.tan(math.radians(render.FIELD_OF_VIEW) / 2)
    return torch.stack([d @ right_, -(d @ up)], -1) / (depth * half)[:, None]


@torch.no_grad()
def consistency(views, azimuth, elevation, samples=160):
    """Mean IoU of each silhouette with the re-projected visual hull of all views of the object: 1 means that one solid explains them.

    views (N, F, H, W, 3) uint8, azimuth and elevation (N, F) degrees -> (N). A pixel of a view is in the hull's image when some point of
    its ray lies inside all silhouettes, looked up with bilinear masks at one half."""
    masks, (N, F_, H, W) = mask_of(views), views.shape[:4]
    scores = []
    for i in range(N):
        position, direction = _rays(azimuth[i], elevation[i], W)
        t = torch.linspace(render.DISTANCE - 1, render.DISTANCE + 1, samples, device=views.device)
        total = 0.
        for a in range(F_):
            inside = masks[i, a].reshape(-1)
            points = position[a] + direction[a][inside][:, None] * t[:, None]  # (P, samples, 3)
            common = torch.ones(points.shape[:2], dtype=torch.bool, device=views.device)
            for b in range(F_):
                if b != a:
                    where = _project(points.reshape(-1, 3), position[b], azimuth[i, b], elevation[i, b])
                    value = F.grid_sample(masks[i, b].float()[None, None], where[None, None], align_corners=False)[0, 0, 0]
                    common &= (value > .5).view(common.shape)
            total += float(common.any(1).float().sum() / max(1, int(inside.sum())))  # the hull lies within every silhouette
        scores.append(total / F_)
    return torch.tensor(scores)


def _distances(views):
    """views (S, F, H, W, 3) of S versions of one description -> mean pairwise silhouette distance (1 - IoU) and colour distance."""
    masks = mask_of(views)
    weight = masks.float()[..., None]
    colour = (views.float() / 255 * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)  # (S, F, 3)
    shape_distance, colour_distance, pairs = 0., 0., 0
    for a in range(len(views)):
        for b in range(a):
            both, either = (masks[a] & masks[b]).sum((1, 2)), (masks[a] | masks[b]).sum((1, 2))
            shape_distance += float((1 - both / either.clamp(min=1)).mean())
            colour_distance += float((colour[a] - colour[b]).norm(dim=-1).mean())
            pairs += 1
    return shape_distance / pairs, colour_distance / pairs


def variety(generated, rendered):
    """Lists of (S, F, H, W, 3): versions of the same description, generated with several seeds and rendered anew. Ratios of mean distances."""
    g = torch.tensor([_distances(v) for v in generated]).mean(0)
    r = torch.tensor([_distances(v) for v in rendered]).mean(0)
    return {"silhouette variety": float(g[0] / r[0]), "colour variety": float(g[1] / r[1])}


def fit_field(views, azimuth, elevation, steps=300, grid=64, rays=4096, samples=64, seed=0):
    """PSNR (dB, object pixels) of one radiance field fitted to the views of an object: how well one solid with fixed colours explains them.

    views (F, H, W, 3) uint8. A dense trilinear grid of density and colour, softplus and sigmoid, Adam, squared error."""
    device, (F_, H, W) = views.device, views.shape[:3]
    generator = torch.Generator(device=device).manual_seed(seed)
    position, direction = _rays(azimuth, elevation, W)
    target, half = (views.float() / 255).reshape(F_, -1, 3), .95
    volume = torch.zeros(1, 4, grid, grid, grid, device=device)
    volume[:, 0] = -1.
    volume.requires_grad_(True)
    adam = torch.optim.Adam([volume], .1, betas=(.9, .99))

    def shoot(view, pixel, jitter):
        near, far = render.DISTANCE - half, render.DISTANCE + half
        t = near + (far - near) * (torch.arange(samples, device=device) + jitter) / samples
        points = position[view][:, None] + direction[view, pixel][:, None] * t[..., None]
        value = F.grid_sample(volume, points[None, None], align_corners=True, padding_mode="border")[0, :, 0]  # (4, R, samples)
        keep = (points.norm(dim=-1) < 1).float()
        alpha = 1 - torch.exp(-F.softplus(value[0] * 4) * keep * 40 * (far - near) / samples)
        through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-7], 1), 1)
        weight = alpha * through[:, :-1]
        return (weight[..., None] * torch.sigmoid(value[1:].permute(1, 2, 0))).sum(1) + .5 * through[:, -1:]

    for i in range(steps):
        view = torch.randint(0, F_, (rays,), generator=generator, device=device)
        pixel = torch.randint(0, H * W, (rays,), generator=generator, device=device)
        jitter = torch.rand(rays, samples, generator=generator, device=device)
        for group in adam.param_groups:
            group["lr"] = .15 * .1 ** (i / steps)
        smooth = sum((volume.narrow(d, 1, grid - 1) - volume.narrow(d, 0, grid - 1)).abs().mean() for d in (2, 3, 4))
        loss = ((shoot(view, pixel, jitter) - target[view, pixel]) ** 2).mean() + 1e-4 * smooth
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        error = []
        for v in range(F_):
            inside = mask_of(views[v]).reshape(-1).nonzero()[:, 0]
            same = torch.full_like(inside, v)
            error.append(((shoot(same, inside, torch.full((len(inside), samples), .5, device=device)) - target[v, inside]) ** 2).reshape(-1))
        return float(-10 * torch.cat(error).mean().log10())
