// Signed distance field and materials of one procedural object. Shared by the CUDA and the g++ build of render.cu.
//
// An object is OBJECT floats (objects/shape.py writes them):
//   header     0 primitive count, 1..3 centre, 4 scale, 5 radius to fill, 6..8 stretch of x, y, z
//   materials  6 of 12: 0..2 colour, 3..5 second colour, 6 pattern, 7 frequency, 8 phase, 9 finish, 10 stripe axis
//   primitives 16 of 24: 0 kind, 1 operation, 2 material, 3 blend width, 4..6 centre, 7..15 world-to-local rotation, 16.. sizes
#pragma once
#include <math.h>
#include <stdint.h>
#ifdef __CUDACC__
#define HD __device__ __forceinline__
#else
#define HD static inline
#endif

enum { HEADER = 12, MATERIALS = 6, MATERIAL = 12, PRIMITIVES = 16, PRIMITIVE = 24 };
enum { OBJECT = HEADER + MATERIALS * MATERIAL + PRIMITIVES * PRIMITIVE };
enum Operation { UNION, CARVE, BLEND, CLIP };
enum Pattern { PLAIN, STRIPES, SPOTS, UNUSED_PATTERN, CHECKS };
enum Finish { MATTE, PLASTIC, CERAMIC, WOOD, METAL, STONE, GLASS };
#define BACKGROUND .5f

struct Vec { float x, y, z; };
HD Vec vec(float x, float y, float z) { Vec r = {x, y, z}; return r; }
HD Vec operator+(Vec a, Vec b) { return vec(a.x + b.x, a.y + b.y, a.z + b.z); }
HD Vec operator-(Vec a, Vec b) { return vec(a.x - b.x, a.y - b.y, a.z - b.z); }
HD Vec operator*(Vec a, float s) { return vec(a.x * s, a.y * s, a.z * s); }
HD float dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
HD float length(Vec a) { return sqrtf(dot(a, a)); }
HD Vec normalise(Vec a) { return a * (1.f / (length(a) + 1e-9f)); }
HD float max2(float a, float b) { return a > b ? a : b; }
HD float min2(float a, float b) { return a < b ? a : b; }
HD float clamp(float a, float lo, float hi) { return min2(max2(a, lo), hi); }
HD Vec mix(Vec a, Vec b, float t) { return a + (b - a) * t; }

