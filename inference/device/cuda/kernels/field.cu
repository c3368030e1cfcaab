// Fits and pictures of a field: inference/field is the specification, its names are used here. A warp marches one ray;
// its lanes take 32 neighbouring places of the ray's lattice at once, and scans over them composite.
#include "params.cuh"

namespace {

constexpr float kMinLight = 1e-3f, kBackground = 0.5f, kBound = 0.99f;
constexpr u32 kAll = ~0u;

// splitmix64 of a counter.
__device__ u64 mix(u64 seed, u64 i) {
  u64 z = seed * 0x9E3779B97F4A7C15ull + i * 0xD1B54A32D192ED03ull + 0x9E3779B97F4A7C15ull;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

// Scans over the lanes, the own one included.
__device__ float scan_product(float v, int lane) {
#pragma unroll
  for (int o = 1; o < 32; o <<= 1) {
    float u = __shfl_up_sync(kAll, v, o);
    if (lane >= o) v *= u;
  }
  return v;
}
__device__ float scan_sum(float v, int lane) {
#pragma unroll
  for (int o = 1; o < 32; o <<= 1) {
    float u = __shfl_up_sync(kAll, v, o);
    if (lane >= o) v += u;
  }
  return v;
}

__device__ float4 operator+(float4 a, float4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }
__device__ float4 operator-(float4 a, float4 b) { return {a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w}; }
__device__ float4 operator*(float4 a, float s) { return {a.x * s, a.y * s, a.z * s, a.w * s}; }
__device__ float4 down(float4 v) {
  return {__shfl_down_sync(kAll, v.x, 1), __shfl_down_sync(kAll, v.y, 1), __shfl_down_sync(kAll, v.z, 1), __shfl_down_sync(kAll, v.w, 1)};
}
__device__ float4 up(float4 v) {
  return {__shfl_up_sync(kAll, v.x, 1), __shfl_up_sync(kAll, v.y, 1), __shfl_up_sync(kAll, v.z, 1), __shfl_up_sync(kAll, v.w, 1)};
}

__device__ void add(float4* p, float4 v) {
#if __CUDA_ARCH__ >= 900
  atomicAdd(p, v);
#else
  float* q = reinterpret_cast<float*>(p);
  atomicAdd(q, v.x);
  atomicAdd(q + 1, v.y);
  atomicAdd(q + 2, v.z);
  atomicAdd(q + 3, v.w);
#endif
}

// A ray's lattice in grid units, and the window of 32 places that the warp looks at.
struct March {
  const float4* grid;
  const unsigned char* cell;
  float ox, oy, oz, dx, dy, dz, t0, t1, dt, inverse_beta;
  int n, lane;

  int k;          // place of lane 0
  bool repeated;  // lane 0 was the last lane of the window before
  float light;    // that is left before the window

  // Of this lane's sample:
  bool on;        // there is one, and the light reaches it
  bool fresh;     // the place before holds none
  int corner;
  float fx, fy, fz;
  float4 value, colour;  // the field; the segment's colour in y, z, w
  float phi, before;     // of it and of the sample before
  float alpha, reach;    // opacity of the segment, light before it

  __device__ void start(int grid_n, float3 o, float3 d, float near, float far, float jitter) {
    n = grid_n;
    float s = 0.5f * n;
    ox = (o.x + 1) * s - 0.5f, oy = (o.y + 1) * s - 0.5f, oz = (o.z + 1) * s - 0.5f;
    dx = d.x * s, dy = d.y * s, dz = d.z * s;
    t0 = near + jitter * dt, t1 = far;
    rewind();
  }
  __device__ void rewind() { k = 0, repeated = false, light = 1; }

  // Takes the warp to the next window with samples and evaluates them; false at the end of the ray or of the light.
  __device__ bool next() {
    if (light < kMinLight) return false;
    u32 mask;
    for (;;) {
      float t = t0 + (k + lane) * dt;
      bool inside = t < t1;
      if (inside) {
        float x = ox + dx * t, y = oy + dy * t, z = oz + dz * t;
        int i = (int)x, j = (int)y, l = (int)z;
        corner = (l * n + j) * n + i;
        fx = x - i, fy = y - j, fz = z - l;
      }
      on = inside && cell[corner];
      mask = __ballot_sync(kAll, on);
      if (repeated && mask > 1) break;
      if (!repeated && mask & 1) break;
      if (!__any_sync(kAll, inside)) return false;
      int skip = repeated || !mask ? 32 : __ffs(mask) - 1;
      k += skip, repeated = false;
    }
    value = {0, 0, 0, 0}, phi = 1;
    if (on) {
      const float4* g = grid + corner;
      int Y = n, Z = n * n;
      float4 a = g[0], b = g[1], c = g[Y], d = g[Y + 1], e = g[Z], f = g[Z + 1], h = g[Z + Y], i = g[Z + Y + 1];
      a = a + (c - a) * fy, b = b + (d - b) * fy, e = e + (h - e) * fy, f = f + (i - f) * fy;
      a = a + (e - a) * fz, b = b + (f - b) * fz;
      value = a + (b - a) * fx;
      phi = 1 / (1 + expf(fminf(fmaxf(value.x * inverse_beta, -80.f), 80.f)));
    }
    float4 last = up(value);
    before = __shfl_up_sync(kAll, phi, 1);
    fresh = lane == 0 || !(mask >> (lane - 1) & 1);
    colour = fresh ? value : (value + last) * 0.5f;
    alpha = !on || lane == 0 && repeated ? 0 : fresh ? 1 - phi : fmaxf(0.f, 1 - phi / before);
    float through = scan_product(1 - alpha, lane), ahead = __shfl_up_sync(kAll, through, 1);
    reach = lane == 0 ? light : light * ahead;
    u32 dark = __ballot_sync(kAll, on && light * through < kMinLight);
    int end = dark ? __ffs(dark) - 1 : 31;
    if (lane > end) on = false, alpha = 0;
    light *= __shfl_sync(kAll, through, end);
    last_mask = mask;
    return true;
  }
  // Moves on; call it once the window's samples were used.
  __device__ void advance() {
    repeated = last_mask >> 31;
    k += repeated ? 31 : 32;
  }
  u32 last_mask;
};

__device__ void trace(const FitParams& p, int r, int lane) {
  u64 u = mix((u64)p.seed, (u64)p.it << 32 | (u32)r);
  u64 chosen = ((u64)r << 24 | u >> 40) * (u64)p.count / (u64)p.rays >> 24;
  float jitter = (float)(u & 0xffffff) * (1.f / (1 << 24));
  float own = lane < 13 ? p.list[chosen * 13 + lane] : 0;
  float q[13];
#pragma unroll
  for (int i = 0; i < 13; i++) q[i] = __shfl_sync(kAll, own, i);
  float near = q[6], far = q[7];
  const float lo[3] = {p.x0, p.y0, p.z0}, hi[3] = {p.x1, p.y1, p.z1};
#pragma unroll
  for (int i = 0; i < 3; i++) {
    if (q[3 + i] == 0) continue;
    float a = (lo[i] - q[i]) / q[3 + i], b = (hi[i] - q[i]) / q[3 + i];
    near = fmaxf(near, fminf(a, b)), far = fminf(far, fmaxf(a, b));
  }
  March m;
  m.grid = reinterpret_cast<const float4*>(p.grid), m.cell = static_cast<const unsigned char*>(p.cell);
  m.dt = p.dt, m.inverse_beta = p.inverse_beta, m.lane = lane;
  m.start(p.n, {q[0], q[1], q[2]}, {q[3], q[4], q[5]}, near, far, jitter);
  float4 sum = {0, 0, 0, 0};  // of the weights and the colours
  bool any = false;
  for (; m.next(); m.advance()) {
    float w = m.alpha * m.reach;
    sum = sum + float4{w, w * m.colour.y, w * m.colour.z, w * m.colour.w};
    any = true;
  }
  if (!any) return;
  sum = {warp_sum(sum.x), warp_sum(sum.y), warp_sum(sum.z), warp_sum(sum.w)};
  // The loss by colour (y, z, w) and opacity (x).
  float c[3] = {sum.y, sum.z, sum.w}, dc[3], da = 0;
#pragma unroll
  for (int i = 0; i < 3; i++) {
    float e = c[i] + m.light * kBackground - q[8 + i];
    dc[i] = p.colour * q[12] * e / sqrtf(e * e + 1e-4f);
    da -= dc[i] * kBackground;
  }
  da += 2 * p.opacity * q[12] * (1 - m.light - q[11]);
  // What lies behind a sample is the total less what lies before.
  float rest = da * sum.x + dc[0] * sum.y + dc[1] * sum.z + dc[2] * sum.w;
  float4* grad = reinterpret_cast<float4*>(p.grad);
  for (m.rewind(); m.next(); m.advance()) {
    float w = m.alpha * m.reach, g = dc[0] * m.colour.y + dc[1] * m.colour.z + dc[2] * m.colour.w + da;
    float passed = scan_sum(w * g, lane), behind = rest - passed;
    rest -= __shfl_sync(kAll, passed, 31);
    float4 here = {0, 0, 0, 0}, earlier = {0, 0, 0, 0};
    float left = fmaxf(1 - m.alpha, 1e-3f), dalpha = m.reach * g - behind / left;
    if (m.on && !(lane == 0 && m.repeated)) {
      if (m.fresh) {
        here = {dalpha * m.phi * (1 - m.phi) * m.inverse_beta, dc[0] * w, dc[1] * w, dc[2] * w};
      } else {
        float d = m.alpha > 0 ? dalpha * left * m.inverse_beta : 0;
        w *= 0.5f;
        here = {d * (1 - m.phi), dc[0] * w, dc[1] * w, dc[2] * w};
        earlier = {-d * (1 - m.before), here.y, here.z, here.w};
      }
    }
    float4 after = down(earlier);
    if (lane < 31) here = here + after;
    if (!m.on) continue;
    float4* at = grad + m.corner;
    int Y = p.n, Z = p.n * p.n;
    float4 right = here * m.fx, left4 = here - right;
    float4 r1 = right * m.fz, r0 = right - r1, l1 = left4 * m.fz, l0 = left4 - l1;
    add(at, l0 - l0 * m.fy);
    add(at + 1, r0 - r0 * m.fy);
    add(at + Y, l0 * m.fy);
    add(at + Y + 1, r0 * m.fy);
    add(at + Z, l1 - l1 * m.fy);
    add(at + Z + 1, r1 - r1 * m.fy);
    add(at + Z + Y, l1 * m.fy);
    add(at + Z + Y + 1, r1 * m.fy);
  }
}

// 2(1 - 1/|d|), of which the derivative of (|d| - 1)^2 is made.
__device__ float slope(float a, float b, float c) { return 2 - 2 * rsqrtf(a * a + b * b + c * c + 1e-12f); }

__device__ float adam(float x, float g, float& m, float& v, float rate, float bias) {
  m = m * 0.9f + g * 0.1f;
  v = v * 0.99f + g * g * 0.01f;
  return x - rate * m / (sqrtf(v) * bias + 1e-12f);
}

}  // namespace

// The rays' gradient, and in further blocks the Laplacian of f.
extern "C" __global__ void __launch_bounds__(128) fit_trace(const __grid_constant__ FitParams p) {
  after_predecessor();
  int blocks = (p.rays + 3) / 4;
  if (blockIdx.x < blocks) {
    int r = blockIdx.x * 4 + threadIdx.x / 32;
    if (r < p.rays) trace(p, r, threadIdx.x % 32);
    return;
  }
  int k = (blockIdx.x - blocks) * 128 + threadIdx.x;
  if (k >= p.active) return;
  int i = static_cast<const int*>(p.voxels)[k], Y = p.n * 4, Z = p.n * Y;
  const float* g = p.grid + (long long)i * 4;
  p.lap[i] = g[-4] + g[4] + g[-Y] + g[Y] + g[-Z] + g[Z] - 6 * g[0];
}

// The regularisers' gradient and Adam's step.
extern "C" __global__ void __launch_bounds__(128) fit_update(const __grid_constant__ FitParams p) {
  after_predecessor();
  int k = blockIdx.x * 128 + threadIdx.x;
  if (k >= p.active) return;
  int i = static_cast<const int*>(p.voxels)[k], n = p.n, Y = n, Z = n * n;
  const float4* at = reinterpret_cast<const float4*>(p.grid) + i;
  float4 c = at[0], xm = at[-1], xp = at[1], ym = at[-Y], yp = at[Y], zm = at[-Z], zp = at[Z];
  float4 lap = xm + xp + ym + yp + zm + zp - c * 6;
  float4* grad = reinterpret_cast<float4*>(p.grad) + i;
  float4 g = *grad;
  *grad = {0, 0, 0, 0};
  g = g - float4{p.laplace * lap.x, p.colour_tv * lap.y, p.colour_tv * lap.z, p.colour_tv * lap.w};
  if (p.bilaplace != 0) {
    const float* l = p.lap + i;
    g.x += p.bilaplace * (l[-1] + l[1] + l[-Y] + l[Y] + l[-Z] + l[Z] - 6 * l[0]);
  }
  if (p.eikonal != 0) {
    float ih = p.inverse_h;
    float dx = (xp.x - c.x) * ih, dy = (yp.x - c.x) * ih, dz = (zp.x - c.x) * ih;
    float s = -(dx + dy + dz) * slope(dx, dy, dz), a = (c.x - xm.x) * ih;
    s += a * slope(a, (at[Y - 1].x - xm.x) * ih, (at[Z - 1].x - xm.x) * ih);
    a = (c.x - ym.x) * ih;
    s += a * slope((at[1 - Y].x - ym.x) * ih, a, (at[Z - Y].x - ym.x) * ih);
    a = (c.x - zm.x) * ih;
    s += a * slope((at[1 - Z].x - zm.x) * ih, (at[Y - Z].x - zm.x) * ih, a);
    g.x += p.eikonal * s;
  }
  float4 *pm = reinterpret_cast<float4*>(p.m) + i, *pv = reinterpret_cast<float4*>(p.v) + i;
  float4 m = *pm, v = *pv;
  c.x = adam(c.x, g.x, m.x, v.x, p.rate, p.bias);
  c.y = __saturatef(adam(c.y, g.y, m.y, v.y, p.colour_rate, p.bias));
  c.z = __saturatef(adam(c.z, g.z, m.z, v.z, p.colour_rate, p.bias));
  c.w = __saturatef(adam(c.w, g.w, m.w, v.w, p.colour_rate, p.bias));
  *pm = m, *pv = v;
  reinterpret_cast<float4*>(p.next)[i] = c;
}

// Marks the cells that an active voxel (any, without a list) above the threshold is a corner of; cell is zero before.
extern "C" __global__ void __launch_bounds__(128) fit_mark(const __grid_constant__ FitParams p) {
  after_predecessor();
  int k = blockIdx.x * 128 + threadIdx.x, n = p.n;
  if (k >= p.active) return;
  int i = k;
  if (p.voxels) {
    i = static_cast<const int*>(p.voxels)[k];
  } else {
    int x = i % n, y = i / n % n, z = i / n / n;
    if (x < 1 || y < 1 || z < 1 || x > n - 2 || y > n - 2 || z > n - 2) return;
  }
  if (p.grid[(long long)i * 4] <= p.threshold) return;
  unsigned char* cell = static_cast<unsigned char*>(p.cell);
#pragma unroll
  for (int c = 0; c < 8; c++) cell[i - (c & 1) - (c >> 1 & 1) * n - (c >> 2) * n * n] = 1;
}

// A warp a pixel.
extern "C" __global__ void __launch_bounds__(128) field_draw(const __grid_constant__ DrawParams p) {
  after_predecessor();
  long long pixel = (long long)blockIdx.x * 4 + threadIdx.x / 32;
  int lane = threadIdx.x % 32, area = p.size * p.size;
  if (pixel >= (long long)p.pictures * area) return;
  const float* c = p.cameras + pixel / area * 11;
  int at = pixel % area;
  float a = (at % p.size + 0.5f - 0.5f * p.size) / c[9], b = (0.5f * p.size - at / p.size - 0.5f) / c[9];
  float3 d = {a * c[3] + b * c[6] - c[0], a * c[4] + b * c[7] - c[1], a * c[5] + b * c[8] - c[2]};
  float s = 1 / sqrtf(d.x * d.x + d.y * d.y + d.z * d.z);
  d = {d.x * s, d.y * s, d.z * s};
  float3 o = {c[0] * c[10], c[1] * c[10], c[2] * c[10]};
  float along = o.x * d.x + o.y * d.y + o.z * d.z, square = along * along - (o.x * o.x + o.y * o.y + o.z * o.z - kBound * kBound);
  float4 sum = {0, 0, 0, 0};
  float light = 1, depth = -1;
  if (square > 0) {
    float half = sqrtf(square);
    March m;
    m.grid = reinterpret_cast<const float4*>(p.grid), m.cell = static_cast<const unsigned char*>(p.cell);
    m.dt = p.dt, m.inverse_beta = p.inverse_beta, m.lane = lane;
    m.start(p.n, o, d, -along - half, -along + half, 0.5f);
    for (; m.next(); m.advance()) {
      float w = m.alpha * m.reach;
      sum = sum + float4{w, w * m.colour.y, w * m.colour.z, w * m.colour.w};
      if (m.on && m.reach >= 0.5f && m.reach * (1 - m.alpha) < 0.5f) depth = m.t0 + (m.k + lane) * m.dt;
    }
    light = m.light;
  }
  sum = {0, warp_sum(sum.y), warp_sum(sum.z), warp_sum(sum.w)};
  depth = warp_max(depth);
  if (lane) return;
  float back = light * kBackground;
  p.image[pixel * 3] = sum.y + back, p.image[pixel * 3 + 1] = sum.z + back, p.image[pixel * 3 + 2] = sum.w + back;
  p.alpha[pixel] = 1 - light;
  p.depth[pixel] = depth;
}
