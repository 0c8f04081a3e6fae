#include "optimized/cpu/kernels/norms.hpp"

#include "optimized/cpu/kernels/simd.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

float sum_of_squares(const float* x, std::int64_t C, float mean) {
  Floats squares{};
  std::int64_t c = 0;
  for (; c + lanes <= C; c += lanes) {
    const Floats d = load(x + c) - mean;
    squares = multiply_add(d, d, squares);
  }
  float total = sum(squares);
  for (; c < C; ++c) total += (x[c] - mean) * (x[c] - mean);
  return total;
}

float sum_of(const float* x, std::int64_t C) {
  Floats partial{};
  std::int64_t c = 0;
  for (; c + lanes <= C; c += lanes) partial += load(x + c);
  float total = sum(partial);
  for (; c < C; ++c) total += x[c];
  return total;
}

/// y[c] = g[c] (x[c] - mean) r + b[c]; b may be null.
void scale_row(float* y, std::uint16_t* y_bf16, const float* x, const float* g, const float* b,
               std::int64_t C, float mean, float r) {
  for (std::int64_t c = 0; c < C; ++c) {
    const float value = g[c] * ((x[c] - mean) * r) + (b ? b[c] : 0.0f);
    if (y) y[c] = value;
    if (y_bf16) y_bf16[c] = narrow(value);
  }
}

float reciprocal_root(float mean_square, double eps) {
  return static_cast<float>(1 / __builtin_sqrt(static_cast<double>(mean_square) + eps));
}

}  // namespace

void rmsnorm_row(float* y, std::uint16_t* y_bf16, const float* x, const float* g, std::int64_t C,
                 double eps) {
  const float mean_square = sum_of_squares(x, C, 0) / static_cast<float>(C);
  scale_row(y, y_bf16, x, g, nullptr, C, 0, reciprocal_root(mean_square, eps));
}

void layernorm_row(float* y, std::uint16_t* y_bf16, const float* x, const float* g, const float* b,
                   std::int64_t C, double eps) {
  const float mean = sum_of(x, C) / static_cast<float>(C);
  const float variance = sum_of_squares(x, C, mean) / static_cast<float>(C);
  scale_row(y, y_bf16, x, g, b, C, mean, reciprocal_root(variance, eps));
}

}  // namespace dsa::cpu::DSA_TIER
