// optimized/cuda/forward.cuh — the whole model on a device: DeepSeek-V2, V3, V3.2 and GLM-5.
//
// Definition: reference/forward.hpp; what is sparse and what is dense: optimized/cpu/forward.hpp.
#pragma once

#include "optimized/cuda/cache.cuh"
#include "optimized/cuda/graph.cuh"
#include "optimized/cuda/model.cuh"
#include "optimized/cuda/stream.cuh"
#include "optimized/cuda/workspace.cuh"

namespace dsa::cuda::DSA_PLACE {

/// A model on the device, and the memory of its passes. X, Row: workspace.cuh.
template <class X, class Row>
class Runner {
 public:
  /// For passes of up to T tokens.
  Runner(const Model&, Index T);

  const Config& config() const { return model_.config; }
  Index tokens() const { return tokens_; }

  /// As Engine::forward. Of what grows with a sequence only pages of its cache are allocated. The
  /// device is waited for once, or once more for every 64 rows of logits beyond the first; for
  /// every tensor that `tap` asks for.
  void forward(std::span<const Feed>, LogitsOf, View<float, 2> logits,  // out
               const Tap&);

 private:
  OwnStream stream_;
  DeviceModel<X> model_;
  Index tokens_;
  Buffer<std::byte> memory_;
  std::vector<std::byte> host_memory_;  // of what the host tells a pass
  Graph graph_;
};

}  // namespace dsa::cuda::DSA_PLACE
