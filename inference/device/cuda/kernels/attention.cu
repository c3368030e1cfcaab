// Attention without a stored score matrix (Dao et al., FlashAttention-2, 2023): mma.sync, online softmax.
#include "params.cuh"

__device__ __forceinline__ u32 swizzled(int row, int u, int units) {
  return (u32)(row * units * 16 + ((u ^ (units == 8 ? row & 7 : (row >> 1) & 3)) << 4));
}

// 128 queries a block, 4 warps of 32; keys in tiles of 64. D is 32 or 64.
template <int D>
__device__ __forceinline__ void flash(const AttentionParams& p) {
  constexpr int BM = 128, BN = 64, U = D / 8, KV = BN * D * 2;
  extern __shared__ __align__(1024) unsigned char smem[];
  after_predecessor();
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int q0 = blockIdx.x * BM, head = blockIdx.y;
  const long long g = blockIdx.z, gk = g / p.share;
  const half* q = p.q + g * p.Lq * p.ldq + head * D;
  const half* k = p.k + gk * p.Lk * p.ldk + head * D;
  const half* v = p.v + gk * p.Lk * p.ldv + head * D;
  const u32 sq = smem_address(smem), sk = sq + BM * D * 2, sv = sk + 2 * KV;

  for (int i = tid; i < BM * U; i += 128) {
    int r = i / U, u = i % U;
    bool ok = q0 + r < p.Lq;
    copy16(sq + swizzled(r, u, U), ok ? q + (long long)(q0 + r) * p.ldq + u * 8 : q, ok);
  }
  auto load = [&](int tile, int slot) {
    for (int i = tid; i < BN * U; i += 128) {
      int r = i / U, u = i % U, key = tile * BN + r;
      bool ok = key < p.Lk;
      copy16(sk + slot * KV + swizzled(r, u, U), ok ? k + (long long)key * p.ldk + u * 8 : k, ok);
      copy16(sv + slot * KV + swizzled(r, u, U), ok ? v + (long long)key * p.ldv + u * 8 : v, ok);
    }
  };
  int tiles = (p.Lk + BN - 1) / BN;
  if (p.causal) tiles = min(tiles, (min(q0 + BM, p.Lq) + BN - 1) / BN);
  load(0, 0);
  copy_commit();

  float o[2][D / 8][4], row_max[2][2], row_sum[2][2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
      for (int t = 0; t < 4; t++) o[i][j][t] = 0.f;
    row_max[i][0] = row_max[i][1] = -INFINITY;
    row_sum[i][0] = row_sum[i][1] = 0.f;
  }
  u32 qf[2][D / 16][4];
  const float scale = p.scale * 1.4426950408889634f;  // exp2 of logits times log2(e)

  for (int t = 0; t < tiles; t++) {
    copy_wait<0>();
    __syncthreads();
    if (t + 1 < tiles) load(t + 1, (t + 1) & 1);
    copy_commit();
    if (t == 0) {
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++)
          ldmatrix4(qf[i][kk], sq + swizzled(warp * 32 + i * 16 + (lane & 15), kk * 2 + (lane >> 4), U));
    }
    const u32 ks = sk + (t & 1) * KV, vs = sv + (t & 1) * KV;
    float s[2][BN / 8][4];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < BN / 8; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) s[i][j][c] = 0.f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
#pragma unroll
      for (int j = 0; j < BN / 16; j++) {
        u32 b[4];
        ldmatrix4(b, ks + swizzled(j * 16 + (lane & 7) + ((lane >> 4) << 3), kk * 2 + ((lane >> 3) & 1), U));
#pragma unroll
        for (int i = 0; i < 2; i++) {
          mma(s[i][2 * j], qf[i][kk], b[0], b[1]);
          mma(s[i][2 * j + 1], qf[i][kk], b[2], b[3]);
        }
      }
    }
    const bool edge = (t + 1) * BN > p.Lk || (p.causal && (t + 1) * BN > q0);
    if (edge) {
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < BN / 8; j++)
#pragma unroll
          for (int c = 0; c < 4; c++) {
            int key = t * BN + j * 8 + (lane & 3) * 2 + (c & 1);
            int row = q0 + warp * 32 + i * 16 + (lane >> 2) + (c >> 1) * 8;
            if (key >= p.Lk || (p.causal && key > row)) s[i][j][c] = -INFINITY;
          }
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float m = row_max[i][r];
#pragma unroll
        for (int j = 0; j < BN / 8; j++) m = fmaxf(m, fmaxf(s[i][j][2 * r], s[i][j][2 * r + 1]));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
        float base = m == -INFINITY ? 0.f : m * scale;
        float keep = power2(row_max[i][r] * scale - base);
        row_max[i][r] = m;
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < BN / 8; j++) {
          s[i][j][2 * r] = power2(s[i][j][2 * r] * scale - base);
          s[i][j][2 * r + 1] = power2(s[i][j][2 * r + 1] * scale - base);
          sum += s[i][j][2 * r] + s[i][j][2 * r + 1];
        }
        row_sum[i][r] = row_sum[i][r] * keep + sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
          o[i][j][2 * r] *= keep;
          o[i][j][2 * r + 1] *= keep;
        }
      }
