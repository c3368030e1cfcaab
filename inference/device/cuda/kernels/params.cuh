// Parameter blocks of the kernels. tools/kernels.py reads this file and writes the same structs in Go
// (kernels_gen.go), so only these field types may occur: CUtensorMap, half*, float*, void*, long long, int, float.
// Tensor maps come first (64-byte alignment), then 8-byte fields, then 4-byte fields in even number.
//
// Shapes: B images, H W pixels, C channels (innermost), M rows, N columns, K depth, T tokens, D head size.
// ld… is the pitch: elements from one row (pixel, token) to the next.
#pragma once
#include "common.cuh"

// What happens to an accumulator on its way to memory:
// v = act(alpha*acc + bias[n]) + residual[m][n].
struct EpilogueParams {
  half* out;             // [M][ldo] fp16, or null
  float* out32;          // [M][ldo] fp32, or null (then out)
  const half* residual;  // [M][ldr] or null
  const float* residual32;
  const float* bias;     // [N] or null
  float* partial;        // [splits][M][N]: raw sums when the depth is split; reduce_split finishes them
  const float* fold;     // [N] or null: the rows of A are normalised first (layer norm), see fold_norm
  int M;
  int N;
  int ldo;
  int ldr;
  int act;               // 0 none, 1 SiLU, 2 GELU (erf), 3 GEGLU: columns in blocks of 8 values, 8 gates; out is [M][N/2]
  int splits;
  float alpha;
  int wide;              // 1: out, residual and their pitches allow 16-byte accesses
  int quad_h;            // source size of a convolution that makes four pixels of one (0: none): rows m come in four
  int quad_w;            // parts, one for each place (y, x) & 1 in the output, and go to their places
  float fold_eps;
  float fold_scale;      // 1 / (channels of A)
};

// Implicit-GEMM convolution; a linear layer is the 1x1 case with H = M, W = 1.
// A[m][k] with m = (b, oy, ox), k = (tap, c); all of C, lda and the address are multiples of 8 elements.
struct GemmParams {
  const half* a;         // pixels of pitch lda
  const half* weights;   // [N][ldw]
  long long batch_a;     // strides of a batched product in elements (0: none)
  long long batch_w;
  long long batch_out;
  EpilogueParams e;
  int K;                 // taps*C
  int ldw;
  int H;                 // source pixels
  int W;
  int OH;
  int OW;
  int C;
  int lda;
  int KW;
  int stride;
  int top;
  int left;
  int shift;             // 1: source coordinates are halved (upsampling, or the gradient of a stride of 2)
  int parity;            // 1: with shift, odd coordinates are zeros (gradient of a stride)
  int batched;           // blockIdx.z is a batch index rather than a depth split
  int pad0;
};

// The Hopper kernel: tiles come by TMA, products by wgmma.
struct HopperParams {
  CUtensorMap a;         // (C, W, H, B), box (64, bw, bh, bb)
  CUtensorMap w;         // (K, N), box (64, BN); (K, 4*N) with quad_h
  EpilogueParams e;
  long long policy;      // cache policy of the weights
  int ksteps;            // 64-wide steps in one tap
  int taps;
  int KW;
  int stride;
  int top;
  int left;
  int OW;
  int OHW;               // OH*OW
  int ntiles;
  int pad0;
};

struct ReduceParams {
  EpilogueParams e;
};

// softmax(q k^T * scale) v; head h owns columns h*D .. (h+1)*D.
struct AttentionParams {
  const half* q;         // [G][Lq][ldq]
  const half* k;         // [G/share][Lk][ldk]
  const half* v;
  half* out;             // [G][Lq][ldo]
  int Lq;
  int Lk;
  int ldq;
  int ldk;
  int ldv;
  int ldo;
  int heads;
  int D;
  int share;             // query sequences that read one key sequence
  int causal;
  float scale;
  int pad0;
};

