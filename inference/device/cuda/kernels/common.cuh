// Small wrappers of instructions that every kernel here uses.
#pragma once
#include <cuda_fp16.h>

#define INFINITY __int_as_float(0x7f800000)
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(64) CUtensorMap { u64 opaque[16]; };

struct alignas(16) half8 { half2 h[4]; };

// Kernels of a graph start while their predecessor drains (programmatic dependent launch, sm_90 on): each waits for the
// predecessor's results before it touches what that writes or reads, and says when its successor may be set up.
__device__ __forceinline__ void wait_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_successor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// Small kernels do both at their start.
__device__ __forceinline__ void after_predecessor() {
  wait_predecessor();
  let_successor();
}

__device__ __forceinline__ u32 smem_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory without a register; zeros when ok is false.
__device__ __forceinline__ void copy16(u32 dst, const void* src, bool ok) {
  int n = ok ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(dst), "l"(src), "r"(n));
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;\n"); }
template <int N> __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

__device__ __forceinline__ void ldmatrix4(u32 (&r)[4], u32 addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr));
}
__device__ __forceinline__ void ldmatrix4_trans(u32 (&r)[4], u32 addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr));
}
// d (16x8, fp32) += a (16x16) * b (16x8)
__device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 pack_half2(float a, float b) {
  half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<u32*>(&h);
}

__device__ __forceinline__ void load8(float (&v)[8], const half* p) {
  half8 x = *reinterpret_cast<const half8*>(p);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 f = __half22float2(x.h[i]);
    v[2 * i] = f.x;
    v[2 * i + 1] = f.y;
  }
}
__device__ __forceinline__ void store8(half* p, const float (&v)[8]) {
  half8 x;
#pragma unroll
  for (int i = 0; i < 4; i++) x.h[i] = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
  *reinterpret_cast<half8*>(p) = x;
}

// Eight floats, 16-byte aligned.
__device__ __forceinline__ void load8(float (&v)[8], const float* p) {
  float4 a = *reinterpret_cast<const float4*>(p), b = *reinterpret_cast<const float4*>(p + 4);
  v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
  v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}

__device__ __forceinline__ float power2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.f + __expf(-x)); }
// x (1 + erf(x / sqrt 2)) / 2 as x / (1 + exp(-x (a + b x^2 + c x^4))), fitted for the least absolute error: 2.6e-5. Beyond
// x^2 = 50, where the polynomial would turn round, the factor is 0 or 1 in fp32 anyway.
__device__ __forceinline__ float gelu(float x) {
  const float s = fminf(x * x, 50.f);
  const float q = x * fmaf(fmaf(s, 1.01426e-3f, -0.106776f), s, -2.301121f);  // -log2(e) times the polynomial
  return __fdividef(x, 1.f + power2(q));
}
__device__ __forceinline__ float activate(float x, int act) { return act == 1 ? silu(x) : act == 2 ? gelu(x) : x; }

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
  return v;
}
