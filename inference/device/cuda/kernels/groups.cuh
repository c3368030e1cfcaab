// What group norms and their gradients share: sums over the channels of groups, by blocks of 256 threads.
#pragma once
#include "params.cuh"

// Sums [lanes][C][2] in shared memory over the lanes and over the channels of each group, into out [groups][2].
__device__ __forceinline__ void sum_groups(const float* sums, int lanes, int C, int groups, float* out) {
  const int per = C / groups, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  for (int g = warp; g < groups; g += 8) {
    float s = 0.f, ss = 0.f;
    for (int i = lane; i < per * lanes; i += 32) {
      float2 t = reinterpret_cast<const float2*>(sums)[(i / per) * C + g * per + i % per];
      s += t.x;
      ss += t.y;
    }
    s = warp_sum(s);
    ss = warp_sum(ss);
    if (lane == 0) {
      out[2 * g] = s;
      out[2 * g + 1] = ss;
    }
  }
}

// Adds up the parts [chunks][groups][2] of one image, into a warp's s and ss.
__device__ __forceinline__ void sum_chunks(const float* parts, int chunks, int groups, int g, float& s, float& ss) {
  s = ss = 0.f;
  const float2* p = reinterpret_cast<const float2*>(parts) + g;
  for (int c = threadIdx.x & 31; c < chunks; c += 32) {
    float2 t = p[(long long)c * groups];
    s += t.x;
    ss += t.y;
  }
  s = warp_sum(s);
  ss = warp_sum(ss);
}

// Mean and inverse deviation of every group from sums and sums of squares, which also go to kept; n values a group.
__device__ __forceinline__ void group_moments(const float* parts, int chunks, int groups, float n, float eps, float* mean, float* inv, float* kept) {
  for (int g = threadIdx.x >> 5; g < groups; g += 8) {
    float s, ss;
    sum_chunks(parts, chunks, groups, g, s, ss);
    if ((threadIdx.x & 31) == 0) {
      float m = s / n;
      mean[g] = m;
      inv[g] = rsqrtf(fmaxf(ss / n - m * m, 0.f) + eps);
      if (kept) reinterpret_cast<float2*>(kept)[g] = make_float2(s, ss);
    }
  }
}
