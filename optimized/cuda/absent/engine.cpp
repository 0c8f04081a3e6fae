// optimized/cuda/absent/engine.cpp — the device's functions of a build without nvcc.
#include "optimized/cuda/model/engine.hpp"

namespace dsa::cuda::device {
namespace {

[[noreturn]] void refuse() {
  throw Error(
      "--backend cuda needs a build with nvcc 12.8 or later, this one was made without; --backend "
      "cuda-host runs the same kernels on the processor");
}

}  // namespace

Plan plan(const Config&, const EngineOptions&, Index, Index) { refuse(); }

std::unique_ptr<Engine> open(const Model&, const EngineOptions&) { refuse(); }

}  // namespace dsa::cuda::device
