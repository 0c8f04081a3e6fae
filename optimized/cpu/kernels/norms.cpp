#include "optimized/cpu/kernels/norms.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// Sixteen partial sums on every tier, added by halves: one order of summation.
constexpr int lanes = 16, vectors = lanes / width;

struct PartialSums {
  Vector of[vectors] = {};

  float total() const {
    float x[lanes];
    for (int v = 0; v < vectors; ++v) put(x + v * width, of[v]);
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) x[i] += x[i + half];
    return x[0];
  }
};

float sum_of_squares(const float* x, Index C, float mean) {
  PartialSums sums;
  Index c = 0;
  for (; c + lanes <= C; c += lanes)
    for (int v = 0; v < vectors; ++v) {
      const Vector d = vector_at(x + c + v * width) - mean;
      sums.of[v] = fused(d, d, sums.of[v]);
    }
  float total = sums.total();
  for (; c < C; ++c) total += (x[c] - mean) * (x[c] - mean);
  return total;
}

float sum_of(const float* x, Index C) {
  PartialSums sums;
  Index c = 0;
  for (; c + lanes <= C; c += lanes)
    for (int v = 0; v < vectors; ++v) sums.of[v] += vector_at(x + c + v * width);
  float total = sums.total();
  for (; c < C; ++c) total += x[c];
  return total;
}

struct Moments {
  float mean, reciprocal_root;
};

/// y[c] = g[c] (x[c] - mean) reciprocal_root + b[c]; b may be null.
void scale_row(RowOut y, const float* x, const float* g, const float* b, Index C, Moments m) {
  for (Index c = 0; c < C; ++c) {
    const float value = g[c] * ((x[c] - m.mean) * m.reciprocal_root) + (b ? b[c] : 0.0f);
    if (y.f32) y.f32[c] = value;
    if (y.bf16) y.bf16[c] = narrow(value);
  }
}

float reciprocal_root(float mean_square, double eps) {
  return static_cast<float>(1 / __builtin_sqrt(static_cast<double>(mean_square) + eps));
}

/// sum_c g[c] d_y[c]
float sum_of_products(const float* g, const float* d_y, Index C) {
  PartialSums sums;
  Index c = 0;
  for (; c + lanes <= C; c += lanes)
    for (int v = 0; v < vectors; ++v)
      sums.of[v] = fused(vector_at(g + c + v * width), vector_at(d_y + c + v * width), sums.of[v]);
  float total = sums.total();
  for (; c < C; ++c) total += g[c] * d_y[c];
  return total;
}

/// sum_c g[c] d_y[c] (x[c] - mean)
float sum_of_products(const float* g, const float* d_y, const float* x, Index C, float mean) {
  PartialSums sums;
  Index c = 0;
  for (; c + lanes <= C; c += lanes)
    for (int v = 0; v < vectors; ++v) {
      const Index i = c + v * width;
      sums.of[v] =
          fused(vector_at(g + i) * vector_at(d_y + i), vector_at(x + i) - mean, sums.of[v]);
    }
  float total = sums.total();
  for (; c < C; ++c) total += g[c] * d_y[c] * (x[c] - mean);
  return total;
}

/// d_x = r ( d_n - mean_d - n mean_dn ), d_n = g d_y, n = (x - mean) r; d_g += d_y n.
void backward_row(const NormRows& p, Index t, Moments m, float mean_d, float mean_dn) {
  const float* const x = p.x + t * p.C;
  const float* const d_y = p.d_y + t * p.C;
  float* const d_x = p.d_x + t * p.C;
  for (Index c = 0; c < p.C; ++c) {
    const float n = (x[c] - m.mean) * m.reciprocal_root;
    const float d = m.reciprocal_root * (p.g[c] * d_y[c] - mean_d - n * mean_dn);
    d_x[c] = p.add ? d_x[c] + d : d;
    p.d_g[c] += d_y[c] * n;
  }
  if (p.d_b)
    for (Index c = 0; c < p.C; ++c) p.d_b[c] += d_y[c];
}

}  // namespace

void rmsnorm_row(RowOut y, const float* x, const float* g, Index C, double eps) {
  const float mean_square = sum_of_squares(x, C, 0) / static_cast<float>(C);
  scale_row(y, x, g, nullptr, C, {0, reciprocal_root(mean_square, eps)});
}

void layernorm_row(RowOut y, const float* x, const float* g, const float* b, Index C, double eps) {
  const float mean = sum_of(x, C) / static_cast<float>(C);
  const float variance = sum_of_squares(x, C, mean) / static_cast<float>(C);
  scale_row(y, x, g, b, C, {mean, reciprocal_root(variance, eps)});
}

void rmsnorm_backward_rows(const NormRows& p) {
  const float C = static_cast<float>(p.C);
  std::memset(p.d_g, 0, static_cast<std::size_t>(4 * p.C));
  for (Index t = 0; t < p.rows; ++t) {
    const float* const x = p.x + t * p.C;
    const float r = reciprocal_root(sum_of_squares(x, p.C, 0) / C, p.eps);
    const float along = sum_of_products(p.g, p.d_y + t * p.C, x, p.C, 0) * r / C;
    backward_row(p, t, {0, r}, 0, along);
  }
}

void layernorm_backward_rows(const NormRows& p) {
  const float C = static_cast<float>(p.C);
  std::memset(p.d_g, 0, static_cast<std::size_t>(4 * p.C));
  std::memset(p.d_b, 0, static_cast<std::size_t>(4 * p.C));
  for (Index t = 0; t < p.rows; ++t) {
    const float *const x = p.x + t * p.C, *const d_y = p.d_y + t * p.C;
    const float mean = sum_of(x, p.C) / C;
    const float r = reciprocal_root(sum_of_squares(x, p.C, mean) / C, p.eps);
    const float mean_d = sum_of_products(p.g, d_y, p.C) / C;
    backward_row(p, t, {mean, r}, mean_d, sum_of_products(p.g, d_y, x, p.C, mean) * r / C);
  }
}

}  // namespace dsa::cpu::DSA_TIER
