// Implicit-GEMM convolution and matrix product on mma.sync with a cp.async pipeline: every tensor-core card.
#include "epilogue.cuh"

// Shared memory holds rows of 64 halves (8 units of 16 bytes), unit u of row r stored at u ^ (r & 7): no bank conflicts
// for ldmatrix and for the copies.
__device__ __forceinline__ u32 unit(int row, int u) { return (u32)(row * 128 + ((u ^ (row & 7)) << 4)); }

template <int BM, int BN, int WM, int WN, int STAGES>
__device__ __forceinline__ void gemm_tile(const GemmParams& p) {
  constexpr int BK = 64;
  constexpr int WARPS_N = BN / WN;
  constexpr int THREADS = (BM / WM) * WARPS_N * 32;
  constexpr int STAGE = (BM + BN) * BK * 2;
  constexpr int ROWS_PER_PASS = THREADS / 8;
  constexpr int PA = BM / ROWS_PER_PASS, PB = BN / ROWS_PER_PASS;
  static_assert(BM % ROWS_PER_PASS == 0 && BN % ROWS_PER_PASS == 0, "copy passes must divide the tile");
  extern __shared__ __align__(1024) unsigned char smem[];
  after_predecessor();
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int wm = (warp / WARPS_N) * WM, wn = (warp % WARPS_N) * WN;
  const int m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
  const int z = blockIdx.z;
  const half* a = p.a;
  const half* w = p.weights;
  long long shift = 0;
  int k_begin = 0, k_end = (p.K + BK - 1) / BK;
  if (p.batched) {
    a += z * p.batch_a;
    w += z * p.batch_w;
    shift = z * p.batch_out;
  } else if (p.e.splits > 1) {
    int per = (k_end + p.e.splits - 1) / p.e.splits;
    k_begin = min(z * per, k_end);
    k_end = min(k_begin + per, k_end);
  }

  // What this thread copies: unit cu of rows cr, cr + ROWS_PER_PASS, …
  const int cu = tid & 7, cr = tid >> 3;
  int iy0[PA], ix0[PA];
  long long base[PA];
#pragma unroll
  for (int i = 0; i < PA; i++) {
    int m = m0 + cr + i * ROWS_PER_PASS;
    if (m < p.e.M) {
      int ox = m % p.OW, t = m / p.OW, oy = t % p.OH;
      long long b = t / p.OH;
      iy0[i] = oy * p.stride - p.top;
      ix0[i] = ox * p.stride - p.left;
      base[i] = b * p.H * p.W;
    } else {
      iy0[i] = -(1 << 28);
      ix0[i] = 0;
      base[i] = 0;
    }
  }
  int k = k_begin * BK + cu * 8;
  int tap = k / p.C, c = k - tap * p.C;
  const int eh = p.H << p.shift, ew = p.W << p.shift;

  auto load = [&](int stage) {
    u32 sa = smem_address(smem) + stage * STAGE, sb = sa + BM * BK * 2;
    bool in = k < p.K;
    int dy = tap / p.KW, dx = tap - dy * p.KW;
#pragma unroll
    for (int i = 0; i < PA; i++) {
      int y = iy0[i] + dy, x = ix0[i] + dx;
      bool ok = in && (unsigned)y < (unsigned)eh && (unsigned)x < (unsigned)ew;
      if (p.parity) ok = ok && !((y | x) & 1);
      y >>= p.shift;
      x >>= p.shift;
      const half* src = ok ? a + (base[i] + (long long)y * p.W + x) * p.lda + c : a;
      copy16(sa + unit(cr + i * ROWS_PER_PASS, cu), src, ok);
    }
#pragma unroll
    for (int i = 0; i < PB; i++) {
      int n = n0 + cr + i * ROWS_PER_PASS;
      bool ok = in && n < p.e.N;
      const half* src = ok ? w + (long long)n * p.ldw + k : w;
      copy16(sb + unit(cr + i * ROWS_PER_PASS, cu), src, ok);
    }
    k += BK;
    c += BK;
    while (c >= p.C) {
      c -= p.C;
      tap++;
    }
  };

  float acc[WM / 16][WN / 8][4];
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++)
#pragma unroll
      for (int t = 0; t < 4; t++) acc[i][j][t] = 0.f;

  const int steps = k_end - k_begin;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) load(s);
    copy_commit();
  }
  for (int s = 0; s < steps; s++) {
    copy_wait<STAGES - 2>();
    __syncthreads();
    if (s + STAGES - 1 < steps) load((s + STAGES - 1) % STAGES);
    copy_commit();
    u32 sa = smem_address(smem) + (s % STAGES) * STAGE, sb = sa + BM * BK * 2;
#pragma unroll
    for (int kk = 0; kk < BK / 16; kk++) {
      u32 af[WM / 16][4], bf[WN / 16][4];
#pragma unroll
      for (int i = 0; i < WM / 16; i++) ldmatrix4(af[i], sa + unit(wm + i * 16 + (lane & 15), kk * 2 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < WN / 16; j++)
        ldmatrix4(bf[j], sb + unit(wn + j * 16 + (lane & 7) + ((lane >> 4) << 3), kk * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++) mma(acc[i][j], af[i], bf[j / 2][(j & 1) * 2], bf[j / 2][(j & 1) * 2 + 1]);
    }
  }
  copy_wait<0>();
  __syncthreads();
  float* stage = reinterpret_cast<float*>(smem);
  constexpr int LD = BN + 8;
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++) {
      float* s = stage + (wm + i * 16 + (lane >> 2)) * LD + wn + j * 8 + (lane & 3) * 2;
      *reinterpret_cast<float2*>(s) = make_float2(acc[i][j][0], acc[i][j][1]);
      *reinterpret_cast<float2*>(s + 8 * LD) = make_float2(acc[i][j][2], acc[i][j][3]);
    }
  __syncthreads();
  write_tile<BN>(p.e, stage, BM, m0, n0, z, tid, THREADS, shift);
}

