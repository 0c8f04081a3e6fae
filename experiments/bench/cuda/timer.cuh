// experiments/bench/cuda/timer.cuh — how long work takes on the device.
//
// Between two events on the stream. Before each run a buffer larger than the L2 cache is written,
// so that no run finds what the last one left there, and another copy of the inputs is taken.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "optimized/cuda/device/buffer.cuh"

namespace dsa::bench::DSA_PLACE {

using namespace cuda::DSA_PLACE;

struct Times {
  double median_ms = 0, least_ms = 0;
  int runs = 0;
};

/// Work of one problem on one of its copies of inputs.
using Work = std::function<void(Index copy)>;

class Timer {
 public:
  Timer() {
#ifndef DSA_CUDA_ON_HOST
    CUDA_TRY(cudaEventCreate(&begin_));
    CUDA_TRY(cudaEventCreate(&end_));
#endif
  }
  ~Timer() {
#ifndef DSA_CUDA_ON_HOST
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
#endif
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// One run to warm up; then as many as fit into a second, at least 3 and at most 30.
  Times time(const Work& work, Index copies) {
    constexpr int least = 3, most = 30;
    constexpr double enough_ms = 1000;
    run_once(work, 0);
    std::vector<double> took;
    double sum = 0;
    while (static_cast<int>(took.size()) < least ||
           (sum < enough_ms && static_cast<int>(took.size()) < most)) {
      took.push_back(run_once(work, static_cast<Index>(took.size() + 1) % copies));
      sum += took.back();
    }
    std::sort(took.begin(), took.end());
    return {took[took.size() / 2], took.front(), static_cast<int>(took.size())};
  }

 private:
#ifdef DSA_CUDA_ON_HOST
  double run_once(const Work& work, Index copy) {
    const auto begin = std::chrono::steady_clock::now();
    work(copy);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
  }
#else
  double run_once(const Work& work, Index copy) {
    CUDA_TRY(cudaMemsetAsync(flush_.data(), 0, static_cast<std::size_t>(flush_.size()), Stream{}));
    CUDA_TRY(cudaEventRecord(begin_, Stream{}));
    work(copy);
    CUDA_TRY(cudaEventRecord(end_, Stream{}));
    CUDA_TRY(cudaEventSynchronize(end_));
    float ms = 0;
    CUDA_TRY(cudaEventElapsedTime(&ms, begin_, end_));
    return ms;
  }

  Buffer<std::uint8_t> flush_ = Buffer<std::uint8_t>(Index{512} << 20);
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
#endif
};

}  // namespace dsa::bench::DSA_PLACE
