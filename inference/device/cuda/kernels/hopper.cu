// The same product as gemm.cu for sm_90a: one warp fetches tiles with the tensor memory accelerator, two warpgroups
// multiply them with wgmma. A tile is 128 consecutive rows m; for a convolution these are whole pixel rows of one image,
// part of a row, or whole images, so that each tap is one box of the input tensor, shifted, with zeros outside.
// With a folded layer norm the warpgroups sum up their rows of A in shared memory while wgmma reads them.
#include "epilogue.cuh"
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// The 64 rows of a warpgroup, UNITS times 16 bytes wide, on their way to memory. Thread t of 128 always has the same units.
template <int UNITS>
struct Rows {
  static constexpr int LD = UNITS * 8 + 8, EACH = (UNITS + 1) / 2, UNROLL = 2;
  const EpilogueParams& e;
  int first, c0, N, t;

  template <typename F>
  __device__ __forceinline__ void each(F f) const {
#pragma unroll UNROLL
    for (int i = 0; i < EACH; i++) {
      const int u = t + i * 128, r = u / UNITS, c = (u - r * UNITS) * 8, m = first + r;
      f(r * LD + c, m, c0 + c, r < 64 && m < e.M && c0 + c < N);
    }
  }
  // What is to be added comes to shared memory while the sums are still worked on.
  __device__ __forceinline__ void fetch_residual(half* to) const {
    each([&](int at, int m, int n, bool ok) { copy16(smem_address(to + at), ok ? e.residual + out_row(e, m) * e.ldr + n : e.residual, ok); });
    copy_commit();
  }
  __device__ __forceinline__ void write(const half* from, const half* residual) const {
    if (e.residual) copy_wait<0>();
    each([&](int at, int m, int n, bool ok) {
      if (!ok) return;
      half* out = e.out + out_row(e, m) * e.ldo + n;
      if (e.residual) {
        float v[8], x[8];
        load8(v, from + at);
        load8(x, residual + at);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += x[i];
        store8(out, v);
      } else {
        *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(from + at);
      }
    });
  }
};

template <int BN, int STAGES, bool FOLD>
__device__ __forceinline__ void hopper_tile(const HopperParams& p) {
  constexpr int BM = 128, A_BYTES = BM * 128, B_BYTES = (BN * 128 + 1023) / 1024 * 1024, STAGE = A_BYTES + B_BYTES;
  extern __shared__ unsigned char smem_raw[];
  const u32 raw = smem_address(smem_raw), base = (raw + 1023) & ~1023u;
  unsigned char* smem = smem_raw + (base - raw);
  const u32 full = base + STAGES * STAGE, empty = full + STAGES * 8;
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31;
  const int n0 = (blockIdx.x % p.ntiles) * BN, m0 = (blockIdx.x / p.ntiles) * BM;
  const int total = p.taps * p.ksteps;
  int begin = 0, end = total;
  if (p.e.splits > 1) {
    int per = (total + p.e.splits - 1) / p.e.splits;
    begin = min((int)blockIdx.z * per, total);
    end = min(begin + per, total);
  }
  if (warp == 8 && lane == 0) {
    prefetch_map(&p.a);
    prefetch_map(&p.w);
  }
  if (tid == 0) {
#pragma unroll 1
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, 8);
    }
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();

  if (warp == 8) {
    if (lane == 0) {
      int m = m0, row = n0, top = p.top, left = p.left;
      if (p.e.quad_h) {
        const int rows = p.e.M >> 2, part = m0 / rows;
        m -= part * rows;
        row += part * p.e.N;
        top -= part >> 1;
        left -= part & 1;
      }
      const int b0 = m / p.OHW, rest = m - b0 * p.OHW, oy = rest / p.OW, ox = rest - oy * p.OW;
      const int y0 = oy * p.stride - top, x0 = ox * p.stride - left;
      int tap = begin / p.ksteps, ks = begin - tap * p.ksteps;
      auto weights = [&](int slot, int step) {
        barrier_expect(full + slot * 8, A_BYTES + BN * 128);
        fetch2(base + slot * STAGE + A_BYTES, &p.w, full + slot * 8, step * 64, row, p.policy);
      };
      // The first weights come before the predecessor has ended.
#pragma unroll 1
      for (int i = 0; i < STAGES && begin + i < end; i++) weights(i, begin + i);
      wait_predecessor();
#pragma unroll 1
      for (int s = begin, i = 0; s < end; s++, i++) {
        int slot = i % STAGES, turn = i / STAGES;
        u32 sa = base + slot * STAGE, bar = full + slot * 8;
        if (turn) {
          barrier_wait(empty + slot * 8, (turn - 1) & 1);
          weights(slot, s);
        }
        int dy = tap / p.KW, dx = tap - dy * p.KW;
        fetch4(sa, &p.a, bar, ks * 64, x0 + dx, y0 + dy, b0);
        if (++ks == p.ksteps) {
          ks = 0;
          tap++;
        }
      }
    }
    return;
  }

  const int group = warp >> 2;  // warpgroup: rows group*64 .. +64 of the tile
  float2* moments = reinterpret_cast<float2*>(smem + STAGES * STAGE + STAGES * 16);  // mean and inverse deviation of each row
  float* columns = reinterpret_cast<float*>(moments + BM);                           // bias and, with FOLD, sums of weights
  for (int c = tid; c < BN; c += 256) {
    const bool in = n0 + c < p.e.N;
    columns[c] = in && p.e.bias ? p.e.bias[n0 + c] : 0.f;
    if (FOLD) columns[BN + c] = in ? p.e.fold[n0 + c] : 0.f;
  }
  float acc[BN / 2];