struct FlashParams {
  CUtensorMap q;         // (columns, Lq, G), box (64, 128, 1)
  CUtensorMap k;         // (columns, Lk, G/share), box (64, 128, 1)
  CUtensorMap v;
  half* out;             // [G][Lq][ldo]
  int Lq;
  int Lk;
  int ldo;
  int share;
  float scale;
  int pad0;
};

struct GroupNormParams {
  const half* x;         // [B][HW][ldx]
  half* out;             // [B][HW][ldo]
  const half* add;       // [B][lda] or null
  const float* gamma;    // [C]
  const float* beta;
  float* stats;          // [B][chunks][groups][2]: sum and sum of squares (the two-pass form)
  float* kept;           // [B][groups][2]: where these go for the gradient, or null
  int HW;
  int C;
  int ldx;
  int ldo;
  int lda;
  int groups;
  int silu;
  int chunks;
  int pixels;            // of a chunk
  float eps;
};

// The gradient of a group norm. Of each image and group, stats holds sums and sums of squares, sums those of v and
// v*xhat with v = grad * gamma (* the derivative of SiLU) and xhat = (x - mean) / deviation; the first pass writes these
// for each chunk, group_total adds them up.
struct GroupNormGradParams {
  const half* x;         // [B][HW][ldx]
  const half* grad;      // [B][HW][ldg]
  const half* residual;  // [B][HW][ldr] or null
  half* out;             // [B][HW][ldo]
  const float* gamma;
  const float* beta;
  float* stats;          // [B][groups][2]
  float* sums;           // [B][groups][2], in the first pass [B][chunks][groups][2]
  int HW;
  int C;
  int ldx;
  int ldg;
  int ldr;
  int ldo;
  int groups;
  int silu;
  int chunks;            // of sums in the first pass
  int pixels;
  float eps;
  int pad0;
};

struct LayerNormParams {
  const half* x;         // [M][ldx]
  half* out;             // [M][ldo]
  const float* gamma;
  const float* beta;
  int M;
  int C;
  int ldx;
  int ldo;
  float eps;
  int pad0;
};

// Rows of scores to weights in place: x[m] = softmax(x[m][0..C-1]); row m sees its first m % rows + 1 columns if causal.
struct SoftmaxParams {
  half* x;               // [M][ld]
  int M;
  int C;
  int ld;
  int causal;
  int rows;
  int pad0;
};

// Rows of scores become weights p = softmax, rows of their gradients become gain * p * (d - sum(p*d)); zeros up to ld.
struct AttentionGradParams {
  half* p;               // [M][ld]
  half* d;               // [M][ld]
  int M;
  int C;
  int ld;
  float gain;
};

// out[b][c][r] = in[b][r][c], zeros for r from R to ldo
struct TransposeParams {
  const half* in;        // [B][R][ldi]
  half* out;             // [B][C][ldo]
  int B;
  int R;
  int C;
  int ldi;
  int ldo;
  int pad0;
};

// out[m][c] = act(in[m % inrows][c])
struct ElementwiseParams {
  const half* in;
  const float* in32;     // fp32 source when not null
  half* out;
  float* out32;          // fp32 target when not null
  long long rows;
  long long inrows;
  int C;
  int ldi;
  int ldo;
  int act;
};

// out[m][c] = sum_k coef[m / rows][k] * term_k[m][c]
struct CombineParams {
  const half* t0;
  const half* t1;
  const half* t2;
  const half* t3;
  const float* f0;       // fp32 forms; of a pair at most one is not null
  const float* f1;
  const float* f2;
  const float* f3;
  const half* coef;
  const float* coef32;   // [images][ldc]
  half* out;
  float* out32;
  long long M;
  int C;
  int rows;              // of one image
  int ld0;
  int ld1;
  int ld2;
  int ld3;
  int ldc;
  int ldo;
};

