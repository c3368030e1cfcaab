// Sphere-tracing renderer of procedural objects. One source, two builds (render/__init__.py runs them):
//   nvcc: one thread a pixel, all threads of a block on one object, device pointers
//   g++:  OpenMP over rows, host pointers
#include "scene.h"

HD Vec trace(const float* o, Vec from, Vec to) {
  const Vec background = vec(BACKGROUND, BACKGROUND, BACKGROUND);
  float b = dot(from, to), c = dot(from, from) - 1.06f, inside = b * b - c;  // a sphere around everything
  if (inside < 0) return background;
  float root = sqrtf(inside), t = max2(-b - root, 0.f), end = -b + root;
  int m = 0;
  bool hit = false;
  for (int i = 0; i < 76 && t < end; i++) {
    float d = field(o, from + to * t, &m);
    if (d < .0015f) { hit = true; break; }
    t += d * .92f;
  }
  if (!hit) return background;
  Vec p = from + to * t, n = normal(o, p);
  float dark = 0;
  int ignored;
  for (int i = 1; i <= 3; i++) { float h = .05f * i; dark += (h - field(o, p + n * h, &ignored)) / (h * i); }
  return shade(o, p, n, to * -1.f, m, clamp(1.f - .38f * dark, .35f, 1.f));
}

// Ray of image position (u, v) in -1..1 for a camera that looks at the origin (azimuth and elevation as the network's camera).
HD void ray(float az, float el, float fov, float distance, float u, float v, Vec* from, Vec* to) {
  float sa = sinf(az), ca = cosf(az), se = sinf(el), ce = cosf(el), half = tanf(.5f * fov);
  Vec position = vec(ce * sa, -ce * ca, se), right = vec(ca, sa, 0), up = vec(-se * sa, se * ca, ce);
  *from = position * distance;
  *to = normalise(position * -1.f + right * (u * half) + up * (v * half));
}
HD void pixel(const float* o, float az, float el, float fov, float distance, int size, int samples, int x, int y, uint8_t* out) {
  Vec sum = vec(0, 0, 0), from, to;
  for (int i = 0; i < samples; i++)
    for (int j = 0; j < samples; j++) {
      ray(az, el, fov, distance, (x + (j + .5f) / samples) / size * 2 - 1, 1 - (y + (i + .5f) / samples) / size * 2, &from, &to);
      Vec c = trace(o, from, to);
      sum = sum + vec(clamp(c.x, 0, 1), clamp(c.y, 0, 1), clamp(c.z, 0, 1));
    }
  float s = 255.f / (samples * samples);
  out[0] = (uint8_t)(sum.x * s + .5f); out[1] = (uint8_t)(sum.y * s + .5f); out[2] = (uint8_t)(sum.z * s + .5f);
}

// Normalising: centre of the inside cells' bounding box and the largest distance from it, on a coarse grid.
enum { CELLS = 40, THREADS = 128 };
#define GRID 4.0f
HD Vec cell(int i) {
  const float s = GRID / CELLS;
  return vec((i % CELLS + .5f) * s - GRID / 2, (i / CELLS % CELLS + .5f) * s - GRID / 2, (i / (CELLS * CELLS) + .5f) * s - GRID / 2);
}
HD bool occupied(const float* o, int i) {
  int m;
  return raw_field(o, stretched(o, cell(i)), &m) < GRID / CELLS * .5f;
}
struct Bounds { float lo[3], hi[3]; };
HD Bounds no_bounds() { Bounds b = {{9, 9, 9}, {-9, -9, -9}}; return b; }
HD void extend(Bounds* b, Vec p) {
  b->lo[0] = min2(b->lo[0], p.x); b->lo[1] = min2(b->lo[1], p.y); b->lo[2] = min2(b->lo[2], p.z);
  b->hi[0] = max2(b->hi[0], p.x); b->hi[1] = max2(b->hi[1], p.y); b->hi[2] = max2(b->hi[2], p.z);
}
HD Vec middle(Bounds b) { return vec(b.lo[0] + b.hi[0], b.lo[1] + b.hi[1], b.lo[2] + b.hi[2]) * .5f; }
HD void place(float* o, Vec centre, float radius) { o[1] = centre.x; o[2] = centre.y; o[3] = centre.z; o[4] = o[5] / radius; }

