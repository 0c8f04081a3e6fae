// optimized/cuda/device/graph.cuh — the launches of a pass, recorded once and replayed.
//
// A step of decoding launches some forty small kernels a layer, and every launch costs the host
// microseconds; a graph costs one launch. On the host there is nothing to save: every pass runs.
#pragma once

#include <vector>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Everything that the launches of a pass depend on: sizes and addresses. Data that they read from
/// the device, such as tokens and visible ranges, does not belong to it.
using GraphKey = std::vector<Index>;

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { forget(); }

  /// Does what body() asks of the stream: a key that comes for the first time runs, a second time
  /// in a row it is recorded, from then on it is replayed. body() may launch kernels and no more.
  template <class F>
  void run([[maybe_unused]] Stream stream, [[maybe_unused]] const GraphKey& key, F&& body) {
#ifdef DSA_CUDA_ON_HOST
    body();
#else
    if (key != key_) {
      forget();
      key_ = key;
      // Loads the kernels, too, and asks cuBLASLt for algorithms: not to be done while recording.
      return body();
    }
    if (replay_ == nullptr) record(stream, body);
    CUDA_TRY(cudaGraphLaunch(replay_, stream));
#endif
  }

 private:
#ifdef DSA_CUDA_ON_HOST
  void forget() {}
#else
  void forget() {
    if (replay_ != nullptr) cudaGraphExecDestroy(replay_);
    replay_ = nullptr;
  }
  template <class F>
  void record(Stream stream, F&& body) {
    cudaGraph_t graph = nullptr;
    CUDA_TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      body();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      cudaGraphDestroy(graph);
      throw;
    }
    CUDA_TRY(cudaStreamEndCapture(stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&replay_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }

  GraphKey key_;
  cudaGraphExec_t replay_ = nullptr;
#endif
};

}  // namespace dsa::cuda::DSA_PLACE
