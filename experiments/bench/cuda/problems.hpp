// experiments/bench/cuda/problems.hpp — what is timed on a device, and what each problem costs.
//
// Sizes are those that kernels for DSA are published at: FlashMLA's tests (s_q 4096 over contexts
// of 8K to 128K, 128 or 64 heads, top-k 2048; decoding of 128 sequences, two tokens each, over an
// e4m3 cache), DeepGEMM's indexer (64 heads of 128 channels), V3.2's projections.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::bench {

/// B sequences share the T queries evenly, and have S keys each.
struct DeviceProblem {
  std::string op, dtype, rung, label;        // "mla_sparse", "bf16", "dispatch", "prefill"
  std::map<char, Index> sizes;               // by axis letter (core/config.hpp)
  double flops = 0, bytes = 0;               // counted: formulas()
  double input_bytes = 0, output_bytes = 0;  // on the device; of inputs there are several copies

  Index at(char letter) const { return sizes.at(letter); }
  std::string shape() const;  // "B 128, K 2048, ..."
};

/// How flops and bytes of an op are counted, in words; by op.
const std::map<std::string, std::string>& formulas();

/// The problems timed on a device, and the same list at sizes for the host's emulation of CUDA.
std::vector<DeviceProblem> device_problems();
std::vector<DeviceProblem> host_problems();

/// Copies of the inputs: as many as no cache holds together (256 MiB), at least 2, at most 16.
Index copies_of(const DeviceProblem&);

/// Bytes that timing the problem takes on the device.
double memory_of(const DeviceProblem&);

}  // namespace dsa::bench