#pragma unroll
  for (int i = 0; i < BN / 2; i++) acc[i] = 0.f;
  float sum = 0.f, squares = 0.f;  // of half a row of A: row (tid & 127) / 2 of this warpgroup
#pragma unroll 1
  for (int i = 0; i < end - begin; i++) {
    int slot = i % STAGES;
    barrier_wait(full + slot * 8, (i / STAGES) & 1);
    u32 sa = base + slot * STAGE;
    u64 da = describe(sa + group * 8192), db = describe(sa + A_BYTES);
    pin(acc);
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < 4; kk++) wgmma<BN>(acc, da + kk * 2, db + kk * 2, 1);
    wgmma_commit();
    if (FOLD) {
      const int r = (tid & 127) >> 1;
#pragma unroll
      for (int u = 0; u < 4; u++) {
        float x[8];
        load8(x, reinterpret_cast<const half*>(smem + slot * STAGE + group * 8192 + r * 128 + ((((tid & 1) * 4 + u) ^ (r & 7)) << 4)));
#pragma unroll
        for (int c = 0; c < 8; c++) {
          sum += x[c];
          squares = fmaf(x[c], x[c], squares);
        }
      }
      __syncwarp();  // all lanes have read before one of them gives the slot back, a step later
    }
    wgmma_wait<1>();  // the product before this one has been read out of its slot
    if (i && lane == 0) barrier_arrive(empty + ((i - 1) % STAGES) * 8);
  }
  wgmma_wait<0>();
  pin(acc);
  if (tid == 0) let_successor();
  wait_predecessor();
  if (FOLD) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    squares += __shfl_xor_sync(~0u, squares, 1);
    const float mean = sum * p.e.fold_scale, var = squares * p.e.fold_scale - mean * mean;
    if ((tid & 1) == 0) moments[tid >> 1] = make_float2(mean, rsqrtf(fmaxf(var, 0.f) + p.e.fold_eps));
  }
  // Both warpgroups have read every slot: the memory becomes the staging area.
  asm volatile("bar.sync 1, 256;\n" ::: "memory");
  const int wrow = (warp & 3) * 16 + (lane >> 2), wcol = (lane & 3) * 2, first = m0 + group * 64;
  if (p.e.splits > 1 && (p.e.N & 1) == 0) {
    float* out = p.e.partial + (long long)blockIdx.z * p.e.M * p.e.N;
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
      const int n = n0 + j * 8 + wcol;
      if (n >= p.e.N) continue;
      if (first + wrow < p.e.M) *reinterpret_cast<float2*>(out + (long long)(first + wrow) * p.e.N + n) = make_float2(acc[4 * j], acc[4 * j + 1]);
      if (first + wrow + 8 < p.e.M) *reinterpret_cast<float2*>(out + (long long)(first + wrow + 8) * p.e.N + n) = make_float2(acc[4 * j + 2], acc[4 * j + 3]);
    }
    return;
  }
  // What follows is run once and comes from a cold instruction cache, so little of it may be unrolled.
  if (p.e.wide && p.e.splits == 1 && (p.e.act == 0 || p.e.act == 3)) {
    // Bias in registers, then fp16 rows in shared memory, then whole 16-byte units with the residual.
    half* stage = reinterpret_cast<half*>(smem) + group * 64 * (BN + 8);
    half* residual = stage + 2 * 64 * (BN + 8);
    float2 upper = make_float2(0.f, p.e.alpha), lower = upper;
    if (FOLD) {
      upper = moments[group * 64 + wrow];
      lower = moments[group * 64 + wrow + 8];
    }
    auto column = [&](int j, float (&v)[4]) {
      const float2 b = *reinterpret_cast<const float2*>(columns + j * 8 + wcol);
      float2 f = make_float2(0.f, 0.f);
      if (FOLD) f = *reinterpret_cast<const float2*>(columns + BN + j * 8 + wcol);
      v[0] = fmaf(fmaf(-upper.x, f.x, acc[4 * j]), upper.y, b.x);
      v[1] = fmaf(fmaf(-upper.x, f.y, acc[4 * j + 1]), upper.y, b.y);
      v[2] = fmaf(fmaf(-lower.x, f.x, acc[4 * j + 2]), lower.y, b.x);
      v[3] = fmaf(fmaf(-lower.x, f.y, acc[4 * j + 3]), lower.y, b.y);
    };
    auto put = [&](int ld, int c, const float (&v)[4]) {
      half* s = stage + wrow * ld + c + wcol;
      *reinterpret_cast<half2*>(s) = __floats2half2_rn(v[0], v[1]);
      *reinterpret_cast<half2*>(s + 8 * ld) = __floats2half2_rn(v[2], v[3]);
    };
    if (p.e.act == 3) {
      const Rows<BN / 16> rows{p.e, first, n0 / 2, p.e.N / 2, tid & 127};
      if (p.e.residual) rows.fetch_residual(residual);
#pragma unroll
      for (int j = 0; j < BN / 16; j++) {
        float v[4], g[4];
        column(2 * j, v);
        column(2 * j + 1, g);
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] *= gelu(g[i]);
        put(rows.LD, j * 8, v);
      }
      asm volatile("bar.sync %0, 128;\n" ::"r"(group + 2) : "memory");
      rows.write(stage, residual);
      return;
    }
    const Rows<BN / 8> rows{p.e, first, n0, p.e.N, tid & 127};
    if (p.e.residual) rows.fetch_residual(residual);
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
      float v[4];
      column(j, v);
      put(rows.LD, j * 8, v);
    }
    asm volatile("bar.sync %0, 128;\n" ::"r"(group + 2) : "memory");
    rows.write(stage, residual);
    return;
  }
  constexpr int LD = BN + 8;
  float* stage = reinterpret_cast<float*>(smem) + group * 64 * LD;
