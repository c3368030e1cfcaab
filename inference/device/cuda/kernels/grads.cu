// Gradients of group norms and attentions with respect to their inputs.
#include "groups.cuh"

// v = grad * gamma, times the derivative of SiLU at z = xhat * gamma + beta.
__device__ __forceinline__ float through(float grad, float xhat, float gamma, float beta, int silu) {
  float v = grad * gamma;
  if (silu) {
    const float z = fmaf(xhat, gamma, beta), s = __fdividef(1.f, 1.f + __expf(-z));
    v *= s * fmaf(z, 1.f - s, 1.f);
  }
  return v;
}

// Block (chunk, image), as group_stats: sums v and v*xhat over its pixels, or (APPLY) finishes them:
// out = inv * (v - mean(v) - xhat * mean(v*xhat)) + residual. At most 256 units of eight channels.
// Dynamic shared memory: 4 * groups floats, then 2 * C for each lane of pixels.
template <bool APPLY>
__device__ __forceinline__ void group_grad(const GroupNormGradParams& p) {
  extern __shared__ float sm[];
  after_predecessor();
  const int units = p.C / 8, lanes = 256 / units, tid = threadIdx.x, b = blockIdx.y, per = p.C / p.groups;
  float *mean = sm, *inv = mean + p.groups, *m1 = inv + p.groups, *m2 = m1 + p.groups, *sums = m2 + p.groups;
  const float n = (float)per * p.HW;
  group_moments(p.stats + b * p.groups * 2, 1, p.groups, n, p.eps, mean, inv, nullptr);
  if (APPLY)
    for (int g = tid; g < p.groups; g += 256) {
      m1[g] = p.sums[(b * p.groups + g) * 2] / n;
      m2[g] = p.sums[(b * p.groups + g) * 2 + 1] / n;
    }
  __syncthreads();
  const int u = tid % units, pl = tid / units;
  if (pl < lanes) {
    float k[8], o[8], gamma[8], beta[8], a1[8] = {}, a2[8] = {};
    load8(gamma, p.gamma + u * 8);
    load8(beta, p.beta + u * 8);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int g = (u * 8 + i) / per;
      k[i] = inv[g];
      o[i] = -mean[g] * k[i];
      if (APPLY) {
        a1[i] = m1[g];
        a2[i] = m2[g];
      }
    }
    const int begin = blockIdx.x * p.pixels, end = min(begin + p.pixels, p.HW);
    // Several pixels at once, so that their loads are on the way together.
    constexpr int TOGETHER = APPLY ? 2 : 4;
    for (int first = begin + pl; first < end; first += lanes * TOGETHER) {
      half8 x[TOGETHER], g[TOGETHER], r[TOGETHER];
#pragma unroll
      for (int t = 0; t < TOGETHER; t++) {
        const long long row = (long long)b * p.HW + first + t * lanes;
        if (first + t * lanes < end) {
          x[t] = *reinterpret_cast<const half8*>(p.x + row * p.ldx + u * 8);
          g[t] = *reinterpret_cast<const half8*>(p.grad + row * p.ldg + u * 8);
          if (APPLY && p.residual) r[t] = *reinterpret_cast<const half8*>(p.residual + row * p.ldr + u * 8);
        }
      }
#pragma unroll
      for (int t = 0; t < TOGETHER; t++) {
        if (first + t * lanes >= end) continue;
        float xs[8], gs[8], rs[8] = {};
        load8(xs, reinterpret_cast<const half*>(&x[t]));
        load8(gs, reinterpret_cast<const half*>(&g[t]));
        if (APPLY && p.residual) load8(rs, reinterpret_cast<const half*>(&r[t]));
#pragma unroll
        for (int i = 0; i < 8; i++) {
          const float xhat = fmaf(xs[i], k[i], o[i]), v = through(gs[i], xhat, gamma[i], beta[i], p.silu);
          if (APPLY) {
            rs[i] += k[i] * (v - a1[i] - xhat * a2[i]);
          } else {
            a1[i] += v;
            a2[i] += v * xhat;
          }
        }
        if (APPLY) store8(p.out + ((long long)b * p.HW + first + t * lanes) * p.ldo + u * 8, rs);
      }
    }
    if (!APPLY) {
      float2* s = reinterpret_cast<float2*>(sums) + pl * p.C + u * 8;
#pragma unroll
      for (int i = 0; i < 8; i++) s[i] = make_float2(a1[i], a2[i]);
    }
  }
  if (!APPLY) {
    __syncthreads();
    sum_groups(sums, lanes, p.C, p.groups, p.sums + ((long long)b * p.chunks + blockIdx.x) * p.groups * 2);
  }
}
extern "C" __global__ void __launch_bounds__(256) group_grad_sums(const __grid_constant__ GroupNormGradParams p) { group_grad<false>(p); }
extern "C" __global__ void __launch_bounds__(256) group_grad_apply(const __grid_constant__ GroupNormGradParams p) { group_grad<true>(p); }