#define GEMM(BM, BN, WM, WN, STAGES, MINB)                                                                              \
  extern "C" __global__ void __launch_bounds__((BM / WM) * (BN / WN) * 32, MINB)                                        \
      gemm_##BM##x##BN(const __grid_constant__ GemmParams p) { gemm_tile<BM, BN, WM, WN, STAGES>(p); }

GEMM(128, 128, 64, 32, 3, 1)
GEMM(128, 64, 32, 32, 3, 1)
GEMM(64, 64, 32, 32, 4, 2)
GEMM(64, 32, 32, 16, 4, 2)

// Sums the depth splits in order and finishes; one unit of eight columns a thread (sixteen accumulator columns with GEGLU).
extern "C" __global__ void __launch_bounds__(256) reduce_split(const __grid_constant__ ReduceParams p) {
  after_predecessor();
  const EpilogueParams& e = p.e;
  int step = e.act == 3 ? 16 : 8, units = (e.N + step - 1) / step;
  long long u = (long long)blockIdx.x * 256 + threadIdx.x;
  if (u >= (long long)e.M * units) return;
  int m = (int)(u / units), n = (int)(u - (long long)m * units) * step;
  float v[8] = {}, g[8] = {};
  for (int s = 0; s < e.splits; s++) {
    const float* q = e.partial + ((long long)s * e.M + m) * e.N + n;
    if (e.N % 8 == 0) {
      float4 x = *reinterpret_cast<const float4*>(q), y = *reinterpret_cast<const float4*>(q + 4);
      v[0] += x.x; v[1] += x.y; v[2] += x.z; v[3] += x.w;
      v[4] += y.x; v[5] += y.y; v[6] += y.z; v[7] += y.w;
      if (e.act == 3) {
        x = *reinterpret_cast<const float4*>(q + 8);
        y = *reinterpret_cast<const float4*>(q + 12);
        g[0] += x.x; g[1] += x.y; g[2] += x.z; g[3] += x.w;
        g[4] += y.x; g[5] += y.y; g[6] += y.z; g[7] += y.w;
      }
    } else {
      for (int i = 0; i < 8 && n + i < e.N; i++) v[i] += q[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    v[i] *= e.alpha;
    g[i] *= e.alpha;
  }
  finish8(e, m, n, v, g, 0);
}
