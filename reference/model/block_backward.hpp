// reference/model/block_backward.hpp — one transformer block backwards; the parts of
// reference/model/backward.cpp.
//
// rerun.cpp runs the block again and keeps what its backward reads; attention_backward.cpp and
// moe_backward.cpp mirror attention.cpp and moe.cpp. Nothing outside reference/ includes this file.
#pragma once

#include <map>
#include <string>

#include "reference/model/backward.hpp"
#include "reference/model/block.hpp"

namespace dsa::reference {

/// Where a block stands.
struct Site {
  const Layer& weights;
  std::string at;  // "model.layers.3."
  bool computes_index, is_moe;
};

/// A block from its input to the end of its attention, and everything on the way that a backward
/// reads. Its pass records.
template <class Real>
class Rerun {
 public:
  /// x (T, C): the block's input. chosen: the selection it shares, where it does not compute one.
  Rerun(const Pass<Real>&, const Site&, const Sequence&, const Angles<Real>&,
        const Tensor<Real, 2>& x, Tensor<Index, 2> chosen);
  Rerun(const Rerun&) = delete;
  Rerun& operator=(const Rerun&) = delete;

  /// The intermediate of that name in this block: "self_attn.q_b_proj".
  const Tensor<Real, 2>& operator[](const std::string& name) const;
  const Tensor<Index, 2>& decided(const std::string& name) const;
  bool has(const std::string& name) const { return seen_.contains(block.at + name); }

  /// The keys of main attention, and those of a KlSemantics.
  Tensor<Index, 2> attended() const;
  Tensor<Index, 2> keys(KlSemantics::Keys) const;

 private:
  Tap<Real> recording(const Tap<Real>& told);
  std::map<std::string, Tensor<Real, 2>> seen_;
  std::map<std::string, Tensor<Index, 2>> decided_;
  LayerCache<Real> cache_;
  Pass<Real> pass_;

 public:
  const Site site;
  const Sequence& sequence;
  const Block<Real> block;
  const Tensor<Real, 2>& x;  // (T, C)  the input
  Tensor<Index, 2> chosen;   // (T, K)
  Tensor<Real, 2> mid;       // (T, C)  x + attention: what the feed-forward network reads
};

/// Views of a block's attention, as the ops take them.
template <class Real>
struct AttentionParts {
  Tensor<Real, 2> q_nope, q_rope, kv, c_kv, k_rope;
  Tensor<Index, 2> keys;
  MlaExpandedInputs<Real> expanded(const Config&, View<const Index, 2> keys) const;

  explicit AttentionParts(const Rerun<Real>&);
};

/// What the KL of one layer reads: teacher and student.
template <class Real>
struct KlSetup {
  Tensor<Real, 2> u;       // (T, S)  a constant
  Tensor<Real, 2> scores;  // (T, S)
  Tensor<Index, 2> keys;   // (T, K)  the student's
  Real scale = 1;

  KlSetup(const Rerun<Real>&, const AttentionParts<Real>&, const KlSemantics&);
  KlInputs<Real> inputs() const { return {scores, u, keys, scale}; }
};

/// Routing scores of a block of experts.
template <class Real>
Tensor<Real, 2> router_scores_of(const Rerun<Real>&);

template <class Real>
struct BlockBackward {
  const BackwardPass<Real>& pass;
  const Rerun<Real>& run;
  const Block<Real>& block = run.block;

  void traced(const std::string& name, Tensor<Real, 2>& d_output) const {
    if (pass.tap) pass.tap(block.at + name, d_output);
  }
  void give(const std::string& name, const Tensor<Real, 2>& gradient) const {
    pass.give(block.at + name, gradient);
  }
  void give(const std::string& name, const Tensor<Real, 1>& gradient) const {
    pass.give(block.at + name, {gradient.data(), {gradient.size(), 1}});
  }

  /// Adds to d_x what comes back through a linear module, and hands out its gradients.
  void linear(const typename BackwardOps<Real>::LinearOp&, const std::string& name,
              View<Real, 2> d_x, View<const Real, 2> x, const Linear& w,
              Tensor<Real, 2>& d_y) const;
  void rmsnorm(const std::string& name, Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x,
               const Parameter& g, double eps, Tensor<Real, 2>& d_y) const;

  /// The indexer's share of d_h and d_c_q, where its inputs are not detached.
  struct IndexerInputs {
    View<Real, 2> d_h, d_c_q;  // without data: detached
  };
  void unrotate(const std::string& name, Tensor<Real, 2>& d_x, Index heads) const;
  void indexer(IndexerInputs, Tensor<Real, 2>& d_scores) const;
  void kl(IndexerInputs, const AttentionParts<Real>&) const;
  void queries(Tensor<Real, 2>& d_h, Tensor<Real, 2>& d_c_q, Tensor<Real, 2>& d_q) const;
  /// d_c_kv, d_k_rope and the returned gradient of the queries, from that of the heads' outputs.
  Tensor<Real, 2> heads(const AttentionParts<Real>&, const Tensor<Real, 2>& d_heads,
                        Tensor<Real, 2>& d_c_kv, Tensor<Real, 2>& d_k_rope) const;
  Tensor<Real, 2> attention(Tensor<Real, 2>& d_y) const;  // returns d_h

  void feed_forward(const std::string& name, Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x,
                    const Mlp& w, Tensor<Real, 2>& d_y) const;
  void router(Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x, const Routing<Real>&,
              Tensor<Real, 2>& d_weights) const;
  void expert(Index e, Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x, const Routing<Real>&,
              Tensor<Real, 2>& d_weights, const Tensor<Real, 2>& d_y) const;
  Tensor<Real, 2> moe(const Tensor<Real, 2>& x, Tensor<Real, 2>& d_y) const;  // returns d_x

  /// From the gradient of the block's output to that of its input, in place.
  void layer(Tensor<Real, 2>& d_x) const;
  /// The KL alone, which ends at the indexer.
  void kl_only() const;
};

}  // namespace dsa::reference