// The sum over a block of 256 threads, known to all of them.
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float part[8];
  v = warp_sum(v);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  __syncthreads();
  v = 0.f;
#pragma unroll
  for (int i = 0; i < 8; i++) v += part[i];
  return v;
}
__device__ __forceinline__ float block_max(float v) {
  __shared__ float part[8];
  v = warp_max(v);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  __syncthreads();
  v = part[0];
#pragma unroll
  for (int i = 1; i < 8; i++) v = fmaxf(v, part[i]);
  return v;
}

// One block for a (group, image), any channel count, pitch and size.
extern "C" __global__ void __launch_bounds__(256) group_grad_any(const __grid_constant__ GroupNormGradParams p) {
  after_predecessor();
  const int per = p.C / p.groups, first = blockIdx.x * per, n = per * p.HW;
  const long long base = (long long)blockIdx.y * p.HW;
  float mean = 0.f, var = 0.f, m1 = 0.f, m2 = 0.f;
  auto x = [&](int i) { return __half2float(p.x[(base + i / per) * p.ldx + first + i % per]); };
  for (int i = threadIdx.x; i < n; i += 256) mean += x(i);
  mean = block_sum(mean) / n;
  for (int i = threadIdx.x; i < n; i += 256) var += (x(i) - mean) * (x(i) - mean);
  const float inv = rsqrtf(block_sum(var) / n + p.eps);
  auto v = [&](int i, float xhat) {
    const int c = first + i % per;
    return through(__half2float(p.grad[(base + i / per) * p.ldg + c]), xhat, p.gamma[c], p.beta[c], p.silu);
  };
  for (int i = threadIdx.x; i < n; i += 256) {
    const float xhat = (x(i) - mean) * inv, t = v(i, xhat);
    m1 += t;
    m2 += t * xhat;
  }
  m1 = block_sum(m1) / n;
  m2 = block_sum(m2) / n;
  for (int i = threadIdx.x; i < n; i += 256) {
    const long long row = base + i / per;
    const int c = first + i % per;
    const float xhat = (x(i) - mean) * inv, r = p.residual ? __half2float(p.residual[row * p.ldr + c]) : 0.f;
    p.out[row * p.ldo + c] = __float2half(inv * (v(i, xhat) - m1 - xhat * m2) + r);
  }
}

// One row a block.
extern "C" __global__ void __launch_bounds__(256) attention_grad_rows(const __grid_constant__ AttentionGradParams p) {
  after_predecessor();
  half* w = p.p + (long long)blockIdx.x * p.ld;
  half* d = p.d + (long long)blockIdx.x * p.ld;
  float best = -INFINITY, sum = 0.f, mean = 0.f;
  for (int c = threadIdx.x; c < p.C; c += 256) best = fmaxf(best, __half2float(w[c]));
  best = block_max(best);
  for (int c = threadIdx.x; c < p.C; c += 256) {
    const float e = __expf(__half2float(w[c]) - best);
    sum += e;
    mean += e * __half2float(d[c]);
  }
  sum = block_sum(sum);
  mean = block_sum(mean) / sum;
  for (int c = threadIdx.x; c < p.ld; c += 256) {
    const float e = c < p.C ? __expf(__half2float(w[c]) - best) / sum : 0.f;
    w[c] = __float2half(e);
    d[c] = __float2half(c < p.C ? p.gain * e * (__half2float(d[c]) - mean) : 0.f);
  }
}