#pragma unroll
    for (int kk = 0; kk < BN / 16; kk++) {
      u32 pf[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        pf[i][0] = pack_half2(s[i][2 * kk][0], s[i][2 * kk][1]);
        pf[i][1] = pack_half2(s[i][2 * kk][2], s[i][2 * kk][3]);
        pf[i][2] = pack_half2(s[i][2 * kk + 1][0], s[i][2 * kk + 1][1]);
        pf[i][3] = pack_half2(s[i][2 * kk + 1][2], s[i][2 * kk + 1][3]);
      }
#pragma unroll
      for (int j = 0; j < D / 16; j++) {
        u32 b[4];
        ldmatrix4_trans(b, vs + swizzled(kk * 16 + (lane & 15), j * 2 + (lane >> 4), U));
#pragma unroll
        for (int i = 0; i < 2; i++) {
          mma(o[i][2 * j], pf[i], b[0], b[1]);
          mma(o[i][2 * j + 1], pf[i], b[2], b[3]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = row_sum[i][r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      float inv = 1.f / sum;
      int row = q0 + warp * 32 + i * 16 + (lane >> 2) + r * 8;
      if (row < p.Lq) {
        half* out = p.out + (g * p.Lq + row) * p.ldo + head * D + (lane & 3) * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
          *reinterpret_cast<half2*>(out + j * 8) = __floats2half2_rn(o[i][j][2 * r] * inv, o[i][j][2 * r + 1] * inv);
      }
    }
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_64(const __grid_constant__ AttentionParams p) { flash<64>(p); }
extern "C" __global__ void __launch_bounds__(128, 2) flash_32(const __grid_constant__ AttentionParams p) { flash<32>(p); }

// Any head size and alignment, one query a warp: slow, for shapes that no shipped network has.
extern "C" __global__ void __launch_bounds__(128) attention_any(const __grid_constant__ AttentionParams p) {
  after_predecessor();
  extern __shared__ float fsm[];  // [4][D] outputs
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int row = blockIdx.x * 4 + warp, head = blockIdx.y;
  if (row >= p.Lq) return;
  const long long g = blockIdx.z, gk = g / p.share;
  const half* q = p.q + (g * p.Lq + row) * p.ldq + head * p.D;
  const half* k = p.k + gk * p.Lk * p.ldk + head * p.D;
  const half* v = p.v + gk * p.Lk * p.ldv + head * p.D;
  float* o = fsm + warp * p.D;
  for (int d = lane; d < p.D; d += 32) o[d] = 0.f;
  float best = -INFINITY, sum = 0.f;
  int keys = p.causal ? row + 1 : p.Lk;
  for (int key = 0; key < keys; key++) {
    float dot = 0.f;
    for (int d = lane; d < p.D; d += 32) dot += __half2float(q[d]) * __half2float(k[(long long)key * p.ldk + d]);
    dot = warp_sum(dot) * p.scale;
    float m = fmaxf(best, dot), keep = __expf(best - m), e = __expf(dot - m);
    sum = sum * keep + e;
    best = m;
    for (int d = lane; d < p.D; d += 32) o[d] = o[d] * keep + e * __half2float(v[(long long)key * p.ldv + d]);
  }
  half* out = p.out + (g * p.Lq + row) * p.ldo + head * p.D;
  for (int d = lane; d < p.D; d += 32) out[d] = __float2half(o[d] / sum);
}

// One row a block.
extern "C" __global__ void __launch_bounds__(256) softmax_rows(const __grid_constant__ SoftmaxParams p) {
  after_predecessor();
  __shared__ float part[8];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  half* x = p.x + (long long)blockIdx.x * p.ld;
  const int C = p.causal ? min(p.C, (int)(blockIdx.x % p.rows) + 1) : p.C;
  float m = -INFINITY;
  for (int c = threadIdx.x; c < C; c += 256) m = fmaxf(m, __half2float(x[c]));
  m = warp_max(m);
  if (lane == 0) part[warp] = m;
  __syncthreads();
  m = part[0];
  for (int i = 1; i < 8; i++) m = fmaxf(m, part[i]);
  __syncthreads();
  float sum = 0.f;
  for (int c = threadIdx.x; c < C; c += 256) sum += __expf(__half2float(x[c]) - m);
  sum = warp_sum(sum);
  if (lane == 0) part[warp] = sum;
  __syncthreads();
  sum = 0.f;
  for (int i = 0; i < 8; i++) sum += part[i];
  float inv = 1.f / sum;
  for (int c = threadIdx.x; c < p.ld; c += 256) x[c] = c < C ? __float2half(__expf(__half2float(x[c]) - m) * inv) : __float2half(0.f);
}
