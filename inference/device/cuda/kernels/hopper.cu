// The same product as gemm.cu for sm_90a: one warp fetches tiles with the tensor memory accelerator, two warpgroups
// multiply them with wgmma. A tile is 128 consecutive rows m; for a convolution these are whole pixel rows of one image,
// part of a row, or whole images, so that each tap is one box of the input tensor, shifted, with zeros outside.
#include "epilogue.cuh"
#include "hopper.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int BN, int STAGES>
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
      const int b0 = m0 / p.OHW, rest = m0 - b0 * p.OHW, y0 = rest / p.OW, x0 = rest - y0 * p.OW;
      int tap = begin / p.ksteps, ks = begin - tap * p.ksteps;
      for (int s = begin, i = 0; s < end; s++, i++) {
        int slot = i % STAGES, turn = i / STAGES;
        if (turn) barrier_wait(empty + slot * 8, (turn - 1) & 1);
        u32 sa = base + slot * STAGE, bar = full + slot * 8;
        barrier_expect(bar, A_BYTES + BN * 128);
        int dy = tap / p.KW, dx = tap - dy * p.KW;
        fetch4(sa, &p.a, bar, ks * 64, x0 + dx - p.left, y0 + dy - p.top, b0);
        fetch2(sa + A_BYTES, &p.w, bar, s * 64, n0);
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
    wgmma_wait<1>();  // the product before this one has been read out of its slot
    if (i && lane == 0) barrier_arrive(empty + ((i - 1) % STAGES) * 8);
  }
  wgmma_wait<0>();
  pin(acc);
  // Both warpgroups have read every slot: the memory becomes the staging area.
  asm volatile("bar.sync 1, 256;\n" ::: "memory");
  constexpr int LD = BN + 8;
  float* stage = reinterpret_cast<float*>(smem) + group * 64 * LD;
  const int wrow = (warp & 3) * 16 + (lane >> 2);
#pragma unroll
  for (int j = 0; j < BN / 8; j++) {
    float* s = stage + wrow * LD + j * 8 + (lane & 3) * 2;
    *reinterpret_cast<float2*>(s) = make_float2(acc[4 * j], acc[4 * j + 1]);
    *reinterpret_cast<float2*>(s + 8 * LD) = make_float2(acc[4 * j + 2], acc[4 * j + 3]);
  }
  asm volatile("bar.sync %0, 128;\n" ::"r"(group + 2) : "memory");
  write_tile<BN>(p.e, stage, 64, m0 + group * 64, n0, blockIdx.z, tid & 127, 128, 0);
}
#define BODY(BN, STAGES) hopper_tile<BN, STAGES>(p);
#else
#define BODY(BN, STAGES)
#endif

// Name: tile width and pipeline depth; the depths leave room for MINB blocks on a multiprocessor.
#define HOPPER(BN, STAGES, MINB)                                                                                        \
  extern "C" __global__ void __launch_bounds__(288, MINB)                                                               \
      hopper_##BN##x##STAGES(const __grid_constant__ HopperParams p) { BODY(BN, STAGES) }

HOPPER(64, 4, 2)
HOPPER(80, 4, 2)
HOPPER(128, 3, 2)
HOPPER(80, 8, 1)
HOPPER(128, 6, 1)
HOPPER(160, 6, 1)
HOPPER(192, 5, 1)
HOPPER(256, 4, 1)
