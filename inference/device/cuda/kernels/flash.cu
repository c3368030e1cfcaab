// Attention for heads of 64 on sm_90a: wgmma for both products, keys and values by TMA, the score product of the next
// tile running while the softmax of this one is computed (Shah et al., FlashAttention-3, 2024).
#include "hopper.cuh"
#include "params.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int TILE = 128 * 64 * 2;  // bytes of 128 tokens
constexpr int RING = 2;             // tiles of keys, and of values, in flight

// State of a warpgroup: 64 queries; a thread holds columns of rows lane/4 and lane/4 + 8 of its warp's 16.
struct Softmax {
  float best[2], sum[2], keep[2];
};

// Scores to weights in place. Returns in st.keep what earlier sums and outputs have to be multiplied with.
__device__ __forceinline__ void soften(float (&s)[64], Softmax& st, float scale, int valid, int lane) {
  if (valid < 128) {
#pragma unroll
    for (int j = 0; j < 16; j++)
#pragma unroll
      for (int c = 0; c < 4; c++)
        if (j * 8 + (lane & 3) * 2 + (c & 1) >= valid) s[4 * j + c] = -INFINITY;
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float m = st.best[r];
#pragma unroll
    for (int j = 0; j < 16; j++) m = fmaxf(m, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
    m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
    st.keep[r] = power2((st.best[r] - m) * scale);
    st.best[r] = m;
    const float base = m * scale;
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < 16; j++) {
      s[4 * j + 2 * r] = power2(fmaf(s[4 * j + 2 * r], scale, -base));
      s[4 * j + 2 * r + 1] = power2(fmaf(s[4 * j + 2 * r + 1], scale, -base));
      sum += s[4 * j + 2 * r] + s[4 * j + 2 * r + 1];
    }
    st.sum[r] = st.sum[r] * st.keep[r] + sum;
  }
}

__device__ __forceinline__ void flash(const FlashParams& p) {
  extern __shared__ unsigned char smem_raw[];
  const u32 base = (smem_address(smem_raw) + 1023) & ~1023u;
  const u32 sq = base, sk = base + TILE, sv = sk + RING * TILE, bars = sv + RING * TILE;
  const u32 q_full = bars, k_full = bars + 8, v_full = k_full + RING * 8, k_empty = v_full + RING * 8, v_empty = k_empty + RING * 8;
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31;
  const int q0 = blockIdx.x * 128, head = blockIdx.y, g = blockIdx.z;
  const int tiles = (p.Lk + 127) / 128;
  if (tid == 0) {
    barrier_init(q_full, 1);
    for (int i = 0; i < RING; i++) {
      barrier_init(k_full + i * 8, 1);
      barrier_init(v_full + i * 8, 1);
      barrier_init(k_empty + i * 8, 8);
      barrier_init(v_empty + i * 8, 8);
    }
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();
  wait_predecessor();

  if (warp == 8) {
    if (lane == 0) {
      barrier_expect(q_full, TILE);
      fetch3(sq, &p.q, q_full, head * 64, q0, g);
      for (int i = 0; i < tiles; i++) {
        int slot = i % RING, turn = i / RING;
        if (turn) barrier_wait(k_empty + slot * 8, (turn - 1) & 1);
        barrier_expect(k_full + slot * 8, TILE);
        fetch3(sk + slot * TILE, &p.k, k_full + slot * 8, head * 64, i * 128, g / p.share);
        if (turn) barrier_wait(v_empty + slot * 8, (turn - 1) & 1);
        barrier_expect(v_full + slot * 8, TILE);
        fetch3(sv + slot * TILE, &p.v, v_full + slot * 8, head * 64, i * 128, g / p.share);
      }
      let_successor();
    }
    return;
  }

  const int group = warp >> 2;
  const float scale = p.scale * 1.4426950408889634f;
  Softmax st;
  st.best[0] = st.best[1] = -INFINITY;
  st.sum[0] = st.sum[1] = 0.f;
  float o[32], s[64];
  u32 w[8][4];
#pragma unroll
  for (int i = 0; i < 32; i++) o[i] = 0.f;
  barrier_wait(q_full, 0);
  const u64 dq = describe(sq + group * 8192);

  auto scores = [&](int i) {
    barrier_wait(k_full + (i % RING) * 8, (i / RING) & 1);
    const u64 dk = describe(sk + (i % RING) * TILE);
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < 4; kk++) wgmma<128>(s, dq + kk * 2, dk + kk * 2, kk > 0);
    wgmma_commit();
  };
  auto weigh = [&](int i) {
    barrier_wait(v_full + (i % RING) * 8, (i / RING) & 1);
    const u64 dv = describe(sv + (i % RING) * TILE);
    pin(o);
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < 8; kk++) wgmma_registers(o, w[kk], dv + kk * 128);
    wgmma_commit();
  };
  auto round = [&]() {
#pragma unroll
    for (int kk = 0; kk < 8; kk++)
#pragma unroll
      for (int c = 0; c < 4; c++) w[kk][c] = pack_half2(s[8 * kk + 2 * c], s[8 * kk + 2 * c + 1]);
  };
  // The warpgroups take turns on the tensor cores: one computes its softmax while the other multiplies.
  auto my_turn = [&]() { asm volatile("bar.sync %0, 256;\n" ::"r"(group + 1) : "memory"); };
  auto your_turn = [&]() { asm volatile("bar.arrive %0, 256;\n" ::"r"(2 - group) : "memory"); };
  if (group == 1 && tiles > 1) your_turn();
  scores(0);
  wgmma_wait<0>();
  pin(s);
  if (lane == 0) barrier_arrive(k_empty);
  soften(s, st, scale, p.Lk, lane);
  round();
  for (int i = 1; i < tiles; i++) {
    my_turn();
    scores(i);
    weigh(i - 1);
    if (group == 0 || i + 1 < tiles) your_turn();
    wgmma_wait<1>();  // the scores; the weighted sum goes on beside the softmax
    pin(s);
    if (lane == 0) barrier_arrive(k_empty + (i % RING) * 8);
    soften(s, st, scale, p.Lk - i * 128, lane);
    wgmma_wait<0>();
    pin(o);
    if (lane == 0) barrier_arrive(v_empty + ((i - 1) % RING) * 8);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      o[4 * j] *= st.keep[0];
      o[4 * j + 1] *= st.keep[0];
      o[4 * j + 2] *= st.keep[1];
      o[4 * j + 3] *= st.keep[1];
    }
    round();
  }
  weigh(tiles - 1);
  wgmma_wait<0>();
  pin(o);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float sum = st.sum[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const float inv = 1.f / sum;
    const int row = q0 + group * 64 + (warp & 3) * 16 + (lane >> 2) + r * 8;
    if (row < p.Lq) {
      half* out = p.out + ((long long)g * p.Lq + row) * p.ldo + head * 64 + (lane & 3) * 2;
#pragma unroll
      for (int j = 0; j < 8; j++)
        *reinterpret_cast<half2*>(out + j * 8) = __floats2half2_rn(o[4 * j + 2 * r] * inv, o[4 * j + 2 * r + 1] * inv);
    }
  }
}
#endif

extern "C" __global__ void __launch_bounds__(288, 1) flash_hopper(const __grid_constant__ FlashParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  flash(p);
#endif
}
