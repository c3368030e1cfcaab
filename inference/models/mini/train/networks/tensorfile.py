"""safetensors files, read and written with nothing but PyTorch (the format: an 8-byte length, a JSON header, raw tensors)."""
import json
import struct

import torch

_NAMES = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16, "I32": torch.int32, "I64": torch.int64, "U8": torch.uint8}
_CODES = {v: k for k, v in _NAMES.items()}


def load(path):
    """-> ({name: tensor}, metadata)"""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), bytearray(f.read())
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        kind = _NAMES[entry["dtype"]]
        flat = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=begin) if end > begin else torch.empty(0, dtype=torch.uint8)
        tensors[name] = flat.clone().view(kind).view(entry["shape"])
    return tensors, metadata


def save(tensors, path, metadata=None):
    """Writes tensors (name order, each aligned to 8 bytes by its own size or padding of the header)."""
    header, at, parts = {"__metadata__": {k: str(v) for k, v in (metadata or {}).items()}}, 0, []
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        raw = bytes(t.reshape(-1).view(torch.uint8).numpy())
        header[name] = {"dtype": _CODES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        parts.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
