"""Fused Triton kernels for channels-last activations: group norm (+ SiLU), layer norm, GEGLU; forward and backward.

At the mini model's widths a training step is bound by memory, so each of these reads its input once where eager PyTorch
reads and writes it three to six times. Arithmetic is fp32; the plain versions in layers.py are the specification, and
test_kernels.py compares them (TRITON_INTERPRET=1 runs them without a GPU).
"""
import torch
import triton
import triton.language as tl


@triton.jit
def _silu(z):
    return z * tl.sigmoid(z)


@triton.jit
def _silu_slope(z):
    s = tl.sigmoid(z)
    return s * (1 + z * (1 - s))


# ---- group norm of small images: one program holds one group of one image, (P, K) = pixels x channels of the group ----

@triton.jit
def _group_forward(x, w, b, y, stats, C, K, G, HW: tl.constexpr, KB: tl.constexpr, eps, ACT: tl.constexpr):
    n, g = tl.program_id(0), tl.program_id(1)
    k, p = tl.arange(0, KB), tl.arange(0, HW)
    keep = (k < K)[None, :]
    at = n.to(tl.int64) * HW * C + p[:, None] * C + (g * K + k)[None, :]
    v = tl.load(x + at, mask=keep, other=0.).to(tl.float32)
    count = HW * K
    mean = tl.sum(tl.sum(v, 0), 0) / count
    d = tl.where(keep, v - mean, 0.)
    rstd = 1. / tl.sqrt(tl.sum(tl.sum(d * d, 0), 0) / count + eps)
    gain = tl.load(w + g * K + k, mask=k < K, other=0.).to(tl.float32)
    bias = tl.load(b + g * K + k, mask=k < K, other=0.).to(tl.float32)
    z = d * rstd * gain[None, :] + bias[None, :]
    if ACT:
        z = _silu(z)
    tl.store(y + at, z.to(y.dtype.element_ty), mask=keep)
    tl.store(stats + (n * G + g) * 2, mean)
    tl.store(stats + (n * G + g) * 2 + 1, rstd)


@triton.jit
def _group_backward(x, w, b, dy, dx, stats, dw, db, C, K, G, HW: tl.constexpr, KB: tl.constexpr, ACT: tl.constexpr):
    n, g = tl.program_id(0), tl.program_id(1)
    k, p = tl.arange(0, KB), tl.arange(0, HW)
    keep = (k < K)[None, :]
    at = n.to(tl.int64) * HW * C + p[:, None] * C + (g * K + k)[None, :]
    mean, rstd = tl.load(stats + (n * G + g) * 2), tl.load(stats + (n * G + g) * 2 + 1)
    v = tl.load(x + at, mask=keep, other=0.).to(tl.float32)
    d = tl.load(dy + at, mask=keep, other=0.).to(tl.float32)
    gain = tl.load(w + g * K + k, mask=k < K, other=0.).to(tl.float32)
    bias = tl.load(b + g * K + k, mask=k < K, other=0.).to(tl.float32)
    u = tl.where(keep, (v - mean) * rstd, 0.)
    if ACT:
        d = d * _silu_slope(u * gain[None, :] + bias[None, :])
    tl.atomic_add(dw + g * K + k, tl.sum(d * u, 0), mask=k < K)
    tl.atomic_add(db + g * K + k, tl.sum(d, 0), mask=k < K)
    e = d * gain[None, :]
    count = HW * K
    m1 = tl.sum(tl.sum(e, 0), 0) / count
    m2 = tl.sum(tl.sum(e * u, 0), 0) / count
    tl.store(dx + at, ((e - m1 - u * m2) * rstd).to(dx.dtype.element_ty), mask=keep)


# ---- group norm of large images: sums per chunk of rows, a few small torch operations, then one elementwise pass ----

@triton.jit
def _channel_sums(x, out, HW, C, chunks, ROWS: tl.constexpr, CB: tl.constexpr):
    n, j = tl.program_id(0), tl.program_id(1)
    c, p = tl.arange(0, CB), j * ROWS + tl.arange(0, ROWS)
    keep = (p < HW)[:, None] & (c < C)[None, :]
    v = tl.load(x + n.to(tl.int64) * HW * C + p[:, None] * C + c[None, :], mask=keep, other=0.).to(tl.float32)
    at = (n * chunks + j) * 2 * C + c
    tl.store(out + at, tl.sum(v, 0), mask=c < C)
    tl.store(out + at + C, tl.sum(v * v, 0), mask=c < C)


