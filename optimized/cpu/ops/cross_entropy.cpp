#include "optimized/cpu/ops/cross_entropy.hpp"

#include <cmath>

#include "optimized/cpu/kernels/cross_entropy.hpp"

namespace dsa::cpu {

void cross_entropy(Cpu cpu, View<double, 1> loss, View<float, 2> z,
                   View<const std::int32_t, 1> targets, View<const float, 1> factor) {
  const Index T = z.shape[0], V = z.shape[1];
  expect_shape("loss", loss, {T});
  expect_shape("targets", targets, {T});
  if (factor.data) expect_shape("factor", factor, {T});
  for (Index t = 0; t < T; ++t)
    if (!(0 <= targets(t) && targets(t) < V))
      throw Error("target " + std::to_string(targets(t)) + " of row " + std::to_string(t) +
                  " is outside the vocabulary of " + std::to_string(V));
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t) {
    float* const row = z.data + t * V;
    const LogSumExp all = log_sum_exp_row_of[int(cpu.tier)](row, V);
    const float of_target = row[targets.data[t]];
    loss.data[t] =
        std::log(all.sum) + (static_cast<double>(all.largest) - static_cast<double>(of_target));
    if (!factor.data) continue;
    const auto scale = static_cast<float>(static_cast<double>(factor.data[t]) / all.sum);
    scaled_exp_row_of[int(cpu.tier)](row, V, all.largest, scale);
    row[targets.data[t]] -= factor.data[t];
  }
}

}  // namespace dsa::cpu
