// From accumulators staged in shared memory (fp32, pitch BN+8) to the output.
#pragma once
#include "params.cuh"

// The row of the output that row m of the product belongs to.
__device__ __forceinline__ long long out_row(const EpilogueParams& e, int m) {
  if (!e.quad_h) return m;
  const int area = e.quad_h * e.quad_w, rows = e.M >> 2, part = m / rows, r = m - part * rows;
  const int b = r / area, s = r - b * area, y = s / e.quad_w, x = s - y * e.quad_w;
  return (long long)(b * 2 * e.quad_h + 2 * y + (part >> 1)) * (2 * e.quad_w) + 2 * x + (part & 1);
}

// One unit of eight output columns of row m. v holds alpha-scaled sums; g the gates for GEGLU. n counts accumulator columns.
__device__ __forceinline__ void finish8(const EpilogueParams& e, int m, int n, float (&v)[8], float (&g)[8], long long shift) {
  if (e.bias) {
    if (n + 8 <= e.N) {
      float b[8];
      load8(b, e.bias + n);
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] += b[i];
      if (e.act == 3) {
        load8(b, e.bias + n + 8);
#pragma unroll
        for (int i = 0; i < 8; i++) g[i] += b[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (n + i < e.N) v[i] += e.bias[n + i];
    }
  }
  int no = n, N = e.N;
  if (e.act == 3) {
    no = n >> 1;
    N >>= 1;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] *= gelu(g[i]);
  } else if (e.act) {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = activate(v[i], e.act);
  }
  const long long row = out_row(e, m);
  long long o = shift + row * e.ldo + no;
  long long ro = shift + row * e.ldr + no;
  if (e.wide) {
    if (e.residual) {
      float r[8];
      load8(r, e.residual + ro);
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] += r[i];
    }
    store8(e.out + o, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (no + i >= N) continue;
    float r = v[i];
    if (e.residual) r += __half2float(e.residual[ro + i]);
    if (e.residual32) r += e.residual32[ro + i];
    if (e.out32) e.out32[o + i] = r;
    else e.out[o + i] = __float2half(r);
  }
}

// Writes a staged tile: rows rows of BN columns at stage, the first being (m0, n0). Called by `threads` threads together.
template <int BN>
__device__ __forceinline__ void write_tile(const EpilogueParams& e, const float* stage, int rows, int m0, int n0, int split,
                                           int tid, int threads, long long shift) {
  constexpr int LD = BN + 8;
  if (e.splits > 1) {
    float* p = e.partial + (long long)split * e.M * e.N;
#pragma unroll 1
    for (int u = tid; u < rows * (BN / 4); u += threads) {
      int r = u / (BN / 4), c = (u % (BN / 4)) * 4;
      if (m0 + r < e.M && n0 + c < e.N) {
        float4 x = *reinterpret_cast<const float4*>(stage + r * LD + c);
        long long o = (long long)(m0 + r) * e.N + n0 + c;
        if (e.N % 4 == 0) {
          *reinterpret_cast<float4*>(p + o) = x;
        } else {
          const float* f = reinterpret_cast<const float*>(&x);
          for (int i = 0; i < 4 && n0 + c + i < e.N; i++) p[o + i] = f[i];
        }
      }
    }
    return;
  }
  int step = e.act == 3 ? 16 : 8;
  int units = BN / step;
#pragma unroll 1
  for (int u = tid; u < rows * units; u += threads) {
    int r = u / units, c = (u - r * units) * step;
    if (m0 + r >= e.M || n0 + c >= e.N) continue;
    float v[8], g[8];
    const float4* s = reinterpret_cast<const float4*>(stage + r * LD + c);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float4 x = s[i];
      v[4 * i] = x.x * e.alpha; v[4 * i + 1] = x.y * e.alpha; v[4 * i + 2] = x.z * e.alpha; v[4 * i + 3] = x.w * e.alpha;
    }
    if (e.act == 3) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float4 x = s[2 + i];
        g[4 * i] = x.x * e.alpha; g[4 * i + 1] = x.y * e.alpha; g[4 * i + 2] = x.z * e.alpha; g[4 * i + 3] = x.w * e.alpha;
      }
    }
    finish8(e, m0 + r, n0 + c, v, g, shift);
  }
}