// Distances of the seven kinds, exact but for the ellipsoid and the wedge (lower bounds near the surface).
HD float ellipsoid(Vec q, const float* a) {
  Vec s = vec(q.x / a[0], q.y / a[1], q.z / a[2]), t = vec(s.x / a[0], s.y / a[1], s.z / a[2]);
  float k0 = length(s), k1 = length(t);
  return k1 > 1e-6f ? k0 * (k0 - 1.f) / k1 : -min2(a[0], min2(a[1], a[2]));
}
HD float rounded_box(Vec q, const float* a) {
  float r = a[3];
  Vec d = vec(fabsf(q.x) - a[0] + r, fabsf(q.y) - a[1] + r, fabsf(q.z) - a[2] + r);
  return length(vec(max2(d.x, 0), max2(d.y, 0), max2(d.z, 0))) + min2(max2(d.x, max2(d.y, d.z)), 0) - r;
}
HD float rounded_rod(Vec q, const float* a) {
  float dx = sqrtf(q.x * q.x + q.y * q.y) - a[0] + a[2], dz = fabsf(q.z) - a[1] + a[2];
  float ox = max2(dx, 0), oz = max2(dz, 0);
  return min2(max2(dx, dz), 0) + sqrtf(ox * ox + oz * oz) - a[2];
}
HD float frustum(Vec q, const float* a) {
  float low = a[0], top = a[1], h = a[2], x = sqrtf(q.x * q.x + q.y * q.y), y = q.z, kx = top - low, ky = 2 * h;
  float cx = x - min2(x, y < 0 ? low : top), cy = fabsf(y) - h;  // to the nearer lid
  float t = clamp(((top - x) * kx + (h - y) * ky) / (kx * kx + ky * ky), 0, 1);
  float sx = x - top + kx * t, sy = y - h + ky * t;  // to the side
  float sign = (sx < 0 && cy < 0) ? -1.f : 1.f;
  return sign * sqrtf(min2(cx * cx + cy * cy, sx * sx + sy * sy));
}
HD float wedge(Vec q, const float* a) {
  float ax = a[0] * (1 - a[3]) / (2 * a[2]), ay = a[1] * (1 - a[4]) / (2 * a[2]);
  float dx = (fabsf(q.x) + ax * q.z - a[0] * (1 + a[3]) * .5f) / sqrtf(1 + ax * ax);
  float dy = (fabsf(q.y) + ay * q.z - a[1] * (1 + a[4]) * .5f) / sqrtf(1 + ay * ay);
  return max2(max2(dx, dy), fabsf(q.z) - a[2]);
}
HD float primitive(const float* p, Vec w) {
  Vec d = vec(w.x - p[4], w.y - p[5], w.z - p[6]);
  const float *R = p + 7, *a = p + 16;
  Vec q = vec(R[0] * d.x + R[1] * d.y + R[2] * d.z, R[3] * d.x + R[4] * d.y + R[5] * d.z, R[6] * d.x + R[7] * d.y + R[8] * d.z);
  switch ((int)p[0]) {
    case 0: return ellipsoid(q, a);
    case 1: return rounded_box(q, a);
    case 2: return rounded_rod(q, a);
    case 3: return frustum(q, a);
    case 4: { float x = sqrtf(q.x * q.x + q.y * q.y) - a[0]; return sqrtf(x * x + q.z * q.z) - a[1]; }
    case 5: { float z = q.z - clamp(q.z, -a[1], a[1]); return sqrtf(q.x * q.x + q.y * q.y + z * z) - a[0]; }
    default: return wedge(q, a);
  }
}

// Field of the unscaled object at p, and the material there.
HD float raw_field(const float* o, Vec p, int* material) {
  const float* pr = o + HEADER + MATERIALS * MATERIAL;
  float d = 1e9f;
  int m = 0;
  for (int i = 0; i < (int)o[0]; i++, pr += PRIMITIVE) {
    float e = primitive(pr, p);
    switch ((int)pr[1]) {
      case CARVE: if (-e > d) { d = -e; m = (int)pr[2]; } break;
      case CLIP: d = max2(d, e); break;
      case BLEND: {
        float k = pr[3], h = max2(k - fabsf(d - e), 0) / k;
        if (e < d) m = (int)pr[2];
        d = min2(d, e) - h * h * k * .25f;
        break;
      }
      default: if (e < d) { d = e; m = (int)pr[2]; }
    }
  }
  *material = m;
  return d;
}
HD Vec stretched(const float* o, Vec p) { return vec(p.x / o[6], p.y / o[7], p.z / o[8]); }
// Field in the world of the renders, where the object fills a sphere of radius o[5] around the origin.
HD float field(const float* o, Vec p, int* material) {
  float s = 1.f / o[4];
  Vec q = stretched(o, vec(p.x * s + o[1], p.y * s + o[2], p.z * s + o[3]));
  return raw_field(o, q, material) * o[4] * min2(o[6], min2(o[7], o[8]));
}
HD Vec normal(const float* o, Vec p) {
  const float e = .003f;
  int m;
  Vec a = vec(1, -1, -1), b = vec(-1, -1, 1), c = vec(-1, 1, -1), d = vec(1, 1, 1);
  return normalise(a * field(o, p + a * e, &m) + b * field(o, p + b * e, &m) + c * field(o, p + c * e, &m) + d * field(o, p + d * e, &m));
}

