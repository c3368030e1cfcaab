"""Judges a model bundle in PyTorch on one GPU: held-out prompts at several step counts and guidances, attributes, consistency, variety.

    python3 evaluate.py --model DIR --out DIR [--judge judge.safetensors] [--judge-seconds 40] [--peer DIR]

Without --judge one is trained first and written to OUT. --peer is a second bundle that is judged beside it, on the things that it knows.
Writes OUT/evaluation.json, OUT/judge.safetensors and contact sheets.
"""
import argparse
import json
import os
import time

import torch

import judge
import metrics
import objects
import png
import prompts
from diffusion import Model
from export_views import default_cameras, rendered


class Evaluation:
    def __init__(self, net, device, say):
        self.net, self.device, self.say, self.results = net, device, say, {}

    def record(self, name, figures):
        self.results[name] = figures
        self.say(name + ": " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))

    def judged(self, name, views, descriptions):
        verdict = judge.judge_views(self.net, views, [sorted(d.parts) for d in descriptions])
        self.record(name, metrics.right(verdict, descriptions))
        return verdict

    def worst_things(self, verdict, descriptions, count=8):
        missed = {}
        for seen, d in zip(verdict["thing"].tolist(), descriptions):
            wrong = [objects.THING_NAMES[s] for s in seen if objects.THING_NAMES[s] != d.thing]
            if wrong:
                missed.setdefault(d.thing, []).append(wrong[0])
        ranked = sorted(missed.items(), key=lambda x: -len(x[1]))[:count]
        self.say("most often missed: " + "; ".join(f"{t} {len(w)} ({max(set(w), key=w.count)})" for t, w in ranked))


def sample_set(model, lines, elevation=25., **options):
    azimuth, el = default_cameras(len(lines), elevation)
    return model.views([line["prompt"] for line in lines], azimuth, el, [line["seed"] for line in lines], **options)


def colour_sets(evaluation, model, lines, plans, label=""):
    """plans: [(steps, guidance, rescale)] -> the views of the first plan"""
    first, descriptions = None, [line["description"] for line in lines]
    for steps, guidance, rescale in plans:
        views = sample_set(model, lines, steps=steps, guidance=guidance, rescale=rescale)
        name = f"{label}{steps} steps, guidance {guidance}" + (f", rescale {rescale}" if rescale else "")
        verdict = evaluation.judged(name, views, descriptions)
        if first is None:
            first = views
            evaluation.worst_things(verdict, descriptions)
    return first


