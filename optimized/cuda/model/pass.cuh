// optimized/cuda/model/pass.cuh — one pass at work; the parts of optimized/cuda/model/forward.cpp.
//
// attention.cpp holds MLA and the indexer, forward.cpp the rest. Between upload and download the
// device runs kernels only, cuBLASLt's among them, so that a graph can replay them (graph.cuh).
#pragma once

#include <type_traits>

#include "optimized/cuda/model/forward.cuh"
#include "optimized/cuda/ops/elementwise.cuh"
#include "optimized/cuda/ops/linear.cuh"

namespace dsa::cuda::DSA_PLACE {

/// The same memory under another shape.
template <int To, class T, int From>
DeviceView<T, To> as(DeviceView<T, From> x, const Shape<To>& shape) {
  DeviceView<T, To> y{x.data, {}};
  for (std::size_t axis = 0; axis < To; ++axis) y.shape[axis] = shape[axis];
  return y;
}

template <class X, class Row>
struct Pass {
  const DeviceModel<X>& model;
  const Config& config;
  Stream stream;
  const CacheLayout<Row>& layout;
  std::vector<Segment<Row>> segments;
  DeviceView<Row* const, 1> pages;  // of all segments, one after the other
  Index longest;                    // rows of the longest cache, as far as its pages reach
  bool sees_all;                    // no token sees more than index_topk keys
  Inputs<HostMemory> host;          // what the device's copy is made from
  Buffers<X, Row> b;
  const Tap& tap;
  Index T;

  void body(LogitsOf) const;  // up to the first rows of logits
  void run_layer(Index l) const;
  void logits_of(Index begin, Index end) const;  // rows of h, into b.logits

  // attention.cpp
  void attention(Index l) const;  // y = what is added to x
  void queries(const DeviceAttention<X>&) const;
  void absorb(const DeviceAttention<X>&) const;
  void cache_latent(Index l, const DeviceAttention<X>&) const;
  void cache_index_key(Index l, const DeviceIndexer<X>&) const;
  DeviceView<const Row, 3> index_queries(const DeviceIndexer<X>&) const;
  void select(Index l) const;
  void attend(Index l) const;
  void project_heads(const DeviceAttention<X>&) const;

  void moe(Index l) const;
  void feed_forward(DeviceView<float, 2> y, const DeviceMlp<X>&) const;

  bool is_sparse() const { return config.indexer && config.use_sparse_attention; }
  const DeviceLayer<X>& layer(Index l) const { return model.layers[std::size_t(l)]; }
  Index result_rows(LogitsOf which) const {
    return which == LogitsOf::every_token ? T : Index(segments.size());
  }
  KeyRanges visible() const { return {b.in.begin, b.in.end}; }

  /// x as X: itself, or rounded into `narrow`.
  DeviceView<const X, 2> narrowed(DeviceView<X, 2> narrow, DeviceView<const float, 2> x) const {
    if constexpr (std::is_same_v<X, float>) {
      return x;
    } else {
      copy<X, float>(stream, narrow, 0, x, 0, x.shape[1]);
      return narrow;
    }
  }
  /// The last norm's output as X.
  DeviceView<const X, 2> h() const {
    if constexpr (std::is_same_v<X, float>)
      return b.h_wide;
    else
      return b.h;
  }
  /// h_wide and h = RMSNorm(x), rows of x.
  void norm(DeviceView<const float, 2> x, DeviceVector g) const;

  void linear(DeviceView<float, 2> y, DeviceView<const X, 2> x, const DeviceLinear<X>& w) const {
    cuda::DSA_PLACE::linear<X>(stream, y, x, w.weight, {}, w.bias);
  }
  /// The router and the indexer's head weights are computed in fp32 in every format.
  void linear_f32(DeviceView<float, 2> y, DeviceView<const float, 2> w) const {
    cuda::DSA_PLACE::linear<float>(stream, y, b.h_wide, w, {}, {});
  }

  void tell(const std::string& name, DeviceView<const float, 2> x) const;
  void tell(Index l, const char* name, DeviceView<const float, 2> x) const {
    tell(name_in(l, name), x);
  }
  /// `change` corrects the rows with what only the host knows.
  template <class F>
  void tell_decision(Index l, const char* name, DeviceView<const std::int32_t, 2> chosen,
                     F&& change) const {
    if (!tap.decision) return;
    Tensor<std::int32_t, 2> all({chosen.shape[0], chosen.shape[1]});
    download(stream, all.data(), chosen.data, all.size());
    wait(stream);
    change(all.view());
    tap.decision(name_in(l, name), all.view());
  }
  static std::string name_in(Index l, const char* name) {
    return "model.layers." + std::to_string(l) + name;
  }
};

}  // namespace dsa::cuda::DSA_PLACE