@triton.jit
def _affine_forward(x, a, s, y, HW, C, ROWS: tl.constexpr, CB: tl.constexpr, ACT: tl.constexpr):
    n, j = tl.program_id(0), tl.program_id(1)
    c, p = tl.arange(0, CB), j * ROWS + tl.arange(0, ROWS)
    keep = (p < HW)[:, None] & (c < C)[None, :]
    at = n.to(tl.int64) * HW * C + p[:, None] * C + c[None, :]
    scale, shift = tl.load(a + n * C + c, mask=c < C, other=0.), tl.load(s + n * C + c, mask=c < C, other=0.)
    z = tl.load(x + at, mask=keep, other=0.).to(tl.float32) * scale[None, :] + shift[None, :]
    if ACT:
        z = _silu(z)
    tl.store(y + at, z.to(y.dtype.element_ty), mask=keep)


@triton.jit
def _affine_sums(x, a, s, dy, out, HW, C, chunks, ROWS: tl.constexpr, CB: tl.constexpr, ACT: tl.constexpr):
    """Per-channel sums of dz and dz * x, with z = a x + s."""
    n, j = tl.program_id(0), tl.program_id(1)
    c, p = tl.arange(0, CB), j * ROWS + tl.arange(0, ROWS)
    keep = (p < HW)[:, None] & (c < C)[None, :]
    at = n.to(tl.int64) * HW * C + p[:, None] * C + c[None, :]
    scale, shift = tl.load(a + n * C + c, mask=c < C, other=0.), tl.load(s + n * C + c, mask=c < C, other=0.)
    v = tl.load(x + at, mask=keep, other=0.).to(tl.float32)
    d = tl.load(dy + at, mask=keep, other=0.).to(tl.float32)
    if ACT:
        d = d * _silu_slope(v * scale[None, :] + shift[None, :])
    at = (n * chunks + j) * 2 * C + c
    tl.store(out + at, tl.sum(d, 0), mask=c < C)
    tl.store(out + at + C, tl.sum(d * v, 0), mask=c < C)


@triton.jit
def _affine_backward(x, a, s, dy, p1, p2, dx, HW, C, ROWS: tl.constexpr, CB: tl.constexpr, ACT: tl.constexpr):
    """dx = a dz + p1 + p2 x, with the two per-channel numbers that carry the statistics' gradients."""
    n, j = tl.program_id(0), tl.program_id(1)
    c, p = tl.arange(0, CB), j * ROWS + tl.arange(0, ROWS)
    keep = (p < HW)[:, None] & (c < C)[None, :]
    at = n.to(tl.int64) * HW * C + p[:, None] * C + c[None, :]
    scale, shift = tl.load(a + n * C + c, mask=c < C, other=0.), tl.load(s + n * C + c, mask=c < C, other=0.)
    q1, q2 = tl.load(p1 + n * C + c, mask=c < C, other=0.), tl.load(p2 + n * C + c, mask=c < C, other=0.)
    v = tl.load(x + at, mask=keep, other=0.).to(tl.float32)
    d = tl.load(dy + at, mask=keep, other=0.).to(tl.float32)
    if ACT:
        d = d * _silu_slope(v * scale[None, :] + shift[None, :])
    tl.store(dx + at, (d * scale[None, :] + q1[None, :] + v * q2[None, :]).to(dx.dtype.element_ty), mask=keep)


def _power(n):
    return triton.next_power_of_2(n)


