"""Draws the throughput of the UNet against the batch, ours beside PyTorch's, from one run of scripts/bench_gpu.sh.

    python3 tools/plot.py DIR OUT.svg

DIR holds peer.json (tools/peer.py) and ours.json (TestFullSpeed). Needs nothing but Python.
"""
import json
import pathlib
import sys

BATCHES = [8, 16, 32, 64]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 30, 50, 60


def main():
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    ours, peer = (json.loads((source / f).read_text()) for f in ("ours.json", "peer.json"))
    lines = [("dreamcad", "#1b6ca8", ours["ms"], ""), ("PyTorch, CUDA graph", "#b5541c", peer["ms"], ""),
             ("PyTorch, torch.compile", "#6b8e23", peer["ms"], " compiled")]
    series = []
    for name, colour, ms, suffix in lines:
        points = [(b, b / ms[f"unet {b}{suffix}"] * 1e3) for b in BATCHES if f"unet {b}{suffix}" in ms]
        if points:
            series.append((name, colour, points))
    top = max(y for _, _, points in series for _, y in points)
    step = next(s for s in (50, 100, 200, 250, 500, 1000, 2000) if top / s <= 7)
    top = (int(top / step) + 1) * step
    x = lambda b: LEFT + (WIDTH - LEFT - RIGHT) * BATCHES.index(b) / (len(BATCHES) - 1)
    y = lambda v: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * v / top
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="24" font-size="15">UNet throughput on {ours["gpu"]}: latents of 32×32 a second</text>']
    for v in range(0, top + 1, step):
        out.append(f'<path d="M{LEFT} {y(v):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>')
    for b in BATCHES:
        out.append(f'<text x="{x(b):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{b}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">batch</text>')
    for i, (name, colour, points) in enumerate(series):
        path = " ".join(f"{x(b):.1f},{y(v):.1f}" for b, v in points)
        if len(points) == len(BATCHES):
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for b, v in points:
            out.append(f'<circle cx="{x(b):.1f}" cy="{y(v):.1f}" r="4" fill="{colour}"/>')
            out.append(f'<text x="{x(b):.1f}" y="{y(v) - 8:.1f}" text-anchor="middle" fill="{colour}">{v:.0f}</text>')
        out.append(f'<text x="{LEFT + 10 + 190 * i}" y="42" fill="{colour}">{name}</text>')
    target.write_text("\n".join([*out, "</svg>", ""]))


if __name__ == "__main__":
    main()
