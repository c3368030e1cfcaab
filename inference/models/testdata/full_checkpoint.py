"""Writes a checkpoint of the original's names and shapes with random weights, as a real torch.save of 5.2 GB.

usage: python3 -m venv venv && venv/bin/pip install torch
       venv/bin/python full_checkpoint.py mvdream-sd21-tensors.tsv sd-v2.1-base-4view.pt
No tensor is zero, and values are scaled so that activations neither vanish nor explode: 1/sqrt(inputs) for matrices and
convolutions, around 1 for the weights of norms, small for biases. It draws nonsense, but it is the real thing in size and form.
"""
import json
import math
import sys

import torch

table, out = sys.argv[1:]
torch.manual_seed(7)
state = {}
with open(table, encoding="utf-8") as lines:
    for line in lines:
        if line.startswith("#"):
            continue
        name, shape = line.rstrip("\n").split("\t")
        shape = json.loads(shape)
        values = torch.empty(shape).uniform_(-1.7320508, 1.7320508)  # deviation 1, and faster than a normal draw
        if len(shape) >= 2:
            values *= 1 / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            values = 1 + 0.1 * values
        else:
            values *= 0.02
        state[name] = values
torch.save(state, out)
print(len(state), "tensors,", sum(t.numel() for t in state.values()), "elements")