// Source windows that the matrix kernels cannot read (fp32, odd pitches or widths) become rows of taps*C padded to ldo.
struct GatherParams {
  const half* in;
  const float* in32;
  half* out;             // [B*OH*OW][ldo]
  long long M;
  int H;
  int W;
  int OH;
  int OW;
  int C;
  int ldi;
  int KH;
  int KW;
  int stride;
  int top;
  int left;
  int shift;
  int parity;
  int ldo;
};

// Weights of a convolution, [N][C][taps] as stored, to [N][ldo] with k = (tap, c), zero-padded.
struct PackParams {
  const float* f;        // fp32 source, or null
  const half* h;         // fp16 source
  half* out;
  int N;
  int C;                 // channels of the source
  int CP;                // channels a tap takes in the result (>= C)
  int taps;
  int ldo;
  int geglu;             // 1: output row 16i+j is value row 8i+j, row 16i+8+j its gate
  int grad;              // 1: out is [C][ldo] with k = (taps-1-tap, n), CP the room for n: the kernel of the gradient
  int bf16;              // the fp16 source is bfloat16
  int quad;              // a 3x3 kernel as four of 2x2, one after the other in out: 1 behind an enlargement by two,
  int pad0;              // 2 and 3 (with grad) the gradient of a stride of two, with no zeros or one before the image
};

// Folds a layer norm into the matrix behind it, in place: w[n][k] *= gamma[k], sums[n] = sum_k w[n][k],
// shift[n] = bias[n] + sum_k beta[k]*w[n][k] (before scaling). With mean m and deviation d of a row x of A then
// x_normalised . w + bias = (x . w - m * sums) / d + shift.
struct FoldParams {
  half* w;               // [N][ld]
  const float* gamma;    // [K]
  const float* beta;
  const float* bias;     // [N] or null
  float* sums;           // [N]
  float* shift;          // [N]
  int N;
  int K;
  int ld;
  int pad0;
};

// Sums of chunks, [B][chunks][groups][2], become one of each image, [B][groups][2].
struct GroupTotalParams {
  const float* parts;
  float* out;
  int chunks;
  int groups;
};

// Nearest-neighbour enlargement by two, eight channels a thread.
struct EnlargeParams {
  const half* in;        // [B][H/2][W/2][ldi]
  half* out;             // [B][H][W][C]
  long long n;           // B*H*W*C / 8
  int H;
  int W;
  int C;
  int ldi;
};

// One iteration of a fit: grids of n^3 voxels, four channels (f, r, g, b). inference/field is the specification.
struct FitParams {
  const float* grid;     // [n][n][n][4], read
  float* next;           // the same after the iteration
  float* grad;           // of the rays' loss; zero between iterations
  float* m;              // Adam's moments
  float* v;
  float* lap;            // [n][n][n]: Laplacian of f at active voxels, zero elsewhere
  void* cell;            // [n][n][n] bytes: 1 where a sample may be visible
  const void* voxels;    // [active] int: those that change
  const float* list;     // [count][13] rays
  long long seed;
  int n;
  int active;
  int count;
  int rays;              // of an iteration
  int it;
  float dt;              // from sample to sample, world
  float x0;              // box that rays are clipped to
  float y0;
  float z0;
  float x1;
  float y1;
  float z1;
  float inverse_beta;
  float colour;          // weights of the loss over the number of rays
  float opacity;
  float threshold;       // cells below are empty
  float inverse_h;
  float bilaplace;
  float laplace;
  float eikonal;
  float colour_tv;
  float rate;            // of f
  float colour_rate;
  float bias;
};

// Pictures of a grid.
struct DrawParams {
  const float* grid;     // [n][n][n][4]
  const void* cell;
  const float* cameras;  // [pictures][11]
  float* image;          // [pictures][size][size][3]
  float* alpha;          // [pictures][size][size]
  float* depth;          // where half of the light is gone, or -1
  int n;
  int size;
  int pictures;
  float dt;
  float inverse_beta;
  int pad0;
};
