"""Turns a training state into the model bundle: weights.safetensors (fp16), merges.txt, model.json.

    python3 export.py --state STATE --out DIR [--guidance X]
"""
import argparse
import hashlib
import json
import os

import torch

import config
from diffusion import PREFIX, alphas
from leg import read_state
from networks import tensorfile


CHECKED = ["a ceramic coffee mug", "a red and white striped vase, 3d asset", "A wooden chair with blue legs"]


def _file(folder, name):
    with open(os.path.join(folder, name), "rb") as f:
        raw = f.read()
    return {"name": name, "sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}


def bundle(state, out, guidance=None):
    tokenizer, files, numbers = read_state(state)
    tensors = {PREFIX["vae"] + k: v for k, v in files["vae"].items()}
    for name, v in files["average"].items():
        net, key = name.split(".", 1)
        tensors[PREFIX[net] + key] = v
    sizes = config.architecture(tokenizer.size, numbers["scale"])
    if guidance is not None:
        sizes["defaults"]["guidance_scale"] = guidance
    os.makedirs(out, exist_ok=True)
    tensorfile.save({k: v.to(torch.float16) for k, v in tensors.items()}, os.path.join(out, "weights.safetensors"),
                    {"format": "pt", "scale_factor": numbers["scale"]})
    tokenizer.write(os.path.join(out, "merges.txt"))
    describe(out, sizes, tokenizer)


def describe(out, sizes, tokenizer):
    """Writes model.json beside the weights and merges: sizes, digests, values to check, and the words that the model knows."""
    abar = alphas(sizes)
    ids = {p: [i for i in tokenizer(p)[1:] if i not in (0, tokenizer.size - 1)] for p in CHECKED}
    sizes = {**sizes, "files": {"weights": _file(out, "weights.safetensors"), "merges": _file(out, "merges.txt")},
             "check": {"tokens": [{"prompt": p, "ids": i} for p, i in ids.items()],
                       "alphas_bar": [{"t": t, "value": round(float(abar[t]), 9)} for t in (0, 500, 981)]},
             "vocabulary": config.vocabulary()}
    with open(os.path.join(out, "model.json"), "w", encoding="utf-8") as f:
        json.dump(sizes, f, indent=1)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--guidance", type=float)
    args = parser.parse_args()
    bundle(args.state, args.out, args.guidance)


if __name__ == "__main__":
    main()
