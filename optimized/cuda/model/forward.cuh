// optimized/cuda/model/forward.cuh — the whole model on a device: DeepSeek-V2, V3, V3.2 and GLM-5.
//
// Definition: reference/model/forward.hpp. All feeds of a pass are launched together, over one list
// of the pages of their caches. If some token sees more than top-k keys, the indexer chooses for
// every token, and attention is sparse. Otherwise the keys are cached but not scored, and attention
// is dense.
#pragma once

#include "optimized/cuda/device/graph.cuh"
#include "optimized/cuda/device/stream.cuh"
#include "optimized/cuda/model/cache.cuh"
#include "optimized/cuda/model/model.cuh"
#include "optimized/cuda/model/workspace.cuh"

namespace dsa::cuda::DSA_PLACE {

/// The rows of a pass that belong to one feed.
template <class Row>
struct Segment {
  Cache<Row>* cache = nullptr;
  Index begin = 0, end = 0;  // rows of the pass
  Index first_key = 0;       // row of all feeds' pages at which its own begin
};

/// A model on the device, and the memory of its passes. X, Row: workspace.cuh.
template <class X, class Row>
class Runner {
 public:
  /// For passes of up to T tokens.
  Runner(const Model&, Index T);

  const Config& config() const { return model_.config; }
  Index tokens() const { return tokens_; }
  const CacheLayout<Row>& cache_layout() const { return layout_; }

  /// As Engine::forward. Allocates only pages of caches and the list of them. Waits for the device
  /// once, once more for every 64 rows of logits beyond the first, and once for every tensor that
  /// `tap` requests.
  void forward(std::span<const Feed>, LogitsOf, View<float, 2> logits,  // out
               const Tap&);

 private:
  /// Uploads the list of all pages, where it is not the last pass's.
  DeviceView<Row* const, 1> list_of(const std::vector<Segment<Row>>&);

  OwnStream stream_;
  DeviceModel<X> model_;
  Index tokens_;
  CacheLayout<Row> layout_;
  std::vector<Row*> pages_;  // of the last pass's feeds
  Buffer<Row*> list_;        // the same on the device, or room for more
  Buffer<std::byte> memory_;
  std::vector<std::byte> host_memory_;  // of what the host tells a pass
  Graph graph_;
};

}  // namespace dsa::cuda::DSA_PLACE
