// reference/model/backward_ops.hpp — the table of ops that a backward pass runs; reference/model/
// ops.hpp backwards.
//
// backward_definition() fills it with the reference. A precision or a known defect of somebody's
// training is the same table with some rows replaced. Every op is told the name of the module whose
// backward it is. Every op adds to its outputs, of which some may be without data: not wanted.
#pragma once

#include "reference/model/ops.hpp"
#include "reference/ops/accumulate.hpp"
#include "reference/ops/index_kl.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "reference/ops/linear.hpp"
#include "reference/ops/losses.hpp"
#include "reference/ops/mla.hpp"
#include "reference/ops/norms.hpp"

namespace dsa::reference {

/// What a module's output has to do with its weights and inputs, backwards: each row takes the
/// gradient of the module's output last.
template <class Real>
struct BackwardOps {
  using Name = const std::string&;
  using In = View<const Real, 2>;
  using Out = View<Real, 2>;
  template <class... Arguments>
  using Op = std::function<void(Name, Arguments...)>;
  /// d_x (T, in), gradient of W and b, x (T, in), W, d_y (T, out)
  using LinearOp = Op<Out, LinearGradient<Real>, In, const Linear&, In>;

  Op<Out, std::span<const Token>, In> embed;  // d_table (V, C), tokens, d_x (T, C)
  LinearOp linear;
  Op<Out, View<Real, 1>, In, const Parameter&, In, double> rmsnorm;  // d_x, d_g, x, g, d_y, eps
  Op<Out, LayernormGradient<Real>, In, const IndexerWeights&, const Indexer&, In>
      index_key_norm;  // d_x, d_g and d_b, x, weights, indexer, d_y
  LinearOp index_head_weights;
  Op<View<Real, 3>, In, In, RopeLayout> rope;  // d_x (T, heads, P) in and out, cos, sin
  Op<IndexerScoresGradient<Real>, const IndexerScoresInputs<Real>&, In, const Indexer&,
     const Visibility&>
      indexer_scores;
  Op<const MlaExpandedGradient<Real>&, const MlaExpandedInputs<Real>&, View<const Real, 3>>
      mla_expanded;
  Op<const MlaAbsorbedGradient<Real>&, const MlaAbsorbedInputs<Real>&, View<const Real, 3>>
      mla_absorbed;
  LinearOp router_logits;
  Op<Out, In, In, Router::Scoring> router_scores;  // d_z, s, d_s (T, E)
  Op<Out, In, View<const Index, 2>, In, bool, double>
      router_weights;               // d_s, s (T, E), experts, d_weights, normalise, scale
  Op<Out, Out, In, In, In> swiglu;  // d_gate, d_up, gate, up, d_h (T, F)
  Op<AccumulateGradient<Real>, In, std::span<const Index>, std::span<const Real>, In> accumulate;
  Op<Out, In> add;  // d_x, d_y
  Op<Out, In, std::span<const Token>, std::span<const Real>> cross_entropy;
  Op<Out, const KlInputs<Real>&, std::span<const Real>, const KlSemantics&> index_kl;
  Op<Out, const BalanceInputs<Real>&, Real> balance_loss;
};

template <class Real>
BackwardOps<Real> backward_definition();

}  // namespace dsa::reference