#ifdef __CUDACC__
__global__ void normalise_kernel(float* objects) {
  __shared__ float so[OBJECT];
  __shared__ Bounds part[THREADS];
  __shared__ float far[THREADS];
  float* o = objects + (size_t)blockIdx.x * OBJECT;
  int t = threadIdx.x;
  for (int i = t; i < OBJECT; i += THREADS) so[i] = o[i];
  __syncthreads();
  Bounds b = no_bounds();
  for (int i = t; i < CELLS * CELLS * CELLS; i += THREADS) if (occupied(so, i)) extend(&b, cell(i));
  part[t] = b;
  __syncthreads();
  b = no_bounds();
  for (int i = 0; i < THREADS; i++) if (part[i].lo[0] <= part[i].hi[0]) {  // a thread without inside cells has lo > hi
    extend(&b, vec(part[i].lo[0], part[i].lo[1], part[i].lo[2]));
    extend(&b, vec(part[i].hi[0], part[i].hi[1], part[i].hi[2]));
  }
  Vec centre = middle(b);
  float r = .05f;
  for (int i = t; i < CELLS * CELLS * CELLS; i += THREADS) if (occupied(so, i)) r = max2(r, length(cell(i) - centre));
  far[t] = r;
  __syncthreads();
  if (t == 0) {
    for (int i = 0; i < THREADS; i++) r = max2(r, far[i]);
    place(o, centre, r);
  }
}
__global__ void __launch_bounds__(THREADS) render_kernel(const float* objects, const int* which, const float* az, const float* el, float fov,
                                                         float distance, int size, int samples, uint8_t* out) {
  __shared__ float so[OBJECT];
  size_t view = blockIdx.y;
  const float* o = objects + (size_t)which[view] * OBJECT;
  int t = threadIdx.x, tiles = size / 16, tile = blockIdx.x;
  for (int i = t; i < OBJECT; i += THREADS) so[i] = o[i];
  __syncthreads();
  int x = (tile % tiles) * 16 + (t & 15), y = (tile / tiles) * 8 + (t >> 4);
  pixel(so, az[view], el[view], fov, distance, size, samples, x, y, out + ((view * size + y) * size + x) * 3);
}
extern "C" int normalise_objects(float* objects, int n) {
  normalise_kernel<<<n, THREADS>>>(objects);
  return (int)cudaGetLastError();
}
// size must be a multiple of 16. Returns the CUDA error, 0 for none.
extern "C" int render_views(const float* objects, const int* which, const float* az, const float* el, int views, float fov, float distance,
                            int size, int samples, uint8_t* out) {
  for (int s = 0; s < views; s += 32768) {
    int n = views - s < 32768 ? views - s : 32768;
    render_kernel<<<dim3(size / 16 * (size / 8), n), THREADS>>>(objects, which + s, az + s, el + s, fov, distance, size, samples,
                                                               out + (size_t)s * size * size * 3);
  }
  return (int)cudaGetLastError();
}
#else
extern "C" int normalise_objects(float* objects, int n) {
#pragma omp parallel for
  for (int i = 0; i < n; i++) {
    float* o = objects + (size_t)i * OBJECT;
    Bounds b = no_bounds();
    for (int k = 0; k < CELLS * CELLS * CELLS; k++) if (occupied(o, k)) extend(&b, cell(k));
    Vec centre = middle(b);
    float r = .05f;
    for (int k = 0; k < CELLS * CELLS * CELLS; k++) if (occupied(o, k)) r = max2(r, length(cell(k) - centre));
    place(o, centre, r);
  }
  return 0;
}
extern "C" int render_views(const float* objects, const int* which, const float* az, const float* el, int views, float fov, float distance,
                            int size, int samples, uint8_t* out) {
#pragma omp parallel for schedule(dynamic)
  for (int row = 0; row < views * size; row++) {
    size_t v = row / size;
    int y = row % size;
    for (int x = 0; x < size; x++)
      pixel(objects + (size_t)which[v] * OBJECT, az[v], el[v], fov, distance, size, samples, x, y, out + ((v * size + y) * size + x) * 3);
  }
  return 0;
}
// Field of one normalised object at n points (n, 3): negative inside.
extern "C" int field_values(const float* object, const float* points, int n, float* out) {
#pragma omp parallel for
  for (int i = 0; i < n; i++) {
    int m;
    out[i] = field(object, vec(points[3 * i], points[3 * i + 1], points[3 * i + 2]), &m);
  }
  return 0;
}
// Where the chord from + t*to, t in 0..reach, crosses the surface: up to `most` points with normals (6 numbers each), -> count.
extern "C" int crossings(const float* object, const float* from, const float* to, float reach, int most, float* out) {
  Vec a = vec(from[0], from[1], from[2]), b = vec(to[0], to[1], to[2]);
  const float step = .004f;
  int m, n = 0;
  float last = field(object, a, &m);
  for (float t = step; t < reach && n < most; t += step) {
    float now = field(object, a + b * t, &m);
    if ((last < 0) != (now < 0)) {
      float lo = t - step, hi = t;
      for (int i = 0; i < 20; i++) {
        float mid = .5f * (lo + hi);
        if ((field(object, a + b * mid, &m) < 0) == (last < 0)) lo = mid; else hi = mid;
      }
      Vec p = a + b * (.5f * (lo + hi)), g = normal(object, p);
      float* o = out + 6 * n++;
      o[0] = p.x; o[1] = p.y; o[2] = p.z; o[3] = g.x; o[4] = g.y; o[5] = g.z;
    } else if (fabsf(now) > 4 * step) {
      t += .5f * fabsf(now);  // far from any surface: the field is a lower bound of the distance, up to its stretch
      now = field(object, a + b * t, &m);
    }
    last = now;
  }
  return n;
}
#endif
