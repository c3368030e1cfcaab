"""End-to-end test on a CPU, in well under two minutes: a few objects, two steps of each stage, two legs, export, reload, one sample.

    python3 smoke.py        (needs g++ and PyTorch 1.13 or newer, e.g. Debian's python3-torch)
"""
import collections
import json
import os
import sys
import tempfile
import time

import torch

import export
import leg
import objects
import render
from diffusion import Model, ddim_steps
from networks import tensorfile


def check(ok, what):
    if not ok:
        sys.exit(f"smoke: {what}")


def check_objects():
    r, drawn = objects.Random(3), collections.Counter()
    for _ in range(3000):
        d = objects.draw(r)
        drawn[d.thing] += 1
        check(not (d.colour and objects.held_out(d.thing, d.colour)), f"held-out pair in training: {d}")
        check(not objects.held_out(d.thing, objects.main_colour(d)), f"held-out pair through a part: {d}")
        text = objects.caption(d, r)
        check(text == " ".join(text.split()), f"stray space in caption {text!r}")
    check(len(drawn) == len(objects.THING_NAMES) >= 48, "a thing is never drawn")
    mug = objects.Description("mug", colour="red", parts={"handle": "blue"})
    check(objects.caption(mug, objects.Random(0)) == objects.caption(mug, objects.Random(0)), "captions depend on more than the seed")
    built = render.normalise(torch.stack([torch.from_numpy(objects.build(mug, s)[0]) for s in range(2)]))
    views = render.render(built, torch.tensor([0, 1]), torch.tensor([110., 20.]), torch.tensor([25., 55.]))
    check(views.shape == (2, 128, 128, 3), f"views of shape {tuple(views.shape)}")
    seen = (views.float() - 127.5).abs().amax(-1).gt(6).float().mean((1, 2))
    check(bool((seen > .05).all() and (seen < .8).all()), f"object covers {seen.tolist()} of the view")
    depth = render.field_values(built[0], torch.tensor([[0., 0., .2], [0., 0., 2.]]))
    check(bool((depth > 0).all()), "a mug must be hollow")
    points, normals = render.surface_points(built[0], 500)
    check(float(render.field_values(built[0], points.contiguous()).abs().max()) < 5e-3, "surface points off the surface")
    check(float(render.field_values(built[0], (points + .01 * normals).contiguous()).mean()) > 0, "normals point inwards")


def main():
    begun = time.time()
    torch.set_num_threads(2)
    check_objects()
    check(ddim_steps(20)[:2] == [951, 901] and len(ddim_steps(30)) == 31, "timesteps of DDIM")
    with tempfile.TemporaryDirectory() as folder:
        first, second, out = (os.path.join(folder, n) for n in ("first", "second", "bundle"))
        tiny = ["--device", "cpu", "--objects", "4", "--vae-objects", "2", "--batch", "1", "--vae-batch", "1", "--captions", "200", "--iterations", "2",
                "--processes", "1"]
        leg.main(["--out", first] + tiny)
        leg.main(["--state", first, "--out", second, "--final"] + tiny)
        for name in os.listdir(second):
            check(os.path.getsize(os.path.join(second, name)) <= 16 << 20, f"{name} is larger than 16 MiB")
        export.bundle(second, out)
        with open(os.path.join(out, "model.json"), encoding="utf-8") as f:
            check(len(json.load(f)["vocabulary"]["things"]) == len(objects.THING_NAMES), "things in model.json")
        state, _ = tensorfile.load(os.path.join(second, "average.safetensors"))
        model = Model.read(out)
        check(torch.equal(model.unet.out[2].weight.half(), state["unet.out.2.weight"]), "weights changed on the way through the files")
        views = model.views(["a red mug"], torch.tensor([[110., 200., 290., 20.]]), torch.full((1, 4), 25.), [1], steps=2)
        check(views.shape == (1, 4, 128, 128, 3), f"sample of shape {tuple(views.shape)}")
    print(f"smoke: ok in {time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
