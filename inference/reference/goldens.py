"""Writes the reference tensors that the Go tests compare with.

    make goldens          (or: python3 inference/reference/goldens.py)

Needs PyTorch on the CPU (pip install torch numpy). Everything is fp32 on the
weights of a bundle; the digest of the weights is noted in the file, so that the
tests can tell when the bundle was replaced.
"""

import argparse
import json
import os

import torch

import mvdream

PROMPTS = ["a ceramic coffee mug", "a red and white striped vase, 3d asset", "A wooden chair with blue legs", ""]
HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--bundle", default=os.path.join(HERE, "../models/mini"))
    p.add_argument("--out", default=os.path.join(HERE, "../testdata/golden.safetensors"))
    p.add_argument("--steps", type=int, default=20, help="steps of the sampling run")
    a = p.parse_args()
    torch.set_grad_enabled(False)
    model = json.load(open(os.path.join(a.bundle, "model.json")))
    path = os.path.join(a.bundle, "weights.safetensors")
    w = mvdream.load(path)
    out = {}

    tok = mvdream.Tokenizer(os.path.join(a.bundle, "merges.txt"), model["text"]["vocab"], model["text"]["context_length"])
    ids = torch.tensor([tok(x) for x in PROMPTS], dtype=torch.int32)
    context = mvdream.text(w, model["text"], ids)
    out["ids"], out["context"] = ids, context

    views = model["views"]
    camera = mvdream.cameras([90 + 360 * i / views for i in range(views)], 15)
    out["camera"] = camera
    latent = model["image_size"] >> (len(model["vae"]["ch_mult"]) - 1)
    noise = torch.randn(views, 4, latent, latent, generator=torch.Generator().manual_seed(0))
    out["noise"] = noise
    both = torch.cat([context[3:4].expand(views, -1, -1), context[0:1].expand(views, -1, -1)])

    def predict(x, t):
        x2, t2 = torch.cat([x, x]), torch.full((2 * views,), t)
        return mvdream.unet(w, model["unet"], x2, t2, both, torch.cat([camera, camera]), views)

    for t in (981, 500, 1):
        out[f"unet.t{t}"] = predict(noise, t)
    z = mvdream.ddim(predict, noise, mvdream.alphas(model), a.steps, 5.0)
    out["latents"] = z
    image = mvdream.decode(w, model["vae"], z / model["scale_factor"])
    out["image"] = image
    image = image.clamp(-1, 1)
    out["moments_of_clamped_image"] = mvdream.encode(w, model["vae"], image)

    cotangent = torch.randn(views, 4, latent, latent, generator=torch.Generator().manual_seed(1))
    with torch.enable_grad():
        x = image.clone().requires_grad_()
        mean = mvdream.encode(w, model["vae"], x)[:, :4]
        (grad,) = torch.autograd.grad(mean, x, cotangent)
    out["vjp.cotangent_of_mean"], out["vjp.image_gradient"] = cotangent, grad

    meta = {"weights_sha256": mvdream.digest(path), "prompts": json.dumps(PROMPTS), "steps": str(a.steps), "guidance": "5", "torch": torch.__version__}
    mvdream.save(a.out, {k: v.detach() for k, v in out.items()}, meta)
    print(f"{a.out}: {os.path.getsize(a.out)} bytes for weights {meta['weights_sha256'][:12]}")


if __name__ == "__main__":
    main()
