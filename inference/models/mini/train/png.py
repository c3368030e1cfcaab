"""8-bit RGB PNG files, read and written without an imaging library."""
import struct
import zlib

import torch


def write(path, image):
    """image (H, W, 3) uint8"""
    h, w, _ = image.shape
    raw = bytes(torch.cat([torch.zeros(h, 1, dtype=torch.uint8), image.cpu().reshape(h, w * 3)], 1).contiguous().numpy())

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def _paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def read(path):
    """-> (H, W, 3) uint8; 8-bit RGB or RGBA without interlacing (alpha is dropped)"""
    with open(path, "rb") as f:
        data = f.read()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{path}: not a PNG file")
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            w, h, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
            if depth != 8 or colour not in (2, 6) or interlace:
                raise ValueError(f"{path}: only 8-bit RGB or RGBA without interlacing")
        elif kind == b"IDAT":
            packed += body
        at += size + 12
    step = 4 if colour == 6 else 3
    lines, stride, last, out = zlib.decompress(packed), w * step, bytearray(w * step), []
    for y in range(h):
        kind, row = lines[y * (stride + 1)], bytearray(lines[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride if kind else 0):
            left = row[i - step] if i >= step else 0
            up, corner = last[i], last[i - step] if i >= step else 0
            row[i] = (row[i] + (left, up, (left + up) // 2, _paeth(left, up, corner))[kind - 1]) & 255
        last = row
        out.append(row)
    image = torch.frombuffer(bytearray(b"".join(out)), dtype=torch.uint8).view(h, w, step)
    return image[:, :, :3].clone()


def sheet(images, columns, gap=2):
    """images (N, H, W, 3) uint8 -> one image, row by row"""
    n, h, w, _ = images.shape
    rows = -(-n // columns)
    out = torch.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=torch.uint8)
    for i in range(n):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        out[y:y + h, x:x + w] = images[i]
    return out