def variety_of(evaluation, model, count, seeds, plans):
    described = [(objects.Description(n), n) for n in objects.THING_NAMES[::max(1, len(objects.THING_NAMES) // count)]][:count]
    azimuth, el = default_cameras(seeds)
    renders = [rendered([d] * seeds, azimuth, el, 31 + i, evaluation.device) for i, (d, _) in enumerate(described)]
    azimuth, el = default_cameras(seeds * len(described))
    for steps, guidance, rescale in plans:
        texts = [("an " if n[0] in "aeiou" else "a ") + n for _, n in described for _ in range(seeds)]
        views = model.views(texts, azimuth, el, list(range(len(texts))), steps=steps, guidance=guidance, rescale=rescale)
        views = views.view(len(described), seeds, *views.shape[1:])
        evaluation.record(f"variety, {steps} steps, guidance {guidance}" + (f", rescale {rescale}" if rescale else ""), metrics.variety(views, renders))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--judge")
    parser.add_argument("--judge-seconds", type=float, default=40)
    parser.add_argument("--judge-only", action="store_true")
    parser.add_argument("--peer")
    parser.add_argument("--count", type=int, default=1010)
    parser.add_argument("--seconds", type=float, default=1e9, help="leave out what would start later than this")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begun = time.time()
    say = lambda text: print(f"[{time.time() - begun:6.1f}] {text}", flush=True)
    os.makedirs(args.out, exist_ok=True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    if args.judge:
        net = judge.load(args.judge, args.device)
    else:
        small = {} if args.device == "cuda" else {"count": 64, "batch": 16, "most": 20}
        net = judge.train(args.judge_seconds, args.device, say=say, **small)
        judge.save(net, os.path.join(args.out, "judge.safetensors"))
        net = judge.load(os.path.join(args.out, "judge.safetensors"), args.device)
    if args.judge_only:
        return
    evaluation = Evaluation(net, args.device, say)
    load = lambda folder: Model.read(folder, args.device).half() if args.device == "cuda" else Model.read(folder)
    model = load(args.model)

    def late():
        with open(os.path.join(args.out, "evaluation.json"), "w", encoding="utf-8") as f:
            json.dump(evaluation.results, f, indent=1)
        return time.time() - begun > args.seconds

    lines = list(prompts.lines("held-out", args.count, 1))
    for line in lines:
        line["description"] = objects.Description(**line["description"])
    descriptions = [line["description"] for line in lines]
    azimuth, el = default_cameras(len(lines))
    truth = rendered(descriptions, azimuth, el, 1, args.device)
    evaluation.worst_things(evaluation.judged("held-out renders", truth, descriptions), descriptions)
    views = colour_sets(evaluation, model, lines, [(20, 5., 0.), (50, 5., 0.), (10, 5., 0.), (20, 4., 0.), (50, 4., 0.), (20, 3., 0.)])
    png.write(os.path.join(args.out, "held-out.png"), png.sheet(views[:60].flatten(0, 1), 24, gap=0)[:, :3072])
    late()
    some = list(prompts.lines("attributes", max(8, args.count // 2), 2))
    for line in some:
        line["description"] = objects.Description(**line["description"])
    a2, e2 = default_cameras(len(some))
    evaluation.judged("attributes, renders", rendered([s["description"] for s in some], a2, e2, 2, args.device), [s["description"] for s in some])
    shown = colour_sets(evaluation, model, some, [(20, 5., 0.), (50, 5., 0.), (20, 4., 0.), (20, 3., 0.)], "attributes, ")
    png.write(os.path.join(args.out, "attributes.png"), png.sheet(shown[:60].flatten(0, 1), 24, gap=0)[:, :3072])
    if late():
        return
    variety_of(evaluation, model, 16, 8, [(20, 5., 0.), (20, 3., 0.), (20, 2., 0.), (20, 5., .7)])
    if late():
        return
    n = min(96, len(lines))
    dev = lambda t: t.to(args.device)
    for name, four in (("renders", truth), ("generated, 20 steps", views)):
        score = metrics.consistency(dev(four[:n]), dev(azimuth[:n]), dev(el[:n]))
        evaluation.record(f"silhouette consistency, {name}", {"mean": float(score.mean()), "worst": float(score.min())})
    for name, four in (("renders", truth), ("generated, 20 steps", views)):
        if late():
            return
        fits = [metrics.fit_field(dev(four[i]), dev(azimuth[i]), dev(el[i])) for i in range(0, min(len(lines), 64), 8)]
        evaluation.record(f"field fit, {name}", {"PSNR": sum(fits) / len(fits)})
    if late():
        return
    if args.peer:
        peer = load(args.peer)
        with open(os.path.join(args.peer, "merges.txt"), encoding="utf-8") as f:
            words = {"".join(m.split()).replace("</w>", "") for m in f}
        known = [line for line in lines if line["colour"] != "grey" and all(w in words for w in line["prompt"].lower().replace(",", " ").split() if len(w) > 1)]
        mine = [line["description"] for line in known]
        if known:
            colour_sets(evaluation, peer, known, [(20, 5., 0.)], "peer, its words, ")
            colour_sets(evaluation, model, known, [(20, 5., 0.)], "this model, the peer's words, ")
            a, e = default_cameras(len(known))
            evaluation.judged("renders, the peer's words", rendered(mine, a, e, 3, args.device), mine)
    if late():
        return
    colour_sets(evaluation, model, lines, [(20, 2., 0.), (20, 5., .7), (50, 3., 0.), (10, 3., 0.)])
    for elevation in (-15., 0., 40., 55.):
        four = sample_set(model, lines[:400], elevation, steps=20)
        evaluation.judged(f"elevation {elevation:.0f}, 20 steps", four, descriptions[:400])
    late()


if __name__ == "__main__":
    main()
