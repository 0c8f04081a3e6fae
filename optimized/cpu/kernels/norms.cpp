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

}  // namespace dsa::cpu::DSA_TIER
