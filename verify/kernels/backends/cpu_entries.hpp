// verify/kernels/backends/cpu_entries.hpp — the ops of the CPU backend, before tiers are chosen.
#pragma once

#include "optimized/cpu/ops/tier.hpp"
#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

/// An op, in the dtypes that the backend has.
struct CpuEntry {
  const char* op;
  std::vector<std::string> dtypes;
  Launch (*prepare)(cpu::Cpu, const Case&, Arrays&);
};

/// The ops of training (cpu_training.cpp).
std::vector<CpuEntry> cpu_training_entries();

}  // namespace dsa::verify::kernels
