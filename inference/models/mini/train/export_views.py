"""Writes renders as views, with the true shape: how good is a reconstruction, apart from the model?

    python3 export_views.py --out DIR [--count 69] [--seed 1] [--prompts FILE.jsonl]

For each description a folder DIR/0000, 0001, …:
    view-0.png … view-3.png   the four default views, 128 x 128, background 0.5
    truth.json                prompt, description, cameras [{azimuth, elevation (network's degrees), fov, distance}], and the two files:
    points.f32                20,000 x 6 little-endian float32: point and outward normal, spread evenly over the whole surface,
                              inner walls of hollow things included
    field.f32                 64^3 float32, x fastest: the generator's field at the cell centres of [-1, 1]^3, negative inside. Its sign is
                              exact; its size is a lower bound of the distance
World: z up, front +x, camera position = distance * (cosE sinA, -cosE cosA, sinE) for azimuth A and elevation E.
With --prompts the descriptions come from a file that prompts.py wrote, else one plain description of every thing.
"""
import argparse
import json
import os

import torch

import objects
import png
import render

AZIMUTHS, ELEVATION = (110., 200., 290., 20.), 25.


def build_all(descriptions, seeds, device="cpu"):
    """-> normalised objects (N, OBJECT)"""
    built = [torch.from_numpy(objects.build(d, s)[0]) for d, s in zip(descriptions, seeds)]
    return render.normalise(torch.stack(built).to(device))


def rendered(descriptions, azimuth, elevation, seed, device="cpu"):
    """Fresh renders (N, F, H, W, 3) uint8 on the CPU, each with proportions of its own; another seed gives others."""
    return render_views(build_all(descriptions, (seed * 7919 + i for i in range(len(descriptions))), device), azimuth, elevation).cpu()


def render_views(built, azimuth, elevation, size=128):
    """built (N, OBJECT), azimuth and elevation (N, F) degrees -> (N, F, size, size, 3) uint8"""
    n, f = azimuth.shape
    which = torch.arange(n, dtype=torch.int32).repeat_interleave(f).to(built.device)
    views = render.render(built, which, azimuth.reshape(-1).to(built.device), elevation.reshape(-1).to(built.device), size)
    return views.view(n, f, size, size, 3)


def default_cameras(n, elevation=ELEVATION):
    """-> azimuth (n, 4), elevation (n, 4)"""
    return torch.tensor(AZIMUTHS).expand(n, 4).contiguous(), torch.full((n, 4), float(elevation))


def grid(n=64):
    """Cell centres of [-1, 1]^3, x fastest -> (n^3, 3)"""
    c = (torch.arange(n) + .5) / n * 2 - 1
    return torch.stack([c.repeat(n * n), c.repeat_interleave(n).repeat(n), c.repeat_interleave(n * n)], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=len(objects.THING_NAMES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--elevation", type=float, default=ELEVATION)
    parser.add_argument("--prompts")
    args = parser.parse_args()
    if args.prompts:
        with open(args.prompts, encoding="utf-8") as f:
            lines = [json.loads(line) for line in f][:args.count]
        descriptions, texts = [objects.Description(**line["description"]) for line in lines], [line["prompt"] for line in lines]
    else:
        names = [objects.THING_NAMES[i % len(objects.THING_NAMES)] for i in range(args.count)]
        descriptions, texts = [objects.Description(n) for n in names], [f"a {n}" for n in names]
    built = build_all(descriptions, range(args.seed * 100003, args.seed * 100003 + len(descriptions)))
    azimuth, elevation = default_cameras(len(descriptions), args.elevation)
    views, cells = render_views(built, azimuth, elevation), grid()
    for i, d in enumerate(descriptions):
        folder = os.path.join(args.out, f"{i:04d}")
        os.makedirs(folder, exist_ok=True)
        for k in range(4):
            png.write(os.path.join(folder, f"view-{k}.png"), views[i, k])
        points, normals = render.surface_points(built[i], 20000, seed=args.seed + i)
        cameras = [{"azimuth": float(a), "elevation": float(e), "fov": render.FIELD_OF_VIEW, "distance": render.DISTANCE}
                   for a, e in zip(azimuth[i], elevation[i])]
        with open(os.path.join(folder, "truth.json"), "w", encoding="utf-8") as f:
            json.dump({"prompt": texts[i], "description": d.as_dict(), "cameras": cameras, "points": "points.f32", "field": "field.f32", "grid": 64}, f)
        for name, values in (("points.f32", torch.cat([points, normals], 1)), ("field.f32", render.field_values(built[i], cells))):
            with open(os.path.join(folder, name), "wb") as f:
                f.write(bytes(values.float().contiguous().numpy().astype("<f4")))


if __name__ == "__main__":
    main()
