// optimized/train/model/block.hpp — one transformer block, forward and backward.
//
// attention.cpp, attention_backward.cpp, indexer.cpp and moe.cpp hold its parts; definition: the
// files of these names in reference/model/.
#pragma once

#include "optimized/cpu/ops/expert_rows.hpp"
#include "optimized/cpu/ops/heads_attention.hpp"
#include "optimized/cpu/ops/index_kl.hpp"
#include "optimized/train/model/pass.hpp"

namespace dsa::train {

/// A block at work. What it makes lies in `a`, until the next block runs.
struct Block {
  const Pass& pass;
  const Layer& w;
  const Activations& a;
  const Kept& kept;
  View<const std::int32_t, 2> chosen;  // (Q, K)  its own selection, or the one it shares
  bool computes_index, is_moe;
  std::vector<Index>& expert_begin;  // (E+1)  rows of each expert, of the last routing

  /// x + attention, into kept.mid; selects.
  void attend(View<const float, 2> x) const;
  /// What the way back reads of attention, and is not kept.
  void attend_again(View<const float, 2> x) const;
  /// y = kept.mid + feed-forward; routes.
  void feed(View<float, 2> y) const;
  /// Sum over documents, of the routing that feed() made.
  double balance() const;

  /// Sum over rows of the indexer's loss. Adds what the indexer learns, where it is trained; where
  /// the loss does not end there and `through`, adds gradients to a.d_h and a.d_c_q.
  double indexer_loss(bool through) const;

  /// After attend(x) or attend_again(x). d_x: gradient of the output, on return of the input.
  /// Returns indexer_loss(true), where that does not end at the indexer.
  double backward(View<float, 2> d_x, View<const float, 2> x) const;

  cpu::IndexIn index_in(const Run&) const;
  cpu::Teacher teacher(View<const float, 2> lse, const Run& run) const {
    return {own(a.q, run), seen(a.k, run), own(lse, run), pass.config.attention_scale()};
  }

 private:
  using KeySet = KlSemantics::Keys;
  Index rows() const { return pass.rows(); }
  KeySet attended() const { return pass.sparse() ? KeySet::chosen : KeySet::visible; }

  void make_heads(View<const float, 2> x) const;    // a.q, a.k, a.v
  void attend_heads(View<const float, 2> x) const;  // kept.heads, kept.mid
  void queries() const;
  void keys() const;
  cpu::HeadsIn heads_in(const Run& run) const {
    return {own(a.q, run), seen(a.k, run), seen(a.v, run), pass.begin,
            pass.config.attention_scale()};
  }
  /// f(run, is_last) for all runs, the last one first: it sees the most keys.
  template <class F>
  void for_runs_back(F f) const {
    const std::vector<Run>& runs = pass.context.runs();
    for (auto run = runs.rbegin(); run != runs.rend(); ++run) f(*run, run == runs.rbegin());
  }
  /// Between own rows and all of them, where these are two arrays.
  void put_own(View<float, 2> all, View<const float, 2> mine) const;
  void take_own(View<float, 2> mine, View<const float, 2> all) const;
  /// The log of each head's sum over other keys than attention has.
  View<const float, 2> lse_over(KeySet) const;

  void select() const;  // kept.chosen
  void index_projections() const;
  void rotate_index(View<float, 3> x, bool back) const;
  void round_index(View<float, 2> x) const;
  void index_norm() const;
  void index_norm_backward() const;
  bool indexer_learns() const;
  void indexer_backward(bool through) const;

  double attention_backward(View<const float, 2> d_y) const;  // into a.d_h
  void heads_backward() const;
  void keys_backward() const;
  void queries_backward() const;

  View<const float, 1> correction_bias() const;
  cpu::ExpertRows sorted() const;
  Networks experts() const { return {w.moe.experts, expert_begin}; }
  void moe(View<float, 2> y) const;
  void moe_backward(View<const float, 2> d_y) const;  // into a.d_g
  void router_backward() const;
};

}  // namespace dsa::train
