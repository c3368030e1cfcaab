"""Writes the checkpoints that torch_test.go reads, with a real PyTorch, and what each tensor holds.

usage: python3 -m venv venv && venv/bin/pip install torch && venv/bin/python checkpoints.py
The files are committed; run this again only to add a case.
"""
import collections
import json
import os
import pathlib

import torch

here = pathlib.Path(__file__).parent
torch.manual_seed(1)


def values(t):
    t = t.detach()
    return {
        "dtype": str(t.dtype).removeprefix("torch."),
        "shape": list(t.shape),
        "values": t.to(torch.float64).flatten().tolist(),
    }


def write(name, content, tensors, **options):
    torch.save(content, here / (name + ".pt"), **options)
    # torch.load with weights_only is PyTorch's own careful reader: what it gives is the truth.
    again = torch.load(here / (name + ".pt"), weights_only=True)
    again = tensors(again)
    (here / (name + ".json")).write_text(json.dumps({k: values(v) for k, v in again.items()}, indent=0))


base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
every = {
    "single": torch.randn(3, 5),
    "half": torch.randn(2, 3).half(),
    "brain": torch.randn(4).bfloat16(),
    "double": torch.randn(2, dtype=torch.float64),
    "long": torch.tensor([-(2**40), 7]),
    "int": torch.tensor([-3, 4], dtype=torch.int32),
    "short": torch.tensor([-3, 4], dtype=torch.int16),
    "char": torch.tensor([-3, 4], dtype=torch.int8),
    "byte": torch.tensor([3, 250], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(0.25),
    "empty": torch.empty(0, 3),
    "special": torch.tensor([1e-40, -0.0, 3.4e38]),
    # Views of one storage: offset, strides, a transpose, channels last, a diagonal.
    "base": base,
    "rows": base[1:3],
    "column": base[:, 2],
    "steps": base[::2, 1::3],
    "transposed": base.t(),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "diagonal": base.diagonal(),
    "one_row": base.t()[2:3],
}
write("every", every, lambda d: d)

module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.Linear(4, 2))
write("module", module.state_dict(), lambda d: d)
write(
    "wrapped",
    {"epoch": 3, "state_dict": collections.OrderedDict(module.state_dict()), "done": True, "note": None},
    lambda d: d["state_dict"],
)
write("legacy", {"a": torch.ones(2)}, lambda d: d, _use_new_zipfile_serialization=False)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/a-checkpoint-ran-this",)


torch.save({"a": torch.ones(2), "b": Evil()}, here / "evil.pt")
torch.save({"a": torch.ones(1).expand(1000, 1000)}, here / "expanded.pt")
torch.save([torch.ones(2)], here / "list.pt")
torch.save({"a": 1}, here / "nothing.pt")
torch.save(torch.nn.Linear(2, 2), here / "whole_module.pt")
torch.save({"a": torch.nn.Parameter(torch.ones(2))}, here / "parameter.pt")
torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(2)), str(here / "script.pt"))
