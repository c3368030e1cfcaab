// GroupNorm and LayerNorm, statistics in fp32.
#include "groups.cuh"

// What the gradient is to know of a group of n values: their sum and the sum of their squares.
__device__ __forceinline__ void keep(const GroupNormParams& p, int image, int group, float mean, float deviations, float n) {
  reinterpret_cast<float2*>(p.kept)[image * p.groups + group] = make_float2(mean * n, fmaf(mean * n, mean, deviations));
}

// First pass: block (chunk, image) sums its pixels for every group. The order of additions is fixed.
// Dynamic shared memory: 2 * C floats for each of the 256 / min(256, units) pixel lanes (launcher computes it).
extern "C" __global__ void __launch_bounds__(256) group_stats(const __grid_constant__ GroupNormParams p) {
  extern __shared__ float sums[];  // [lanes][C][2]
  after_predecessor();
  const int units = p.C / 8, tid = threadIdx.x, b = blockIdx.y;
  const int lanes = max(1, 256 / units);
  const int begin = blockIdx.x * p.pixels, end = min(begin + p.pixels, p.HW);
  const half* x = p.x + (long long)b * p.HW * p.ldx;
  // Threads walk units first, so that neighbours read neighbouring addresses; wide rows take several turns.
  for (int u = tid % max(units, 1); u < units; u += 256) {
    int pl = units >= 256 ? 0 : tid / units;
    if (pl < lanes) {
      float s[8] = {}, ss[8] = {}, add[8] = {};
      if (p.add) load8(add, p.add + (long long)b * p.lda + u * 8);
      for (int px = begin + pl; px < end; px += lanes) {
        float v[8];
        load8(v, x + (long long)px * p.ldx + u * 8);
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float t = v[i] + add[i];
          s[i] += t;
          ss[i] += t * t;
        }
      }
      float2* o = reinterpret_cast<float2*>(sums) + (long long)pl * p.C + u * 8;
#pragma unroll
      for (int i = 0; i < 8; i++) o[i] = make_float2(s[i], ss[i]);
    }
    if (units < 256) break;
  }
  __syncthreads();
  sum_groups(sums, lanes, p.C, p.groups, p.stats + ((long long)b * p.chunks + blockIdx.x) * p.groups * 2);
}

// Block: an image.
extern "C" __global__ void __launch_bounds__(1024) group_total(const __grid_constant__ GroupTotalParams p) {
  __shared__ float2 part[32][32];
  after_predecessor();
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const float2* parts = reinterpret_cast<const float2*>(p.parts) + (long long)blockIdx.x * p.chunks * p.groups;
  for (int first = 0; first < p.groups; first += 32) {
    const int g = first + lane;
    float2 s = make_float2(0.f, 0.f);
    if (g < p.groups)
      for (int c = warp; c < p.chunks; c += 32) {
        float2 t = parts[(long long)c * p.groups + g];
        s.x += t.x;
        s.y += t.y;
      }
    part[warp][lane] = s;
    __syncthreads();
    if (warp == 0 && g < p.groups) {
      for (int w = 1; w < 32; w++) {
        s.x += part[w][lane].x;
        s.y += part[w][lane].y;
      }
      reinterpret_cast<float2*>(p.out)[(long long)blockIdx.x * p.groups + g] = s;
    }
    __syncthreads();
  }
}

// Second pass: block (part, image). Dynamic shared memory: 2 * C + 2 * groups floats.
extern "C" __global__ void __launch_bounds__(256) group_apply(const __grid_constant__ GroupNormParams p) {
  extern __shared__ float sm[];
  float* scale = sm;
  float* shift = sm + p.C;
  float* mean = sm + 2 * p.C;
  float* inv = mean + p.groups;
  after_predecessor();
  const int tid = threadIdx.x, b = blockIdx.y, per = p.C / p.groups;
  group_moments(p.stats + (long long)b * p.chunks * p.groups * 2, p.chunks, p.groups, (float)per * p.HW, p.eps, mean, inv,
                p.kept && blockIdx.x == 0 ? p.kept + b * p.groups * 2 : nullptr);
  __syncthreads();
  for (int c = tid; c < p.C; c += 256) {
    int g = c / per;
    float k = inv[g] * p.gamma[c];
    float add = p.add ? __half2float(p.add[(long long)b * p.lda + c]) : 0.f;
    scale[c] = k;
    shift[c] = p.beta[c] + (add - mean[g]) * k;
  }
  __syncthreads();
  const int units = p.C / 8;
  const long long n = (long long)p.HW * units;
  const half* x = p.x + (long long)b * p.HW * p.ldx;
  half* out = p.out + (long long)b * p.HW * p.ldo;
  for (long long i = (long long)blockIdx.x * 256 + tid; i < n; i += (long long)gridDim.x * 256) {
    int px = (int)(i / units), c = (int)(i - (long long)px * units) * 8;
    float v[8];
    load8(v, x + (long long)px * p.ldx + c);
    float k[8], o[8];
    load8(k, scale + c);
    load8(o, shift + c);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float t = v[j] * k[j] + o[j];
      v[j] = p.silu ? silu(t) : t;
    }
    store8(out + (long long)px * p.ldo + c, v);
  }
}

