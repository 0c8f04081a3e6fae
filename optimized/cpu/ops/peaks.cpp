#include "optimized/cpu/ops/peaks.hpp"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "optimized/cpu/kernels/peaks.hpp"

namespace dsa::cpu {
namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The best rate of `work`, which returns how much one thread did, on all threads for 0.3 s.
template <class Work>
double best_rate(Work work) {
  double best = 0;
  for (const double begin = seconds(); seconds() < begin + 0.3;) {
    double done = 0, from = 0, to = 0;
#pragma omp parallel reduction(+ : done)
    {
#pragma omp barrier
#pragma omp master
      from = seconds();
      done = work();
#pragma omp barrier
#pragma omp master
      to = seconds();
    }
    best = std::max(best, done / (to - from));
  }
  return best;
}

}  // namespace

double matrix_peak(Cpu cpu, Dtype dtype) {
  require(
      dtype == Dtype::f32 || dtype == Dtype::bf16,
      "the peak of matrix products is known for F32 and BF16, not " + std::string(name_of(dtype)));
  return best_rate([&] {
    alignas(64) float numbers[peak_numbers] = {};
    return multiply_loop_of[int(cpu.tier)](dtype == Dtype::bf16, 100'000, numbers);
  });
}

double read_bandwidth(Cpu cpu) {
  constexpr Index n = Index{1} << 26;  // floats: larger than the last cache of most machines
  const std::vector<float> memory(static_cast<std::size_t>(n), 1.0f);
  return best_rate([&] {
    const Index step = n / 256 / omp_get_num_threads() * 256;
    const float* const mine = memory.data() + step * omp_get_thread_num();
    const volatile float sum = read_loop_of[int(cpu.tier)](mine, step);
    (void)sum;
    return 4.0 * static_cast<double>(step);
  });
}

}  // namespace dsa::cpu