class _GroupNorm(torch.autograd.Function):
    """x (B, C, H, W) channels-last -> the same; statistics per image and group."""

    @staticmethod
    def forward(ctx, x, w, b, groups, eps, act):
        x = x.contiguous(memory_format=torch.channels_last)
        B, C, H, W = x.shape
        K, y, ctx.args = C // groups, torch.empty_like(x), (groups, act)
        ctx.small = H * W * _power(K) <= 8192
        if ctx.small:
            stats = torch.empty(B, groups, 2, device=x.device)
            _group_forward[(B, groups)](x, w, b, y, stats, C, K, groups, H * W, _power(K), eps, act, num_warps=8 if H * W * K >= 4096 else 4)
            ctx.save_for_backward(x, w, b, stats)
            return y
        ROWS = max(1, 4096 // _power(C))
        chunks = triton.cdiv(H * W, ROWS)
        sums = torch.empty(B, chunks, 2, C, device=x.device)
        _channel_sums[(B, chunks)](x, sums, H * W, C, chunks, ROWS, _power(C))
        total = sums.sum(1).view(B, 2, groups, K).sum(-1) / (H * W * K)
        mean, rstd = total[:, 0], (total[:, 1] - total[:, 0] ** 2 + eps).rsqrt()
        a = (rstd[:, :, None] * w.float().view(groups, K)).view(B, C).contiguous()
        s = (b.float() - mean.repeat_interleave(K, 1) * a).contiguous()
        _affine_forward[(B, chunks)](x, a, s, y, H * W, C, ROWS, _power(C), act)
        ctx.save_for_backward(x, w, b, a, s, mean, rstd)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, b = ctx.saved_tensors[:3]
        groups, act = ctx.args
        dy = dy.contiguous(memory_format=torch.channels_last)
        B, C, H, W = x.shape
        K, dx = C // groups, torch.empty_like(x)
        if ctx.small:
            dw, db = torch.zeros(2, C, device=x.device)
            _group_backward[(B, groups)](x, w, b, dy, dx, ctx.saved_tensors[3], dw, db, C, K, groups, H * W, _power(K), act,
                                         num_warps=8 if H * W * K >= 4096 else 4)
            return dx, dw.to(w.dtype), db.to(b.dtype), None, None, None
        a, s, mean, rstd = ctx.saved_tensors[3:]
        ROWS = max(1, 4096 // _power(C))
        chunks = triton.cdiv(H * W, ROWS)
        sums = torch.empty(B, chunks, 2, C, device=x.device)
        _affine_sums[(B, chunks)](x, a, s, dy, sums, H * W, C, chunks, ROWS, _power(C), act)
        sums = sums.sum(1)
        m, q = mean.repeat_interleave(K, 1), rstd.repeat_interleave(K, 1)
        dz, dzu = sums[:, 0], (sums[:, 1] - m * sums[:, 0]) * q  # u = (x - mean) * rstd
        gain = w.float()
        e1 = (dz * gain).view(B, groups, K).sum(-1).repeat_interleave(K, 1) / (H * W * K)
        e2 = (dzu * gain).view(B, groups, K).sum(-1).repeat_interleave(K, 1) / (H * W * K)
        p2 = (-q * q * e2).contiguous()
        p1 = (-q * e1 - m * p2).contiguous()
        _affine_backward[(B, chunks)](x, a, s, dy, p1, p2, dx, H * W, C, ROWS, _power(C), act)
        return dx, dzu.sum(0).to(w.dtype), dz.sum(0).to(b.dtype), None, None, None


# ---- layer norm over the last dimension ----

@triton.jit
def _layer_forward(x, w, b, y, N, C: tl.constexpr, ROWS: tl.constexpr, eps):
    c, p = tl.arange(0, C), tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    keep = (p < N)[:, None] & (c < C)[None, :]
    at = p[:, None].to(tl.int64) * C + c[None, :]
    v = tl.load(x + at, mask=keep, other=0.).to(tl.float32)
    d = v - (tl.sum(v, 1) / C)[:, None]
    rstd = 1. / tl.sqrt(tl.sum(d * d, 1) / C + eps)
    z = d * rstd[:, None] * tl.load(w + c).to(tl.float32)[None, :] + tl.load(b + c).to(tl.float32)[None, :]
    tl.store(y + at, z.to(y.dtype.element_ty), mask=keep)


@triton.jit
def _layer_backward(x, w, dy, dx, dw, db, N, loops, C: tl.constexpr, ROWS: tl.constexpr, eps):
    c = tl.arange(0, C)
    gain = tl.load(w + c).to(tl.float32)
    sw, sb = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    for i in range(loops):
        p = (tl.program_id(0) * loops + i) * ROWS + tl.arange(0, ROWS)
        keep = (p < N)[:, None] & (c < C)[None, :]
        at = p[:, None].to(tl.int64) * C + c[None, :]
        v = tl.load(x + at, mask=keep, other=0.).to(tl.float32)
        d = tl.load(dy + at, mask=keep, other=0.).to(tl.float32)
        u = v - (tl.sum(v, 1) / C)[:, None]
        rstd = 1. / tl.sqrt(tl.sum(u * u, 1) / C + eps)
        u = u * rstd[:, None]
        sw += tl.sum(d * u, 0)
        sb += tl.sum(d, 0)
        e = d * gain[None, :]
        g = (e - (tl.sum(e, 1) / C)[:, None] - u * (tl.sum(e * u, 1) / C)[:, None]) * rstd[:, None]
        tl.store(dx + at, g.to(dx.dtype.element_ty), mask=keep)
    tl.atomic_add(dw + c, sw)
    tl.atomic_add(db + c, sb)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b, eps):
        x = x.contiguous()
        C = x.shape[-1]
        N, ROWS, y = x.numel() // C, max(1, 2048 // C), torch.empty_like(x)
        _layer_forward[(triton.cdiv(N, ROWS),)](x, w, b, y, N, C, ROWS, eps)
        ctx.save_for_backward(x, w)
        ctx.args = (N, C, ROWS, eps, b.dtype)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        N, C, ROWS, eps, kind = ctx.args
        dy, dx = dy.contiguous(), torch.empty_like(x)
        loops = max(1, triton.cdiv(triton.cdiv(N, ROWS), 1024))
        programs = triton.cdiv(triton.cdiv(N, ROWS), loops)
        dw, db = torch.zeros(2, C, device=x.device)
        _layer_backward[(programs,)](x, w, dy, dx, dw, db, N, loops, C, ROWS, eps)
        return dx, dw.to(w.dtype), db.to(kind), None


# ---- GEGLU: first half of the last dimension times GELU of the second ----

@triton.jit
def _geglu_forward(x, y, N, H: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = i // H * (2 * H) + i % H
    v = tl.load(x + at, mask=i < N, other=0.).to(tl.float32)
    g = tl.load(x + at + H, mask=i < N, other=0.).to(tl.float32)
    tl.store(y + i, (v * g * .5 * (1 + tl.erf(g * .7071067811865476))).to(y.dtype.element_ty), mask=i < N)


@triton.jit
def _geglu_backward(x, dy, dx, N, H: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = i // H * (2 * H) + i % H
    v = tl.load(x + at, mask=i < N, other=0.).to(tl.float32)
    g = tl.load(x + at + H, mask=i < N, other=0.).to(tl.float32)
    d = tl.load(dy + i, mask=i < N, other=0.).to(tl.float32)
    cdf = .5 * (1 + tl.erf(g * .7071067811865476))
    tl.store(dx + at, (d * g * cdf).to(dx.dtype.element_ty), mask=i < N)
    tl.store(dx + at + H, (d * v * (cdf + g * .3989422804014327 * tl.exp(-.5 * g * g))).to(dx.dtype.element_ty), mask=i < N)


class _Geglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        H = x.shape[-1] // 2
        y = x.new_empty(*x.shape[:-1], H)
        _geglu_forward[(triton.cdiv(y.numel(), 2048),)](x, y, y.numel(), H, 2048, num_warps=8)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, = ctx.saved_tensors
        dy, dx = dy.contiguous(), torch.empty_like(x)
        _geglu_backward[(triton.cdiv(dy.numel(), 2048),)](x, dy, dx, dy.numel(), x.shape[-1] // 2, 2048, num_warps=8)
        return dx


# ---- bias gradients: PyTorch's column sums take longer than the rest of a small layer's backward pass ----

@triton.jit
def _column_sums(x, out, N, C, loops, ROWS: tl.constexpr, CB: tl.constexpr):
    c = tl.arange(0, CB)
    total = tl.zeros((CB,), tl.float32)
    for i in range(loops):
        p = (tl.program_id(0) * loops + i) * ROWS + tl.arange(0, ROWS)
        keep = (p < N)[:, None] & (c < C)[None, :]
        total += tl.sum(tl.load(x + p[:, None].to(tl.int64) * C + c[None, :], mask=keep, other=0.).to(tl.float32), 0)
    tl.atomic_add(out + c, total, mask=c < C)


def column_sums(x):
    """x (N, C), contiguous -> (C) fp32"""
    N, C = x.shape
    out = torch.zeros(C, device=x.device)
    ROWS = max(1, 4096 // _power(C))
    loops = max(1, triton.cdiv(triton.cdiv(N, ROWS), 528))
    _column_sums[(triton.cdiv(triton.cdiv(N, ROWS), loops),)](x, out, N, C, loops, ROWS, _power(C))
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return torch.nn.functional.linear(x, w, b)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        rows = dy.reshape(-1, dy.shape[-1])
        return (rows @ w).view(x.shape), rows.t() @ x.reshape(-1, x.shape[-1]), column_sums(rows).to(w.dtype)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b, stride, padding):
        ctx.save_for_backward(x, w)
        ctx.args = stride, padding
        return torch.nn.functional.conv2d(x, w, b, stride, padding)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        stride, padding = ctx.args
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dw, _ = torch.ops.aten.convolution_backward(dy, x, w, None, stride, padding, (1, 1), False, (0, 0), 1,
                                                        (ctx.needs_input_grad[0], True, False))
        return dx, dw, column_sums(dy.permute(0, 2, 3, 1).reshape(-1, dy.shape[1])).to(w.dtype), None, None


def linear(x, weight, bias):
    return _Linear.apply(x, weight, bias)


def conv(x, weight, bias, stride, padding):
    return _Conv.apply(x, weight, bias, stride, padding)


def group_norm(x, weight, bias, groups, eps, act):
    return _GroupNorm.apply(x, weight, bias, groups, eps, act)


def layer_norm(x, weight, bias, eps):
    return _LayerNorm.apply(x, weight, bias, eps)


def geglu(x):
    return _Geglu.apply(x)