// One block for a (group, image), its values in registers: even channel counts and pitches, at most 32 values a thread.
template <int THREADS>
__device__ __forceinline__ void group_registers(const GroupNormParams& p) {
  constexpr int PAIRS = THREADS == 1024 ? 15 : 16, WARPS = THREADS / 32;
  __shared__ float part[2 * WARPS];
  after_predecessor();
  const int tid = threadIdx.x, g = blockIdx.x, b = blockIdx.y, per = p.C / p.groups, half_per = per / 2;
  const int n = half_per * p.HW, lane = tid & 31, warp = tid >> 5;
  const half* x = p.x + (long long)b * p.HW * p.ldx + g * per;
  half* out = p.out + (long long)b * p.HW * p.ldo + g * per;
  const half* add = p.add ? p.add + (long long)b * p.lda + g * per : nullptr;
  // Pair i of the group is channel pair c of pixel px; both advance without divisions.
  const int px0 = tid / half_per, c0 = tid - px0 * half_per, dpx = THREADS / half_per, dc = THREADS - dpx * half_per;
  half2 held[PAIRS];
  auto value = [&](int t, int c) {
    float2 v = __half22float2(held[t]);
    if (add) {
      float2 a = __half22float2(*reinterpret_cast<const half2*>(add + 2 * c));
      v.x += a.x;
      v.y += a.y;
    }
    return v;
  };
  int px = px0, c = c0;
  auto advance = [&]() {
    px += dpx;
    c += dc;
    if (c >= half_per) {
      c -= half_per;
      px++;
    }
  };
  float s = 0.f;
#pragma unroll
  for (int t = 0; t < PAIRS; t++) {
    held[t] = __floats2half2_rn(0.f, 0.f);
    if (t * THREADS + tid < n) held[t] = *reinterpret_cast<const half2*>(x + px * p.ldx + 2 * c);
    advance();
  }
  c = c0;
#pragma unroll
  for (int t = 0; t < PAIRS; t++) {
    if (t * THREADS + tid < n) {
      float2 v = value(t, c);
      s += v.x + v.y;
    }
    advance();
  }
  s = warp_sum(s);
  if (lane == 0) part[warp] = s;
  __syncthreads();
  float mean = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) mean += part[i];
  mean /= 2 * n;
  float ss = 0.f;
  c = c0;
#pragma unroll
  for (int t = 0; t < PAIRS; t++) {
    if (t * THREADS + tid < n) {
      float2 v = value(t, c);
      ss += (v.x - mean) * (v.x - mean) + (v.y - mean) * (v.y - mean);
    }
    advance();
  }
  ss = warp_sum(ss);
  if (lane == 0) part[WARPS + warp] = ss;
  __syncthreads();
  float var = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) var += part[WARPS + i];
  const float inv = rsqrtf(var / (2 * n) + p.eps);
  if (p.kept && tid == 0) keep(p, b, g, mean, var, 2 * n);
  px = px0;
  c = c0;
#pragma unroll
  for (int t = 0; t < PAIRS; t++) {
    if (t * THREADS + tid < n) {
      float2 v = value(t, c);
      float2 k = *reinterpret_cast<const float2*>(p.gamma + g * per + 2 * c), o = *reinterpret_cast<const float2*>(p.beta + g * per + 2 * c);
      float2 y = make_float2((v.x - mean) * inv * k.x + o.x, (v.y - mean) * inv * k.y + o.y);
      if (p.silu) y = make_float2(silu(y.x), silu(y.y));
      *reinterpret_cast<half2*>(out + px * p.ldo + 2 * c) = __floats2half2_rn(y.x, y.y);
    }
    advance();
  }
}
extern "C" __global__ void __launch_bounds__(256, 4) group_256(const __grid_constant__ GroupNormParams p) { group_registers<256>(p); }
extern "C" __global__ void __launch_bounds__(512, 2) group_512(const __grid_constant__ GroupNormParams p) { group_registers<512>(p); }
extern "C" __global__ void __launch_bounds__(1024) group_1024(const __grid_constant__ GroupNormParams p) { group_registers<1024>(p); }