HD float lattice(int x, int y, int z) {
  uint32_t h = (uint32_t)x * 374761393u + (uint32_t)y * 668265263u + (uint32_t)z * 2147483647u;
  h = (h ^ (h >> 13)) * 1274126177u;
  return ((h ^ (h >> 16)) & 0xffffff) / 16777215.f;
}
HD float noise(Vec p) {
  float fx = floorf(p.x), fy = floorf(p.y), fz = floorf(p.z), u = p.x - fx, v = p.y - fy, w = p.z - fz, r = 0;
  u = u * u * (3 - 2 * u); v = v * v * (3 - 2 * v); w = w * w * (3 - 2 * w);
  for (int i = 0; i < 8; i++)
    r += ((i & 1) ? u : 1 - u) * ((i & 2) ? v : 1 - v) * ((i & 4) ? w : 1 - w) * lattice((int)fx + (i & 1), (int)fy + ((i >> 1) & 1), (int)fz + (i >> 2));
  return r;
}
HD float wave(float x) { return sinf(6.2831853f * x); }
HD bool second_colour(const float* a, Vec p) {
  float f = a[7], phase = a[8];
  switch ((int)a[6]) {
    case STRIPES: return wave((a[10] == 0 ? p.z : a[10] == 1 ? p.y : p.x) * f + phase) > 0;
    case SPOTS: {  // balls on a lattice whose odd layers are shifted by half
      Vec q = vec(p.x * f * 1.35f + phase, p.y * f * 1.35f, p.z * f * 1.35f);
      float row = floorf(q.z);
      q.x += .5f * (row - 2 * floorf(row / 2));
      Vec g = vec(q.x - floorf(q.x) - .5f, q.y - floorf(q.y) - .5f, q.z - row - .5f);
      return dot(g, g) < .14f;
    }
    case CHECKS: return wave(p.x * f + phase) * wave(p.y * f + .13f) * wave(p.z * f + .37f) > 0;
    default: return false;
  }
}

// Colour of the surface at p with normal n, seen from direction v, under light that is fixed to the world.
HD Vec shade(const float* o, Vec p, Vec n, Vec v, int material, float occlusion) {
  const float* a = o + HEADER + material * MATERIAL;
  Vec c = second_colour(a, p) ? vec(a[3], a[4], a[5]) : vec(a[0], a[1], a[2]);
  int finish = (int)a[9];
  float gloss = .08f, sharp = 12.f;
  if (finish == PLASTIC) { gloss = .22f; sharp = 24.f; }
  if (finish == CERAMIC) { gloss = .42f; sharp = 60.f; }
  if (finish == WOOD) { c = c * (.88f + .13f * sinf(26.f * p.x + 7.f * p.y + 5.f * sinf(3.1f * p.z + 2.f * p.y))); gloss = .04f; }
  if (finish == STONE) { c = c * (.66f + .55f * (.6f * noise(p * 9.f) + .4f * noise(p * 21.f))); gloss = 0; }
  Vec key = vec(.549f, .412f, .727f), rim = vec(-.70f, -.55f, .455f);
  Vec hk = normalise(key + v), hr = normalise(rim + v);
  float light = .58f + .17f * n.z + .36f * max2(dot(n, key), 0) + .20f * max2(dot(n, rim), 0);
  float nk = max2(dot(n, hk), 0), nr = max2(dot(n, hr), 0);
  if (finish == METAL) {  // a made-up sky and horizon
    float up = 2 * dot(n, v) * n.z - v.z, sky = up > 0 ? .75f + .55f * up : .34f + .25f * (1 + up);
    sky += (.22f - sky) * expf(-60.f * up * up);
    float s = powf(nk, 40.f) + .6f * powf(nr, 40.f);
    return c * ((.32f * light + .72f * sky) * occlusion) + vec(.5f, .5f, .5f) * s;
  }
  if (finish == GLASS) {  // see-through, with a bright rim
    float edge = 1 - fabsf(dot(n, v)), s = powf(nk, 70.f) + .6f * powf(nr, 70.f);
    Vec through = mix(vec(BACKGROUND, BACKGROUND, BACKGROUND), c * light, .42f);
    return mix(through, vec(.9f, .95f, .95f), .75f * edge * edge) + vec(.65f, .65f, .65f) * s;
  }
  float s = gloss * (powf(nk, sharp) + .6f * powf(nr, sharp));
  return c * (light * occlusion) + vec(s, s, s);
}
