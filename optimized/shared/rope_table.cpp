#include "optimized/shared/rope_table.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/threads.hpp"

namespace dsa {
namespace {

/// How much of channel pair i is interpolated under YaRN (arXiv 2309.00071): 0 where it turns more
/// than beta_fast times within the original context, 1 where less than beta_slow times.
double interpolated_share(const Rope& rope, Index i, Index P) {
  const auto channel = [&](double turns) {
    const double wavelength = rope.original_max_position_embeddings / turns;
    return static_cast<double>(P) * std::log(wavelength / (2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = channel(rope.beta_fast), high = channel(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(P - 1));
  if (low == high) high += 0.001;  // as HuggingFace avoids the singularity
  return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
}

double frequency(const Rope& rope, Index i, Index P) {
  const double f = std::pow(rope.theta, -2 * static_cast<double>(i) / static_cast<double>(P));
  if (!rope.yarn) return f;
  const double share = interpolated_share(rope, i, P);
  return f / rope.factor * share + f * (1 - share);
}

/// What YaRN multiplies cos and sin with.
double amplitude(const Rope& rope) {
  if (!rope.yarn) return 1;
  if (rope.attention_factor) return *rope.attention_factor;
  const auto m = [&](double x) {
    return rope.factor > 1 ? 0.1 * x * std::log(rope.factor) + 1 : 1;
  };
  if (rope.mscale != 0 && rope.mscale_all_dim != 0) return m(rope.mscale) / m(rope.mscale_all_dim);
  return m(1);
}

}  // namespace

void rope_table(View<float, 2> cos, View<float, 2> sin, std::span<const Index> positions,
                const Rope& rope) {
  const Index T = static_cast<Index>(positions.size()), half = cos.shape[1];
  expect_shape("cos", cos, {T, half});
  expect_shape("sin", sin, {T, half});
  const double scale = amplitude(rope);
  parallel_for(half, 40 * T, [&](Index i) {
    const double f = frequency(rope, i, 2 * half);
    for (Index t = 0; t < T; ++t) {
      const double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) * f;
      cos(t, i) = static_cast<float>(std::cos(angle) * scale);
      sin(t, i) = static_cast<float>(std::sin(angle) * scale);
    }
  });
}

}  // namespace dsa
