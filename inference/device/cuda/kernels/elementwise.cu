// Copies, sums, layout changes and weight packing.
#include "params.cuh"

__device__ __forceinline__ float at(const half* h, const float* f, long long i) { return f ? f[i] : __half2float(h[i]); }

extern "C" __global__ void __launch_bounds__(256) elementwise(const __grid_constant__ ElementwiseParams p) {
  after_predecessor();
  const long long n = p.rows * p.C;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += (long long)gridDim.x * 256) {
    long long m = i / p.C;
    int c = (int)(i - m * p.C);
    float v = activate(at(p.in, p.in32, (m % p.inrows) * p.ldi + c), p.act);
    if (p.out32) p.out32[m * p.ldo + c] = v;
    else p.out[m * p.ldo + c] = __float2half(v);
  }
}

// fp16 to fp16, 16 bytes a thread.
extern "C" __global__ void __launch_bounds__(256) elementwise_wide(const __grid_constant__ ElementwiseParams p) {
  after_predecessor();
  const int units = p.C / 8;
  const long long n = p.rows * units;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += (long long)gridDim.x * 256) {
    long long m = i / units;
    int c = (int)(i - m * units) * 8;
    float v[8];
    load8(v, p.in + (m % p.inrows) * p.ldi + c);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = activate(v[j], p.act);
    store8(p.out + m * p.ldo + c, v);
  }
}

extern "C" __global__ void __launch_bounds__(256) combine(const __grid_constant__ CombineParams p) {
  after_predecessor();
  const long long n = p.M * p.C;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += (long long)gridDim.x * 256) {
    long long m = i / p.C;
    int c = (int)(i - m * p.C);
    long long k = m / p.rows * p.ldc;
    float v = 0.f;
    if (p.t0 || p.f0) v += at(p.coef, p.coef32, k) * at(p.t0, p.f0, m * p.ld0 + c);
    if (p.t1 || p.f1) v += at(p.coef, p.coef32, k + 1) * at(p.t1, p.f1, m * p.ld1 + c);
    if (p.t2 || p.f2) v += at(p.coef, p.coef32, k + 2) * at(p.t2, p.f2, m * p.ld2 + c);
    if (p.t3 || p.f3) v += at(p.coef, p.coef32, k + 3) * at(p.t3, p.f3, m * p.ld3 + c);
    if (p.out32) p.out32[m * p.ldo + c] = v;
    else p.out[m * p.ldo + c] = __float2half(v);
  }
}

extern "C" __global__ void __launch_bounds__(256) gather(const __grid_constant__ GatherParams p) {
  after_predecessor();
  const long long n = p.M * p.ldo;
  const int K = p.KH * p.KW * p.C;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += (long long)gridDim.x * 256) {
    long long m = i / p.ldo;
    int k = (int)(i - m * p.ldo);
    float v = 0.f;
    if (k < K) {
      int tap = k / p.C, c = k - tap * p.C, dy = tap / p.KW, dx = tap - dy * p.KW;
      int ox = (int)(m % p.OW);
      long long t = m / p.OW, b = t / p.OH;
      int oy = (int)(t - b * p.OH);
      int y = oy * p.stride - p.top + dy, x = ox * p.stride - p.left + dx;
      bool ok = y >= 0 && x >= 0 && y < (p.H << p.shift) && x < (p.W << p.shift) && !(p.parity && ((y | x) & 1));
      if (ok) v = at(p.in, p.in32, ((b * p.H + (y >> p.shift)) * p.W + (x >> p.shift)) * p.ldi + c);
    }
    p.out[i] = __float2half(v);
  }
}

extern "C" __global__ void __launch_bounds__(256) transpose(const __grid_constant__ TransposeParams p) {
  after_predecessor();
  __shared__ half tile[32][33];
  const int b = blockIdx.z, c0 = blockIdx.x * 32, r0 = blockIdx.y * 32, x = threadIdx.x & 31, y = threadIdx.x >> 5;
  for (int i = y; i < 32; i += 8) {
    int r = r0 + i, c = c0 + x;
    if (r < p.R && c < p.C) tile[i][x] = p.in[((long long)b * p.R + r) * p.ldi + c];
  }
  __syncthreads();
  for (int i = y; i < 32; i += 8) {
    int c = c0 + i, r = r0 + x;
    if (r < p.ldo && c < p.C) p.out[((long long)b * p.C + c) * p.ldo + r] = r < p.R ? tile[x][i] : __float2half(0.f);
  }
}

