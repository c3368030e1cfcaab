"""One leg of the training: resumes from a state folder, trains for a given time, writes the new state (files of at most 16 MiB).

    python3 leg.py --out STATE1 --vae-seconds 120 --unet-seconds 260
    python3 leg.py --state STATE1 --out STATE2 --unet-seconds 280 --final
    python3 export.py --state STATE2 --out ..          # weights.safetensors, merges.txt, model.json
    python3 leg.py --state .. --out STATE3 --seed 3 --rate 5e-4 --unet-seconds 205 --final    # trains a finished model on, with fresh moments

Stages: tokenizer and autoencoder (if the state has none), rendering and encoding of fresh objects, UNet and text encoder. The rate of
the last leg (--final) falls to zero. Everything is bounded by wall clock, and the state is rewritten every 75 seconds.
"""
import argparse
import json
import os
import time

import torch

import config
import data
import train_unet
import train_vae
from diffusion import PREFIX, Model
from networks import tensorfile
from tokenizer import Tokenizer


def read_bundle(folder):
    """A finished model as a state: its weights are the average too, and there are no moments."""
    with open(os.path.join(folder, "model.json"), encoding="utf-8") as f:
        scale = json.load(f)["scale_factor"]
    tensors = tensorfile.load(os.path.join(folder, "weights.safetensors"))[0]
    parts = {n: {k[len(p):]: v for k, v in tensors.items() if k.startswith(p)} for n, p in PREFIX.items()}
    weights = {f"{n}.{k}": v for n in ("unet", "text") for k, v in parts[n].items()}
    files = {"vae": parts["vae"], "weights": weights, "average": weights}
    return Tokenizer.read(os.path.join(folder, "merges.txt"), config.CONTEXT), files, {"seed": 0, "iterations": 0, "scale": scale}


def read_state(folder):
    """-> tokenizer, {file: tensors}, numbers of a state or of a bundle; all None without a folder"""
    if not folder:
        return None, {}, {}
    if os.path.exists(os.path.join(folder, "model.json")):
        return read_bundle(folder)
    with open(os.path.join(folder, "state.json"), encoding="utf-8") as f:
        numbers = json.load(f)
    names = ("vae", "weights", "average", "moment1", "moment2")
    found = {n: os.path.join(folder, n + ".safetensors") for n in names}
    files = {n: tensorfile.load(p)[0] for n, p in found.items() if os.path.exists(p)}
    return Tokenizer.read(os.path.join(folder, "merges.txt"), config.CONTEXT), files, numbers


def write_state(folder, tokenizer, vae, adam, numbers):
    """Each file is replaced whole, so that a leg that is cut leaves the state before it."""
    os.makedirs(folder, exist_ok=True)
    tokenizer.write(os.path.join(folder, "merges.txt"))
    files = {"vae": {k: v.half() for k, v in vae.items()}, **(adam.state() if adam else {})}
    for name, tensors in files.items():
        path = os.path.join(folder, name + ".safetensors")
        tensorfile.save(tensors, path + ".part")
        os.replace(path + ".part", path)
    with open(os.path.join(folder, "state.json"), "w", encoding="utf-8") as f:
        json.dump(numbers, f)


def half_copy(vae, sizes, tokenizer, device):
    """An fp16 autoencoder with the fp16 weights that will be shipped."""
    twin = Model(sizes, tokenizer, device).half().vae
    twin.load_state_dict(vae)
    return twin if device == "cuda" else twin.float()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", help="folder of the leg before, or of a finished model; without it training begins")
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vae-seconds", type=float, default=120)
    parser.add_argument("--unet-seconds", type=float, default=260)
    parser.add_argument("--objects", type=int, default=100000, help="objects rendered and encoded for this leg")
    parser.add_argument("--vae-objects", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=128, help="objects of a UNet step")
    parser.add_argument("--vae-batch", type=int, default=64)
    parser.add_argument("--captions", type=int, default=30000, help="objects whose captions the tokenizer learns from")
    parser.add_argument("--rate", type=float, default=8e-4, help="highest rate of the UNet and the text encoder")
    parser.add_argument("--seed", type=int, help="of this leg's objects; default 1, or one more than the state's")
    parser.add_argument("--iterations", type=int, default=10 ** 9, help="upper bound for each stage, for tests")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--final", action="store_true", help="let the rate fall to zero")
    args = parser.parse_args(arguments)
    begun = time.time()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    def say(text):
        print(f"[{time.time() - begun:6.1f}] {text}", flush=True)

    tokenizer, files, numbers = read_state(args.state)
    if tokenizer is None:
        tokenizer = data.learn_tokenizer(config.CONTEXT, args.captions, processes=args.processes)
        say(f"tokenizer: {tokenizer.size} tokens")
    seed = args.seed or numbers.get("seed", 0) + 1
    torch.manual_seed(seed)
    sizes = config.architecture(tokenizer.size)
    model = Model(sizes, tokenizer, args.device)
    if "vae" in files:
        vae = files["vae"]
    else:
        train_vae.train(model.vae, args.vae_seconds, args.device, args.vae_objects, args.vae_batch, most=args.iterations, processes=args.processes,
                        say=say)
        vae = {k: v.half() for k, v in model.vae.state_dict().items()}
        write_state(args.out, tokenizer, vae, None, {"seed": seed, "iterations": 0, "scale": None})
    twin = half_copy(vae, sizes, tokenizer, args.device)
    say("vae: PSNR of unseen renders %.2f dB, object pixels %.2f dB" % train_vae.score(twin, args.device, max(1, min(250, args.objects // 8))))
    dataset = data.Latents(twin, numbers.get("scale"), tokenizer, args.objects, seed, args.device, args.processes)
    say(f"data: {args.objects} objects encoded, scale {dataset.scale:.4f}, deviation {float(dataset.latents[:1000].float().std()):.3f}")
    trainer = train_unet.Trainer(model, dataset, args.device, args.batch, args.rate, average=.999 if args.final else .9995)
    if "weights" in files:
        trainer.adam.restore({k: v for k, v in files.items() if k != "vae"}, numbers["iterations"])
    numbers = {"seed": seed, "iterations": numbers.get("iterations", 0), "scale": dataset.scale}
    save = lambda: write_state(args.out, tokenizer, vae, trainer.adam, numbers)
    numbers["iterations"] += trainer.run(args.unet_seconds, args.final, warm=500 if "moment2" not in files else 50, save=save, most=args.iterations, say=say)
    save()
    if args.device == "cuda":
        say(f"peak memory {torch.cuda.max_memory_allocated() / 2 ** 30:.1f} GiB")
    say("state written")


if __name__ == "__main__":
    main()