// Block (bundle, image): as many groups as make whole units of eight channels (p.chunks groups, p.pixels channels), read
// once by 16 bytes. The unit of a thread is the same in all its pixels; it touches at most two groups, of at least eight
// channels or of four. Threads: a multiple of 32 and of the units of a bundle, each with at most HELD pixels.
template <int HELD>
__device__ __forceinline__ void group_bundled(const GroupNormParams& p) {
  __shared__ float2 part[640];
  __shared__ float total[8];
  after_predecessor();
  const int units = p.pixels / 8, tid = threadIdx.x, lane = tid & 31, u = tid % units, px0 = tid / units, step = blockDim.x / units;
  const int per = p.C / p.groups, group = u * 8 / per, cut = (group + 1) * per - u * 8;
  const int c0 = blockIdx.x * p.pixels + u * 8;
  const long long image = (long long)blockIdx.y * p.HW;
  half8 held[HELD];
#pragma unroll
  for (int t = 0; t < HELD; t++)
    if (px0 + t * step < p.HW) held[t] = *reinterpret_cast<const half8*>(p.x + (image + px0 + t * step) * p.ldx + c0);
  float add[8] = {};
  if (p.add) load8(add, p.add + (long long)blockIdx.y * p.lda + c0);
  auto value = [&](int t, float (&v)[8]) {
    load8(v, reinterpret_cast<const half*>(&held[t]));
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] += add[i];
  };
  // Sums of this thread for its first and its second group become the sums of all threads for both.
  auto sum = [&](float2 mine) {
    __syncthreads();
    part[u * step + px0] = mine;
    __syncthreads();
    for (int g = tid >> 5; g < p.chunks; g += blockDim.x >> 5) {
      float s = 0.f;
      for (int x = g * per / 8; x * 8 < (g + 1) * per; x++) {
        const bool first = x * 8 / per == g;
        for (int i = lane; i < step; i += 32) s += first ? part[x * step + i].x : part[x * step + i].y;
      }
      s = warp_sum(s);
      if (lane == 0) total[g] = s;
    }
    __syncthreads();
    return make_float2(total[group], cut < 8 ? total[group + 1] : 0.f);
  };
  const float n = (float)per * p.HW;
  float2 s = make_float2(0.f, 0.f);
#pragma unroll
  for (int t = 0; t < HELD; t++) {
    if (px0 + t * step >= p.HW) continue;
    float v[8];
    value(t, v);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i < cut) s.x += v[i];
      else s.y += v[i];
    }
  }
  s = sum(s);
  const float2 mean = make_float2(s.x / n, s.y / n);
  const float kept = tid < p.chunks ? total[tid] / n : 0.f;
  s = make_float2(0.f, 0.f);
#pragma unroll
  for (int t = 0; t < HELD; t++) {
    if (px0 + t * step >= p.HW) continue;
    float v[8];
    value(t, v);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float d = v[i] - (i < cut ? mean.x : mean.y);
      if (i < cut) s.x += d * d;
      else s.y += d * d;
    }
  }
  s = sum(s);
  if (p.kept && tid < p.chunks) keep(p, blockIdx.y, blockIdx.x * p.chunks + tid, kept, total[tid], n);
  const float2 inv = make_float2(rsqrtf(s.x / n + p.eps), rsqrtf(s.y / n + p.eps));
  float k[8], o[8];
  load8(k, p.gamma + c0);
  load8(o, p.beta + c0);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    k[i] *= i < cut ? inv.x : inv.y;
    o[i] -= (i < cut ? mean.x : mean.y) * k[i];
  }
#pragma unroll
  for (int t = 0; t < HELD; t++) {
    if (px0 + t * step >= p.HW) continue;
    float v[8];
    value(t, v);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      v[i] = fmaf(v[i], k[i], o[i]);
      if (p.silu) v[i] = silu(v[i]);
    }
    store8(p.out + (image + px0 + t * step) * p.ldo + c0, v);
  }
}
extern "C" __global__ void __launch_bounds__(640) group_bundle(const __grid_constant__ GroupNormParams p) { group_bundled<10>(p); }
// Small images need little code, most of which comes from a cold instruction cache.
extern "C" __global__ void __launch_bounds__(640) group_bundle_2(const __grid_constant__ GroupNormParams p) { group_bundled<2>(p); }

