// optimized/cpu/model/pass.hpp — one pass at work; the parts of optimized/cpu/model/forward.cpp.
//
// attention.cpp holds MLA and the indexer, forward.cpp the rest.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/views.hpp"
#include "optimized/cpu/model/forward.hpp"
#include "optimized/cpu/ops/quantise.hpp"
#include "optimized/shared/key_range.hpp"

namespace dsa::cpu {

/// The rows of the pass that one feed has.
struct Segment {
  Cache* cache = nullptr;
  Index begin = 0, end = 0;  // rows of the pass
  Index first = 0;           // rows of the cache before them
  bool sees_all = true;      // no token sees more than index_topk keys
  bool expanded = false;     // attends in expanded form

  Index keys() const { return first + end - begin; }
};

template <class X, class Row>
struct Pass {
  const PackedModel& model;
  const Config& config;
  std::span<const Feed> feeds;
  const Tap& tap;
  Index T;
  Buffers<X, Row> b;
  std::vector<Segment> segments = {};  // one a feed

  void prepare();
  void run_layer(Index l) const;
  void head(LogitsOf, View<float, 2> logits) const;

  // attention.cpp
  void attention(Index l) const;  // y = what is added to x
  void queries(const PackedAttention&) const;
  void absorb(const PackedAttention&) const;
  void linear_heads(Strided<X> y, Index y_width, Index out, Strided<const X> x, Index x_width,
                    const std::vector<Matrix>&) const;
  bool expands(const Segment&) const;
  void cache_latent(Index l, const PackedAttention&) const;
  void cache_index_key(Index l, const PackedIndexer&) const;
  View<const Row, 3> index_queries(const PackedIndexer&) const;
  void select(Index l) const;
  void choose_all(const Segment&) const;
  void attend(Index l) const;
  void project_heads(const PackedAttention&) const;

  void moe(Index l) const;

  /// f(begin, end) for every longest run of rows that attend in one form.
  template <class F>
  void for_each_run(bool expanded, F&& f) const {
    Index begin = 0, end = 0;
    for (const Segment& s : segments) {
      if (s.expanded == expanded) {
        end = s.end;
        continue;
      }
      if (begin < end) f(begin, end);
      begin = end = s.end;
    }
    if (begin < end) f(begin, end);
  }

  bool is_sparse() const { return config.indexer && config.use_sparse_attention; }
  Cpu cpu() const { return model.cpu; }
  const PackedLayer& layer(Index l) const { return model.layers[static_cast<std::size_t>(l)]; }
  KeyRanges visible(const Segment& s) const {
    return {rows(b.begin, s.begin, s.end), rows(b.end, s.begin, s.end)};
  }

  /// x as X: itself, or rounded into `narrow`.
  View<const X, 2> narrowed(View<X, 2> narrow, View<const float, 2> x) const {
    if constexpr (std::is_same_v<X, float>) {
      return x;
    } else {
      to_bf16(cpu(), narrow, x);
      return narrow;
    }
  }
  /// The queries as X, (T, N*(B+P)).
  View<const X, 2> q() const {
    if constexpr (std::is_same_v<X, float>)
      return b.q;
    else
      return b.q_x;
  }
  /// The output of mla_expanded: the heads, before they are rounded to X.
  View<float, 3> values() const {
    if constexpr (std::is_same_v<X, float>)
      return as<3>(b.heads, {T, config.num_attention_heads, config.v_head_dim});
    else
      return b.values;
  }
  /// The last norm's output as X.
  View<const X, 2> h() const {
    if constexpr (std::is_same_v<X, float>)
      return b.h_wide;
    else
      return b.h;
  }
  /// h_wide and h = RMSNorm(x).
  void norm(Index l, const char* name, const Tensor<float, 1>& g) const;

  template <class Y>
  void linear(Strided<Y> y, Strided<const X> x, const PackedLinear& w) const {
    cpu::linear<Y, X>(cpu(), y, x, w.weight, w.bias, b.scratch);
  }
  template <class Y, class XView>
  void linear(View<Y, 2> y, XView x, const PackedLinear& w) const {
    linear<Y>(Strided<Y>(y), Strided<const X>(View<const X, 2>(x)), w);
  }

  void tell(Index l, const char* name, View<const float, 2> x) const {
    if (tap.tensor) tap.tensor(name_in(l, name), x);
  }
  void tell_decision(Index l, const char* name, View<const std::int32_t, 2> chosen) const {
    if (tap.decision) tap.decision(name_in(l, name), chosen);
  }
  static std::string name_in(Index l, const char* name) {
    return "model.layers." + std::to_string(l) + name;
  }
};

}  // namespace dsa::cpu
