"""Source of the fused elementwise kernels: chains that PyTorch computes by one pass over memory for each operator.

Sums over tokens are taken in groups of a fixed number of rows and added up by the caller, so that they have one order
whatever the number of threads.
"""

from __future__ import annotations

# Rows of one group of sums.
FUSED_ROWS = 64
# Taps that the convolution is compiled for.
FUSED_TAPS = (1, 2, 3, 4)

FUSED_SOURCE = r"""
#include <cmath>

constexpr int64_t ROWS = 64;
// What torch adds to the mean square of float32.
constexpr float EPSILON = 1.1920928955078125e-07f;

template <typename F>
static void each_group(int64_t rows, const F& f) {
  at::parallel_for(0, (rows + ROWS - 1) / ROWS, 1, [&](int64_t from, int64_t to) {
    for (int64_t g = from; g < to; ++g) f(g, g * ROWS, std::min(rows, (g + 1) * ROWS));
  });
}

static inline V plus(V v, const float* u, const float* b, int64_t d, auto lanes) {
  const V w = load(u + d, lanes);
  return v + (b ? w * load(b + d, lanes) : w);
}
static void mix_row(const float* x, const float* u, const float* a, const float* b, float* y, float* n, float* r,
                    int64_t D) {
  V squares{};
  each_vector(D, [&](int64_t d, auto lanes) {
    V v = load(x + d, lanes);
    if (a) v *= load(a + d, lanes);
    if (u) v = plus(v, u, b, d, lanes);
    if (y) store(y + d, v, lanes);
    squares += v * v;
  });
  if (!n) return;
  const float scale = 1.0f / std::sqrt(sum(squares) / D + EPSILON);
  const float* from = y ? y : x;
  *r = scale;
  each_vector(D, [&](int64_t d, auto lanes) { store(n + d, load(from + d, lanes) * scale, lanes); });
}
static inline float* at_row(float* from, int64_t offset) { return from ? from + offset : nullptr; }
static inline const float* at_row(const float* from, int64_t offset) { return from ? from + offset : nullptr; }

// y = a * x + b * u, each part but x may be missing; n = y / rms(y).
// in: x u a b; out: y n r; sizes: rows D x_row u_row y_row.
extern "C" void mix_norm_forward(const float* const* in, float* const* out, const int64_t* s) {
  const int64_t D = s[1];
  each_group(s[0], [&](int64_t, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      mix_row(in[0] + i * s[2], at_row(in[1], i * s[3]), in[2], in[3], at_row(out[0], i * D), at_row(out[1], i * D),
              at_row(out[2], i), D);
  });
}

static void mix_row_back(const float* x, const float* u, const float* a, const float* b, const float* y, float r,
                         const float* dy, const float* dn, float* dx, float* du, float* da, float* db, int64_t D) {
  float common = 0;
  if (dn) {
    V dot{};
    each_vector(D, [&](int64_t d, auto lanes) { dot += load(dn + d, lanes) * load(y + d, lanes); });
    common = r * r * r * sum(dot) / D;
  }
  each_vector(D, [&](int64_t d, auto lanes) {
    V g = dy ? load(dy + d, lanes) : V{};
    if (dn) g += load(dn + d, lanes) * r - load(y + d, lanes) * common;
    store(dx + d, a ? g * load(a + d, lanes) : g, lanes);
    if (da) store(da + d, load(da + d, lanes) + g * load(x + d, lanes), lanes);
    if (!u) return;
    store(du + d, b ? g * load(b + d, lanes) : g, lanes);
    if (db) store(db + d, load(db + d, lanes) + g * load(u + d, lanes), lanes);
  });
}

// in: x u a b y r dy dn; out: dx du da db, sums by group; sizes: as above.
extern "C" void mix_norm_backward(const float* const* in, float* const* out, const int64_t* s) {
  const int64_t D = s[1];
  each_group(s[0], [&](int64_t group, int64_t first, int64_t last) {
    float *da = at_row(out[2], group * D), *db = at_row(out[3], group * D);
    if (da) std::fill(da, da + D, 0.0f);
    if (db) std::fill(db, db + D, 0.0f);
    for (int64_t i = first; i < last; ++i)
      mix_row_back(in[0] + i * s[2], at_row(in[1], i * s[3]), in[2], in[3], in[4] + i * s[4], in[5] ? in[5][i] : 0,
                   at_row(in[6], i * D), at_row(in[7], i * D), out[0] + i * D, at_row(out[1], i * D), da, db, D);
  });
}

static float head_forward(const float* x, const float* c, const float* w, float gain, float* y, int64_t half) {
  V squares{};
  each_vector(2 * half, [&](int64_t e, auto lanes) { const V v = load(x + e, lanes); squares += v * v; });
  const float r = 1.0f / std::sqrt(sum(squares) / (2 * half) + EPSILON), scale = r * gain;
  each_vector(half, [&](int64_t e, auto lanes) {
    const V cos = load(c + e, lanes) * scale, sin = load(w + e, lanes) * scale;
    const V a = load(x + e, lanes), b = load(x + half + e, lanes);
    store(y + e, a * cos - b * sin, lanes);
    store(y + half + e, b * cos + a * sin, lanes);
  });
  return r;
}
// Returns the gradient of the gain.
static float head_backward(const float* x, const float* c, const float* w, float gain, float r, const float* dy,
                           float* dx, int64_t half) {
  V dot{};  // of the gradient turned back with x
  each_vector(half, [&](int64_t e, auto lanes) {
    const V cos = load(c + e, lanes), sin = load(w + e, lanes);
    const V p = load(dy + e, lanes), q = load(dy + half + e, lanes);
    const V a = p * cos + q * sin, b = q * cos - p * sin;
    dot += a * load(x + e, lanes) + b * load(x + half + e, lanes);
    store(dx + e, a, lanes);
    store(dx + half + e, b, lanes);
  });
  const float total = sum(dot), scale = gain * r, common = gain * r * r * r * total / (2 * half);
  each_vector(2 * half, [&](int64_t e, auto lanes) {
    store(dx + e, load(dx + e, lanes) * scale - load(x + e, lanes) * common, lanes);
  });
  return total * r;
}

// Norm of each head, rotation of its first half against the second, gain. in: x cos sin gain; out: y r;
// sizes: B T H E, distances of x along B T H.
extern "C" void heads_forward(const float* const* in, float* const* out, const int64_t* s) {
  const int64_t T = s[1], H = s[2], E = s[3], half = E / 2;
  each_group(s[0] * T, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      for (int64_t h = 0; h < H; ++h)
        out[1][row * H + h] =
            head_forward(in[0] + row / T * s[4] + row % T * s[5] + h * s[6], in[1] + row % T * half,
                         in[2] + row % T * half, in[3] ? in[3][h] : 1.0f, out[0] + (row * H + h) * E, half);
  });
}

// in: x cos sin gain r dy; out: dx, dgain by group; sizes: as above, then distances of dy along B T H.
extern "C" void heads_backward(const float* const* in, float* const* out, const int64_t* s) {
  const int64_t T = s[1], H = s[2], E = s[3], half = E / 2;
  each_group(s[0] * T, [&](int64_t group, int64_t first, int64_t last) {
    float* dgain = at_row(out[1], group * H);
    if (dgain) std::fill(dgain, dgain + H, 0.0f);
    for (int64_t row = first; row < last; ++row)
      for (int64_t h = 0; h < H; ++h) {
        const float d = head_backward(in[0] + row / T * s[4] + row % T * s[5] + h * s[6], in[1] + row % T * half,
                                      in[2] + row % T * half, in[3] ? in[3][h] : 1.0f, in[4][row * H + h],
                                      in[5] + row / T * s[7] + row % T * s[8] + h * s[9], out[0] + (row * H + h) * E,
                                      half);
        if (dgain) dgain[h] += d;
      }
  });
}

// Causal convolution along time, then SiLU. K taps, K x D.
template <int K>
static inline V convolved(const float* x, int64_t row, int64_t t, const V* taps, V bias, auto lanes) {
  for (int k = 0; k < K; ++k)
    if (t - (K - 1) + k >= 0) bias += taps[k] * load(x + (k - (K - 1)) * row, lanes);
  return bias;
}
struct Conv {
  int64_t T, D, row, b, d;
  const float *x, *taps, *bias, *dy;
};
template <int K>
static void conv_block(const Conv s, float* y, auto lanes) {
  V taps[K];
  for (int k = 0; k < K; ++k) taps[k] = load(s.taps + k * s.D + s.d, lanes);
  const V bias = load(s.bias + s.d, lanes);
  for (int64_t t = 0; t < s.T; ++t) {
    const V v = convolved<K>(s.x + (s.b * s.T + t) * s.row + s.d, s.row, t, taps, bias, lanes);
    store(y + (s.b * s.T + t) * s.D + s.d, v * vsigmoid(v), lanes);
  }
}
template <int K>
static void conv_block_back(const Conv s, float* dx, float* dw, float* db, auto lanes) {
  V taps[K], dtaps[K], later[K], dbias{};  // later[j]: gradient before the SiLU, j steps later
  for (int k = 0; k < K; ++k) { taps[k] = load(s.taps + k * s.D + s.d, lanes); dtaps[k] = later[k] = V{}; }
  const V bias = load(s.bias + s.d, lanes);
  for (int64_t t = s.T - 1; t >= 0; --t) {
    const float* x = s.x + (s.b * s.T + t) * s.row + s.d;
    const V v = convolved<K>(x, s.row, t, taps, bias, lanes), lit = vsigmoid(v);
    const V g = load(s.dy + (s.b * s.T + t) * s.D + s.d, lanes) * lit * (1.0f + v * (1.0f - lit));
    for (int j = K - 1; j > 0; --j) later[j] = later[j - 1];
    later[0] = g;
    dbias += g;
    V found{};
    for (int k = 0; k < K; ++k) {
      found += taps[k] * later[K - 1 - k];
      if (t - (K - 1) + k >= 0) dtaps[k] += g * load(x + (k - (K - 1)) * s.row, lanes);
    }
    store(dx + (s.b * s.T + t) * s.D + s.d, found, lanes);
  }
  for (int k = 0; k < K; ++k) store(dw + (s.b * K + k) * s.D + s.d, dtaps[k], lanes);
  store(db + s.b * s.D + s.d, dbias, lanes);
}
template <typename F>
static void each_block(const float* const* in, const int64_t* s, const F& f) {
  const int64_t D = s[2], blocks = (D + W - 1) / W;
  at::parallel_for(0, s[0] * blocks, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const Conv conv{s[1], D, s[3], i / blocks, i % blocks * W, in[0], in[1], in[2], in[3]};
      with_lanes(D - conv.d, [&](auto lanes) { f(conv, lanes); });
    }
  });
}
template <int K>
static void conv_forward_k(const float* const* in, float* const* out, const int64_t* s) {
  const float* given[] = {in[0], in[1], in[2], nullptr};
  each_block(given, s, [&](const Conv& conv, auto lanes) { conv_block<K>(conv, out[0], lanes); });
}
template <int K>
static void conv_backward_k(const float* const* in, float* const* out, const int64_t* s) {
  each_block(in, s, [&](const Conv& conv, auto lanes) { conv_block_back<K>(conv, out[0], out[1], out[2], lanes); });
}
#define FOR_EACH_TAPS(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
// in: x taps bias; out: y; sizes: B T D x_row K.
extern "C" void conv_forward(const float* const* in, float* const* out, const int64_t* s) {
  switch (s[4]) {
#define CASE(K) case K: return conv_forward_k<K>(in, out, s);
    FOR_EACH_TAPS(CASE)
#undef CASE
  }
}
// in: x taps bias dy; out: dx, dtaps and dbias by batch row.
extern "C" void conv_backward(const float* const* in, float* const* out, const int64_t* s) {
  switch (s[4]) {
#define CASE(K) case K: return conv_backward_k<K>(in, out, s);
    FOR_EACH_TAPS(CASE)
#undef CASE
  }
}

// tanh: a polynomial near 0 (Cephes' tanhf), elsewhere by exp.
static inline V vtanh(V x) {
  const V size = vabs(x), q = x * x, e = vexp(-2.0f * size);
  V p = all(-5.70498872745e-3f);
  p = p * q + 2.06390887954e-2f;
  p = p * q - 5.37397155531e-2f;
  p = p * q + 1.33314422036e-1f;
  p = p * q - 3.33332819422e-1f;
  const V near = p * q * x + x, far = (1.0f - e) / (1.0f + e);
  return size < 0.625f ? near : (x < 0.0f ? -far : far);
}

static float entropy_row(const float* z, float cap, int64_t D) {
  V sums{};
  int64_t d = 0;
  for (; d + W <= D; d += W) sums += vexp(cap * vtanh(load(z + d, Full{})));
  float total = sum(sums);
  for (; d < D; ++d) total += std::exp(cap * std::tanh(z[d]));
  return std::log(total);
}
// The same, and what the gradient is made of while the row is at hand. The gradient of the loss is `gradient` / cap.
static float entropy_row_both(const float* z, float cap, float gradient, int64_t target, float* dz, int64_t D) {
  V sums{};
  int64_t d = 0;
  for (; d + W <= D; d += W) {
    const V t = vtanh(load(z + d, Full{})), e = vexp(cap * t);
    sums += e;
    store(dz + d, e * (1.0f - t * t), Full{});
  }
  float total = sum(sums);
  for (; d < D; ++d) {
    const float t = std::tanh(z[d]), e = std::exp(cap * t);
    total += e;
    dz[d] = e * (1.0f - t * t);
  }
  const float scale = gradient / total, t = std::tanh(z[target]);
  each_vector(D, [&](int64_t at, auto lanes) { store(dz + at, load(dz + at, lanes) * scale, lanes); });
  dz[target] -= gradient * (1.0f - t * t);
  return std::log(total);
}

// Cross-entropy of cap * tanh(z); the cap bounds the sum, so that no largest value need be found first.
// in: z cap; out: losses, and their gradient by z over the number of rows where it is wanted; sizes: rows D.
extern "C" void entropy(const float* const* in, float* const* out, const int64_t* s, const int64_t* targets) {
  const int64_t D = s[1];
  const float cap = in[1][0];
  each_group(s[0], [&](int64_t, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* z = in[0] + row * D;
      const float total = out[1] ? entropy_row_both(z, cap, cap / s[0], targets[row], out[1] + row * D, D)
                                 : entropy_row(z, cap, D);
      out[0][row] = total - cap * std::tanh(z[targets[row]]);
    }
  });
}

static void squared(const float* x, float slope, float* y, int64_t size) {
  each_vector(size, [&](int64_t i, auto lanes) {
    const V v = load(x + i, lanes), l = v > 0.0f ? v : slope * v;
    store(y + i, l * l, lanes);
  });
}
static void squared_back(const float* x, float slope, const float* dy, float* dx, int64_t size) {
  each_vector(size, [&](int64_t i, auto lanes) {
    const V v = load(x + i, lanes);
    store(dx + i, 2.0f * load(dy + i, lanes) * (v > 0.0f ? v : slope * slope * v), lanes);
  });
}
// Square of the leaky rectifier. in: x slope; out: y; sizes: elements.
extern "C" void squared_forward(const float* const* in, float* const* out, const int64_t* s) {
  at::parallel_for(0, s[0], 1 << 14, [&](int64_t from, int64_t to) {
    squared(in[0] + from, in[1][0], out[0] + from, to - from);
  });
}
// in: x slope dy; out: dx.
extern "C" void squared_backward(const float* const* in, float* const* out, const int64_t* s) {
  at::parallel_for(0, s[0], 1 << 14, [&](int64_t from, int64_t to) {
    squared_back(in[0] + from, in[1][0], in[2] + from, out[0] + from, to - from);
  });
}
"""