// One block for a (group, image), any channel count, pitch and size: reads three times.
extern "C" __global__ void __launch_bounds__(256) group_any(const __grid_constant__ GroupNormParams p) {
  __shared__ float part[16];
  after_predecessor();
  const int tid = threadIdx.x, g = blockIdx.x, b = blockIdx.y, per = p.C / p.groups;
  const int n = per * p.HW, lane = tid & 31, warp = tid >> 5;
  const half* x = p.x + (long long)b * p.HW * p.ldx + g * per;
  half* out = p.out + (long long)b * p.HW * p.ldo + g * per;
  const half* add = p.add ? p.add + (long long)b * p.lda + g * per : nullptr;
  auto at = [&](int i, int& px, int& c) {
    px = i / per;
    c = i - px * per;
    return __half2float(x[(long long)px * p.ldx + c]) + (add ? __half2float(add[c]) : 0.f);
  };
  int px, c;
  float s = 0.f;
  for (int i = tid; i < n; i += 256) s += at(i, px, c);
  s = warp_sum(s);
  if (lane == 0) part[warp] = s;
  __syncthreads();
  float mean = 0.f;
  for (int i = 0; i < 8; i++) mean += part[i];
  mean /= n;
  float ss = 0.f;
  for (int i = tid; i < n; i += 256) {
    float d = at(i, px, c) - mean;
    ss += d * d;
  }
  ss = warp_sum(ss);
  if (lane == 0) part[8 + warp] = ss;
  __syncthreads();
  float var = 0.f;
  for (int i = 8; i < 16; i++) var += part[i];
  const float inv = rsqrtf(var / n + p.eps);
  if (p.kept && tid == 0) keep(p, b, g, mean, var, n);
  for (int i = tid; i < n; i += 256) {
    float v = (at(i, px, c) - mean) * inv;
    v = v * p.gamma[g * per + c] + p.beta[g * per + c];
    out[(long long)px * p.ldo + c] = __float2half(p.silu ? silu(v) : v);
  }
}

// One row a warp, read once into registers: C a multiple of 8 up to 256 * UNITS, 16-byte rows.
template <int UNITS>
__device__ __forceinline__ void norm_row(const LayerNormParams& p) {
  const int lane = threadIdx.x & 31, row = blockIdx.x * 8 + (threadIdx.x >> 5);
  after_predecessor();
  if (row >= p.M) return;
  const half* x = p.x + (long long)row * p.ldx;
  float v[UNITS][8], s = 0.f;
#pragma unroll
  for (int t = 0; t < UNITS; t++) {
    int c = (t * 32 + lane) * 8;
    if (c < p.C) {
      load8(v[t], x + c);
#pragma unroll
      for (int i = 0; i < 8; i++) s += v[t][i];
    }
  }
  const float mean = warp_sum(s) / p.C;
  float ss = 0.f;
#pragma unroll
  for (int t = 0; t < UNITS; t++)
    if ((t * 32 + lane) * 8 < p.C) {
#pragma unroll
      for (int i = 0; i < 8; i++) ss += (v[t][i] - mean) * (v[t][i] - mean);
    }
  const float inv = rsqrtf(warp_sum(ss) / p.C + p.eps);
#pragma unroll
  for (int t = 0; t < UNITS; t++) {
    int c = (t * 32 + lane) * 8;
    if (c < p.C) {
      float k[8], o[8];
      load8(k, p.gamma + c);
      load8(o, p.beta + c);
#pragma unroll
      for (int i = 0; i < 8; i++) v[t][i] = (v[t][i] - mean) * inv * k[i] + o[i];
      store8(p.out + (long long)row * p.ldo + c, v[t]);
    }
  }
}
extern "C" __global__ void __launch_bounds__(256) layer_norm_512(const __grid_constant__ LayerNormParams p) { norm_row<2>(p); }
extern "C" __global__ void __launch_bounds__(256) layer_norm_1280(const __grid_constant__ LayerNormParams p) { norm_row<5>(p); }
extern "C" __global__ void __launch_bounds__(256) layer_norm_2048(const __grid_constant__ LayerNormParams p) { norm_row<8>(p); }

// Any width and alignment.
extern "C" __global__ void __launch_bounds__(256) layer_norm_any(const __grid_constant__ LayerNormParams p) {
  after_predecessor();
  const int lane = threadIdx.x & 31, row = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (row >= p.M) return;
  const half* x = p.x + (long long)row * p.ldx;
  float s = 0.f, ss = 0.f;
  for (int c = lane; c < p.C; c += 32) s += __half2float(x[c]);
  const float mean = warp_sum(s) / p.C;
  for (int c = lane; c < p.C; c += 32) {
    float d = __half2float(x[c]) - mean;
    ss += d * d;
  }
  const float inv = rsqrtf(warp_sum(ss) / p.C + p.eps);
  for (int c = lane; c < p.C; c += 32)
    p.out[(long long)row * p.ldo + c] = __float2half((__half2float(x[c]) - mean) * inv * p.gamma[c] + p.beta[c]);
}
