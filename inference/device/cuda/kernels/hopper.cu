// The same product as gemm.cu for sm_90a: one warp fetches tiles with the tensor memory accelerator, two warpgroups
// multiply them with wgmma. A tile is 128 consecutive rows m; for a convolution these are whole pixel rows of one image,
// part of a row, or whole images, so that each tap is one box of the input tensor, shifted, with zeros outside.
// With a folded layer norm the warpgroups sum up their rows of A in shared memory while wgmma reads them.
#include "epilogue.cuh"
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

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
  if (tid == 0) {
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, 8);
    }
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();
  after_predecessor();

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
      for (int s = begin, i = 0; s < end; s++, i++) {
        int slot = i % STAGES, turn = i / STAGES;
        if (turn) barrier_wait(empty + slot * 8, (turn - 1) & 1);
        u32 sa = base + slot * STAGE, bar = full + slot * 8;
        barrier_expect(bar, A_BYTES + BN * 128);
        int dy = tap / p.KW, dx = tap - dy * p.KW;
        fetch4(sa, &p.a, bar, ks * 64, x0 + dx, y0 + dy, b0);
        fetch2(sa + A_BYTES, &p.w, bar, s * 64, row, p.policy);
        if (++ks == p.ksteps) {
          ks = 0;
          tap++;
        }
      }
    }
    return;
  }

  const int group = warp >> 2;  // warpgroup: rows group*64 .. +64 of the tile
  float acc[BN / 2];
#pragma unroll
  for (int i = 0; i < BN / 2; i++) acc[i] = 0.f;
  float sum = 0.f, squares = 0.f;  // of half a row of A: row (tid & 127) / 2 of this warpgroup
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
      wgmma_wait<0>();
      pin(acc);
      __syncwarp();  // all lanes have read before one of them gives the slot back
      if (lane == 0) barrier_arrive(empty + slot * 8);
      continue;
    }
    wgmma_wait<1>();  // the product before this one has been read out of its slot
    if (i && lane == 0) barrier_arrive(empty + ((i - 1) % STAGES) * 8);
  }
  wgmma_wait<0>();
  pin(acc);
  float2* moments = reinterpret_cast<float2*>(smem + STAGES * STAGE + STAGES * 16);  // mean and inverse deviation of each row
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
  if (p.e.wide && p.e.splits == 1) {
    // Bias and activation in registers, then fp16 rows in shared memory, then whole 16-byte units with the residual.
    half* stage = reinterpret_cast<half*>(smem) + group * 64 * (BN + 8);
    float2 upper = make_float2(0.f, p.e.alpha), lower = upper;
    if (FOLD) {
      upper = moments[group * 64 + wrow];
      lower = moments[group * 64 + wrow + 8];
    }
    auto column = [&](int j, float (&v)[4]) {
      const int n = n0 + j * 8 + wcol;
      float2 b = make_float2(0.f, 0.f);
      if (p.e.bias && n < p.e.N) b = *reinterpret_cast<const float2*>(p.e.bias + n);
      float2 f = make_float2(0.f, 0.f);
      if (FOLD && n < p.e.N) f = *reinterpret_cast<const float2*>(p.e.fold + n);
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
    const bool gated = p.e.act == 3;
    const int width = gated ? BN / 2 : BN, ld = width + 8, N = gated ? p.e.N / 2 : p.e.N, c0 = gated ? n0 / 2 : n0;
    if (gated) {
#pragma unroll
      for (int j = 0; j < BN / 16; j++) {
        float v[4], g[4];
        column(2 * j, v);
        column(2 * j + 1, g);
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] *= gelu(g[i]);
        put(ld, j * 8, v);
      }
    } else {
#pragma unroll
      for (int j = 0; j < BN / 8; j++) {
        float v[4];
        column(j, v);
        if (p.e.act) {
#pragma unroll
          for (int i = 0; i < 4; i++) v[i] = activate(v[i], p.e.act);
        }
        put(ld, j * 8, v);
      }
    }
    asm volatile("bar.sync %0, 128;\n" ::"r"(group + 2) : "memory");
    const int units = width / 8;
    for (int u = tid & 127; u < 64 * units; u += 128) {
      const int r = u / units, c = (u - r * units) * 8, m = first + r;
      if (m >= p.e.M || c0 + c >= N) continue;
      const long long to = out_row(p.e, m);
      if (p.e.residual) {
        float v[8], x[8];
        load8(v, stage + r * ld + c);
        load8(x, p.e.residual + to * p.e.ldr + c0 + c);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += x[i];
        store8(p.e.out + to * p.e.ldo + c0 + c, v);
      } else {
        *reinterpret_cast<uint4*>(p.e.out + to * p.e.ldo + c0 + c) = *reinterpret_cast<const uint4*>(stage + r * ld + c);
      }
    }
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