#pragma unroll
  for (int j = 0; j < BN / 8; j++) {
    float* s = stage + wrow * LD + j * 8 + wcol;
    *reinterpret_cast<float2*>(s) = make_float2(acc[4 * j], acc[4 * j + 1]);
    *reinterpret_cast<float2*>(s + 8 * LD) = make_float2(acc[4 * j + 2], acc[4 * j + 3]);
  }
  asm volatile("bar.sync %0, 128;\n" ::"r"(group + 2) : "memory");
  if (p.e.wide && p.e.splits == 1) {
    // The rare activations; write_tile knows no folded norm.
#pragma unroll 1
    for (int u = tid & 127; u < 64 * (BN / 8); u += 128) {
      const int r = u / (BN / 8), c = (u - r * (BN / 8)) * 8, m = first + r, n = n0 + c;
      if (m >= p.e.M || n >= p.e.N) continue;
      const float2 row = FOLD ? moments[group * 64 + r] : make_float2(0.f, p.e.alpha);
      const long long to = out_row(p.e, m);
      float v[8], x[8];
      load8(v, stage + r * LD + c);
      if (FOLD) {
        load8(x, columns + BN + c);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = fmaf(-row.x, x[i], v[i]);
      }
      load8(x, columns + c);
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = activate(fmaf(v[i], row.y, x[i]), p.e.act);
      if (p.e.residual) {
        load8(x, p.e.residual + to * p.e.ldr + n);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += x[i];
      }
      store8(p.e.out + to * p.e.ldo + n, v);
    }
    return;
  }
  write_tile<BN>(p.e, stage, 64, first, n0, blockIdx.z, tid & 127, 128, 0);
}
#define BODY(BN, STAGES, FOLD) hopper_tile<BN, STAGES, FOLD>(p);
#else
#define BODY(BN, STAGES, FOLD)
#endif

// Name: tile width and pipeline depth; the depths leave room for MINB blocks on a multiprocessor.
#define HOPPER(BN, STAGES, MINB)                                                                                        \
  extern "C" __global__ void __launch_bounds__(288, MINB)                                                               \
      hopper_##BN##x##STAGES(const __grid_constant__ HopperParams p) { BODY(BN, STAGES, false) }

#define FOLDING(BN, STAGES, MINB)                                                                                       \
  extern "C" __global__ void __launch_bounds__(288, MINB)                                                               \
      folding_##BN##x##STAGES(const __grid_constant__ HopperParams p) { BODY(BN, STAGES, true) }

HOPPER(64, 4, 2)
HOPPER(80, 4, 2)
HOPPER(128, 3, 2)
HOPPER(80, 8, 1)
HOPPER(128, 6, 1)
HOPPER(160, 6, 1)
HOPPER(192, 5, 1)
HOPPER(256, 4, 1)
FOLDING(64, 4, 2)
FOLDING(80, 4, 2)
FOLDING(128, 3, 2)
FOLDING(160, 6, 1)
FOLDING(256, 4, 1)
