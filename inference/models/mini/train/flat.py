"""AdamW over one flat buffer, with a weight average, made for capture in a CUDA graph.

Matrices and biases are trained through a low-precision copy, norms directly; masters, moments and average are fp32. Every
parameter of the modules becomes a view of a flat buffer, so a step is a dozen operations however many tensors there are.
"""
import torch

from networks.layers import GroupNorm, LayerNorm


def _slice(flat, at, p):
    """View of flat[at:] in the shape of p; channels-last memory for convolution kernels."""
    part = flat[at:at + p.numel()]
    if p.dim() == 4:
        o, i, h, w = p.shape
        return part.view(o, h, w, i).permute(0, 3, 1, 2)
    return part.view(p.shape)


class FlatAdam:
    def __init__(self, modules, kind, rate, decay=0., average=.999, clip=1., betas=(.9, .99)):
        """modules: {name: module}, trained in place; kind: type of the low-precision copy; rate and average may be changed between steps."""
        norms = {id(p) for m in modules.values() for layer in m.modules() if isinstance(layer, (GroupNorm, LayerNorm)) for p in layer.parameters()}
        named = [(f"{n}.{k}", p) for n, m in modules.items() for k, p in m.named_parameters()]
        self.named = [x for x in named if id(x[1]) not in norms] + [x for x in named if id(x[1]) in norms]
        device = self.named[0][1].device
        total = sum(p.numel() for _, p in self.named)
        self.low = sum(p.numel() for _, p in self.named if id(p) not in norms)
        zeros = lambda n, t=torch.float32: torch.zeros(n, dtype=t, device=device)
        self.master, self.average, self.m, self.v, self.gradient = (zeros(total) for _ in range(5))
        self.copy, self.copy_gradient = zeros(self.low, kind), zeros(self.low, kind)
        self.rate, self.keep, self.count = (torch.tensor(x, dtype=torch.float32, device=device) for x in (rate, average, 0.))
        self.decay, self.clip, self.betas, self.places, at = decay, clip, betas, [], 0
        for name, p in self.named:
            _slice(self.master, at, p).copy_(p.detach())
            home, slope = (self.copy, self.copy_gradient) if at < self.low else (self.master, self.gradient)
            self.places.append((name, at, p))
            p.requires_grad_(True)
            p.data = _slice(home, at, p)
            p.grad = _slice(slope, at, p)
            at += p.numel()
        self.average.copy_(self.master)
        self.copy.copy_(self.master[:self.low])

    @torch.no_grad()
    def step(self):
        """One update from the gradients gathered since the last one."""
        g, (b1, b2) = self.gradient, self.betas
        g[:self.low].copy_(self.copy_gradient)
        g.mul_((self.clip / (g.norm() + 1e-6)).clamp(max=1.)).nan_to_num_(0., 0., 0.)
        self.count += 1
        self.m.lerp_(g, 1 - b1)
        self.v.mul_(b2).addcmul_(g, g, value=1 - b2)
        size = (self.v / (1 - b2 ** self.count)).sqrt_().add_(1e-8)
        self.master.mul_(1 - self.rate * self.decay).sub_(self.m / size * (self.rate / (1 - b1 ** self.count)))
        self.average.lerp_(self.master, torch.maximum(1 - self.keep, 1 / (self.count + 1)))
        self.copy.copy_(self.master[:self.low])
        self.gradient.zero_()
        self.copy_gradient.zero_()

    def state(self):
        """fp16 weights and average, bf16 moments: {file: {name: tensor}}; a few rounding errors are the price of small files."""
        files = {"weights": (self.master, torch.float16), "average": (self.average, torch.float16), "moment1": (self.m, torch.bfloat16),
                 "moment2": (self.v, torch.bfloat16)}
        return {f: {name: _slice(flat, at, p).to(kind) for name, at, p in self.places} for f, (flat, kind) in files.items()}

    def restore(self, files, count):
        """Takes back what state gave. Missing moments start anew."""
        buffers = {"weights": self.master, "average": self.average, "moment1": self.m, "moment2": self.v}
        for f, tensors in files.items():
            for name, at, p in self.places:
                _slice(buffers[f], at, p).copy_(tensors[name].to(p.device))
        self.copy.copy_(self.master[:self.low])
        self.count.fill_(count if "moment2" in files else 0)

    def averaged(self, module_name):
        """State dictionary of the averaged weights of one module, fp32."""
        start = module_name + "."
        return {name[len(start):]: _slice(self.average, at, p).clone() for name, at, p in self.places if name.startswith(start)}


def captured(step, device, warm=3):
    """A callable that runs step: as one CUDA graph on a GPU, plainly elsewhere."""
    if torch.device(device).type != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
