"""The fused kernels against plain PyTorch in fp64-free fp32. Run: TRITON_INTERPRET=1 python3 test_kernels.py (no GPU needed), or plainly on a GPU."""
import sys

import torch

from networks import layers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def compare(name, make, shape, channels_last=False, tolerance=1e-3):
    """Forward, input gradient and parameter gradients of the same module with and without kernels."""
    torch.manual_seed(0)
    module = make().to(DEVICE)
    for p in module.parameters():
        p.data += .3 * torch.randn_like(p)
    results = []
    for fused in (False, True):
        layers.FUSED["on"] = fused
        torch.manual_seed(1)
        x = torch.randn(shape, device=DEVICE)
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_(True)
        y = module(x * 1.5 + .4)
        gradients = torch.autograd.grad((y * torch.randn(y.shape, device=DEVICE)).sum(), [x, *module.parameters()])
        results.append([y, *gradients])
    worst = max(float((a - b).detach().norm() / a.detach().norm()) for a, b in zip(*results))
    print(f"{name:28} {worst:.1e}")
    return worst < tolerance


class Geglu(torch.nn.Module):
    def forward(self, x):
        return layers.geglu(x)


def main():
    if layers.kernels is None:
        sys.exit("these tests need triton")
    ok = [compare("group norm 8x8, 64 ch", lambda: layers.GroupNorm(8, 64, 1e-5), (2, 64, 8, 8), True),
          compare("group norm 4x4, 192 ch", lambda: layers.GroupNorm(8, 192, 1e-6, act=False), (3, 192, 4, 4), True),
          compare("group norm 64x64, 32 ch", lambda: layers.GroupNorm(8, 32, 1e-6), (2, 32, 64, 64), True),
          compare("group norm 48x48, 64 ch", lambda: layers.GroupNorm(8, 64, 1e-6, act=False), (1, 64, 48, 48), True),
          compare("layer norm 64", lambda: layers.LayerNorm(64), (5, 33, 64)),
          compare("layer norm 128", lambda: layers.LayerNorm(128), (3, 17, 128)),
          compare("linear", lambda: layers.Linear(48, 96), (3, 50, 48)),
          compare("convolution", lambda: layers.Conv2d(24, 40, 3, 2, 1), (3, 24, 10, 10), True),
          compare("geglu", Geglu, (7, 9, 128))]
    sys.exit(0 if all(ok) else "a kernel differs")


if __name__ == "__main__":
    main()
