#include "optimized/cpu/ops/peaks.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/peaks.hpp"

namespace dsa::cpu {
namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The best rate of `work(thread, threads)`, which returns how much it did, on all threads for 0.3
/// s.
template <class Work>
double best_rate(Work work) {
  const Index count = threads();
  std::vector<double> done(static_cast<std::size_t>(count));
  double best = 0;
  for (const double begin = seconds(); seconds() < begin + 0.3;) {
    const double from = seconds();
    parallel_for(count, shared_loop_ns,
                 [&](Index i) { done[static_cast<std::size_t>(i)] = work(i, count); });
    best = std::max(best, std::accumulate(done.begin(), done.end(), 0.0) / (seconds() - from));
  }
  return best;
}

}  // namespace

double matrix_peak(Cpu cpu, Dtype dtype) {
  require(
      dtype == Dtype::f32 || dtype == Dtype::bf16,
      "the peak of matrix products is known for F32 and BF16, not " + std::string(name_of(dtype)));
  return best_rate([&](Index, Index) {
    alignas(64) float numbers[peak_numbers] = {};
    return multiply_loop_of[int(cpu.tier)](dtype == Dtype::bf16, 1'000'000, numbers);
  });
}

double read_bandwidth(Cpu cpu) {
  constexpr Index n = Index{1} << 26;  // floats: larger than the last cache of most machines
  const std::vector<float> memory(static_cast<std::size_t>(n), 1.0f);
  return best_rate([&](Index i, Index count) {
    const Index step = n / 256 / count * 256;
    const float* const mine = memory.data() + step * i;
    const volatile float sum = read_loop_of[int(cpu.tier)](mine, step);
    (void)sum;
    return 4.0 * static_cast<double>(step);
  });
}

}  // namespace dsa::cpu
