"""Judges pictures on a CPU, whoever made them.

    python3 judge_folder.py --prompts prompts.jsonl --pictures DIR [--json FILE] [--sheet FILE.png]

--prompts   a file that prompts.py wrote
--pictures  DIR/<id>/view-0.png … view-3.png of the default cameras, and optionally DIR/<id>/render-00.png …, pictures of the mesh
            from any side (../draw writes both)
Prints the shares that the judge agrees with, for the pictures and for fresh renders of the same descriptions; silhouette
consistency; for the mesh pictures the share on which the judge names the thing; and, where a prompt occurs with four or more
seeds, their variety against renders. Needs PyTorch (1.13 or newer) and g++.
"""
import argparse
import glob
import json
import os

import torch

import judge
import metrics
import objects
import png
import prompts
from export_views import default_cameras, rendered

HERE = os.path.dirname(os.path.abspath(__file__))


def read_views(folder):
    return torch.stack([png.read(os.path.join(folder, f"view-{k}.png")) for k in range(4)])


def renders_of(descriptions, seed=1):
    """Fresh renders at the default cameras (N, 4, H, W, 3)."""
    return rendered(descriptions, *default_cameras(len(descriptions)), seed)


def judged(net, views, descriptions):
    return metrics.right(judge.judge_views(net, views, [sorted(d.parts) for d in descriptions]), descriptions)


def mesh_figures(net, folders, lines):
    """Share of mesh renders on which the judge names the thing, and the things that it misses."""
    hits, total, missed = 0, 0, {}
    for folder, line in zip(folders, lines):
        paths = sorted(glob.glob(os.path.join(folder, "render-*.png")))
        if not paths:
            continue
        seen = judge.judge_views(net, torch.stack([png.read(p) for p in paths])[:, None])["thing"][:, 0]
        right = int((seen == objects.THING_NAMES.index(line["thing"])).sum())
        hits, total = hits + right, total + len(paths)
        if right < len(paths):
            missed[line["thing"]] = missed.get(line["thing"], 0) + len(paths) - right
    return ({"mesh renders": total, "thing named": 100 * hits / total}, missed) if total else (None, None)


def variety_figures(lines, views):
    groups = {}
    for i, line in enumerate(lines):
        groups.setdefault(line["prompt"], []).append(i)
    many = [g for g in groups.values() if len(g) >= 4]
    if not many:
        return None
    fresh = [renders_of([lines[i]["description"] for i in g], 31 + k) for k, g in enumerate(many)]
    return metrics.variety([views[g] for g in many], fresh)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--judge", default=os.path.join(HERE, "judge.safetensors"))
    parser.add_argument("--json")
    parser.add_argument("--sheet", help="contact sheet of the first 48 prompts")
    args = parser.parse_args()
    lines = prompts.read(args.prompts)
    folders = [os.path.join(args.pictures, line["id"]) for line in lines]
    here = [i for i, f in enumerate(folders) if os.path.exists(os.path.join(f, "view-3.png"))]
    if not here:
        parser.error(f"{args.pictures} holds no views of these prompts")
    lines, folders = [lines[i] for i in here], [folders[i] for i in here]
    views, descriptions, net = torch.stack([read_views(f) for f in folders]), [line["description"] for line in lines], judge.load(args.judge)
    azimuth, elevation = default_cameras(len(lines))
    some = slice(0, 96)
    figures = {"renders": judged(net, renders_of(descriptions), descriptions), "pictures": judged(net, views, descriptions),
               "silhouette consistency": {"mean": float(metrics.consistency(views[some], azimuth[some], elevation[some]).mean())}}
    meshes, missed = mesh_figures(net, folders, lines)
    if meshes:
        figures["meshes"] = meshes
    varied = variety_figures(lines, views)
    if varied:
        figures["variety against renders"] = varied
    for name, row in figures.items():
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()))
    if missed:
        print("mesh renders not named: " + ", ".join(f"{t} {n}" for t, n in sorted(missed.items(), key=lambda x: -x[1])))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(figures, f, indent=1)
            f.write("\n")
    if args.sheet:
        png.write(args.sheet, png.sheet(views[:48].flatten(0, 1), 24, gap=0))


if __name__ == "__main__":
    main()
