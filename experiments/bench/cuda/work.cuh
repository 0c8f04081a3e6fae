// experiments/bench/cuda/work.cuh — problems made ready to be run on the device.
#pragma once

#include "experiments/bench/cuda/memory.cuh"
#include "experiments/bench/cuda/problems.hpp"
#include "experiments/bench/cuda/timer.cuh"

namespace dsa::bench::DSA_PLACE {

/// Allocates and fills copies_of(p) copies of the inputs, which live as long as the work.
Work work_of(const DeviceProblem& p);

Work attention_work(const DeviceProblem&);
Work indexer_work(const DeviceProblem&);  // indexer_scores, topk_select, indexer_topk
Work linear_work(const DeviceProblem&);

}  // namespace dsa::bench::DSA_PLACE
