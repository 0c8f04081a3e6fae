#include "optimized/cpu/kernels/cross_entropy.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr Index lanes = 16, vectors = lanes / width;  // the same sums on every tier
constexpr Index run = 1024;                           // summed in fp32 before they are in double

/// exp( z - largest ) of 16 neighbours; `n` of them are there, the others are 0.
struct Sixteen {
  Vector of[vectors];

  Sixteen(const float* z, Index n, float largest) {
    float values[lanes];
    for (Index i = 0; i < lanes; ++i) values[i] = i < n ? z[i] : -__builtin_inff();
    for (int v = 0; v < vectors; ++v)
      of[v] = exponential(vector_at((n == lanes ? z : values) + v * width) - largest);
  }
};

}  // namespace

LogSumExp log_sum_exp_row(const float* z, Index V) {
  float largest = -__builtin_inff();
  for (Index v = 0; v < V; ++v) largest = largest > z[v] ? largest : z[v];
  double sum = 0;
  for (Index first = 0; first < V; first += run) {
    const Index end = first + run < V ? first + run : V;
    Vector sums[vectors] = {};
    for (Index i = first; i < end; i += lanes) {
      const Sixteen e(z + i, end - i < lanes ? end - i : lanes, largest);
      for (int v = 0; v < vectors; ++v) sums[v] += e.of[v];
    }
    float total[lanes];
    for (int v = 0; v < vectors; ++v) put(total + v * width, sums[v]);
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) total[i] += total[i + half];
    sum += static_cast<double>(total[0]);
  }
  return {largest, sum};
}

void scaled_exp_row(float* z, Index V, float largest, float factor) {
  for (Index i = 0; i < V; i += lanes) {
    const Index n = V - i < lanes ? V - i : lanes;
    const Sixteen e(z + i, n, largest);
    float values[lanes];
    for (int v = 0; v < vectors; ++v) put(values + v * width, e.of[v] * factor);
    std::memcpy(z + i, values, static_cast<std::size_t>(4 * n));
  }
}

}  // namespace dsa::cpu::DSA_TIER