__device__ __forceinline__ float stored(const PackParams& p, long long i) {
  if (p.f) return p.f[i];
  if (p.bf16) return __uint_as_float((u32)reinterpret_cast<const unsigned short*>(p.h)[i] << 16);
  return __half2float(p.h[i]);
}

// Which taps of three the tap d of two sums up, as bits, for pixels of parity side.
__device__ __forceinline__ int quad_taps(int quad, int side, int d) {
  if (quad == 1) return side == 0 ? (d == 0 ? 1 : 6) : (d == 0 ? 3 : 4);
  if (quad == 2) return side == 0 ? (d == 0 ? 4 : 1) : (d == 0 ? 2 : 0);
  return side == 0 ? (d == 0 ? 0 : 2) : (d == 0 ? 4 : 1);
}

extern "C" __global__ void __launch_bounds__(256) pack_quads(const __grid_constant__ PackParams p) {
  after_predecessor();
  const int rows = p.grad ? p.C : p.N, inner = p.grad ? p.N : p.C;
  const long long n = 4LL * rows * p.ldo;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += (long long)gridDim.x * 256) {
    const int r = (int)(i / p.ldo), k = (int)(i - (long long)r * p.ldo), tap = k / inner, c = k - tap * inner, part = r / rows, o = r - part * rows;
    float v = 0.f;
    if (tap < 4) {
      const int ys = quad_taps(p.quad, part >> 1, tap >> 1), xs = quad_taps(p.quad, part & 1, tap & 1);
      const long long base = p.grad ? ((long long)c * p.C + o) * 9 : ((long long)o * p.C + c) * 9;
      for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++)
          if ((ys >> y & 1) && (xs >> x & 1)) v += stored(p, base + y * 3 + x);
    }
    p.out[i] = __float2half(v);
  }
}

extern "C" __global__ void __launch_bounds__(256) pack_weights(const __grid_constant__ PackParams p) {
  after_predecessor();
  const int rows = p.grad ? p.C : p.N, inner = p.grad ? p.N : p.C;
  const long long n = (long long)rows * p.ldo;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < n; i += (long long)gridDim.x * 256) {
    int r = (int)(i / p.ldo), k = (int)(i - (long long)r * p.ldo), tap = k / p.CP, c = k - tap * p.CP;
    float v = 0.f;
    if (tap < p.taps && c < inner) {
      long long s;
      if (p.grad) {
        s = ((long long)c * p.C + r) * p.taps + (p.taps - 1 - tap);
      } else {
        int row = r;
        if (p.geglu) row = (r / 16) * 8 + r % 8 + (r % 16 >= 8 ? p.N / 2 : 0);
        s = ((long long)row * p.C + c) * p.taps + tap;
      }
      v = stored(p, s);
    }
    p.out[i] = __float2half(v);
  }
}

// A row a warp.
extern "C" __global__ void __launch_bounds__(256) fold_norm(const __grid_constant__ FoldParams p) {
  after_predecessor();
  const int lane = threadIdx.x & 31, n = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (n >= p.N) return;
  half* w = p.w + (long long)n * p.ld;
  float sum = 0.f, shift = 0.f;
  for (int k = lane; k < p.K; k += 32) {
    const float v = __half2float(w[k]);
    const half scaled = __float2half(v * p.gamma[k]);
    shift = fmaf(v, p.beta[k], shift);
    sum += __half2float(scaled);
    w[k] = scaled;
  }
  sum = warp_sum(sum);
  shift = warp_sum(shift);
  if (lane == 0) {
    p.sums[n] = sum;
    p.shift[n] = shift + (p.bias ? p.bias[n] : 0.f);
  }
}

extern "C" __global__ void __launch_bounds__(256) enlarge(const __grid_constant__ EnlargeParams p) {
  after_predecessor();
  const int units = p.C / 8;
  for (long long i = (long long)blockIdx.x * 256 + threadIdx.x; i < p.n; i += (long long)gridDim.x * 256) {
    long long px = i / units;
    int u = (int)(i - px * units);
    int x = (int)(px % p.W);
    long long t = px / p.W, b = t / p.H;
    int y = (int)(t - b * p.H);
    const half* src = p.in + ((b * (p.H / 2) + y / 2) * (p.W / 2) + x / 2) * p.ldi + u * 8;
    reinterpret_cast<uint4*>(p.out)[i] = *reinterpret_cast<const uint4*>(src);
  }
}
