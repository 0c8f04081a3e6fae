#include "optimized/cpu/kernels/rows.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {

void add_scaled_row(float* y, const float* x, float w, Index C) {
  for (Index c = 0; c < C; ++c) y[c] += w * x[c];
}

float dot_and_scale_row(float* a, float* b, float w, Index F) {
  constexpr int lanes = 16, vectors = lanes / width;  // the same sums on every tier
  Vector sums[vectors] = {};
  Index f = 0;
  for (; f + lanes <= F; f += lanes)
    for (int v = 0; v < vectors; ++v) {
      float *const at = a + f + v * width, *const bt = b + f + v * width;
      const Vector x = vector_at(at), y = vector_at(bt);
      sums[v] = fused(x, y, sums[v]);
      put(at, x * w);
      put(bt, y * w);
    }
  float total[lanes];
  for (int v = 0; v < vectors; ++v) put(total + v * width, sums[v]);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) total[i] += total[i + half];
  float sum = total[0];
  for (; f < F; ++f) {
    sum += a[f] * b[f];
    a[f] *= w;
    b[f] *= w;
  }
  return sum;
}

}  // namespace dsa::cpu::DSA_TIER
