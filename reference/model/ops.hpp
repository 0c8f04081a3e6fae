// reference/model/ops.hpp — the table of ops that a forward pass runs.
//
// definition() fills it with the reference. A precision (reference/precision/precision.hpp) or a
// known defect is the same table with some rows replaced; forward never knows. Every op is told the
// name under which its result is traced.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "core/recording.hpp"
#include "core/weights.hpp"
#include "reference/ops/index_kl.hpp"
#include "reference/ops/losses.hpp"
#include "reference/ops/visibility.hpp"

namespace dsa::reference {

template <class Real>
struct Ops {
  using Name = const std::string&;
  using In = View<const Real, 2>;
  using Out = View<Real, 2>;
  template <class... Arguments>
  using Op = std::function<void(Name, Arguments...)>;
  template <class... Arguments>
  using Loss = std::function<Real(Name, Arguments...)>;

  Op<Out, std::span<const Token>, const Parameter&> embed;  // x (T, C); rows of embed_tokens
  Op<Out, In, const Linear&> linear;                        // y (T, out), x (T, in)
  Op<Out, In, const Parameter&, double> rmsnorm;            // y, x (T, C), g, eps
  Op<Out, In, const IndexerWeights&, const Indexer&> index_key_norm;  // y, x (T, D)
  Op<Out, In, const Linear&> index_head_weights;                      // w (T, H), x (T, C)
  Op<Out, Out, std::span<const Index>, const Rope&> rope_table;       // cos, sin (T, P/2)
  Op<View<Real, 3>, In, In, RopeLayout> rope;                         // x (T, heads, P), cos, sin
  Op<Out> cache;                                                      // what a cache keeps of x: x
  Op<Out, View<const Real, 3>, In, In, const Indexer&, const Visibility&> indexer_scores;
  Op<View<Index, 2>, In> topk_select;  // chosen (T, K), scores (T, S)
  Op<View<Real, 3>, View<const Real, 3>, View<const Real, 3>, View<const Real, 3>, In,
     View<const Index, 2>, double>
      mla_expanded;
  Op<View<Real, 3>, View<const Real, 3>, View<const Real, 3>, In, In, const Linear&,
     View<const Index, 2>, double>
      mla_absorbed;
  Op<Out, In, const Linear&> router_logits;         // z (T, E), x (T, C)
  Op<Out, In, Router::Scoring> router_scores;       // s, z (T, E)
  Op<Out, In, const Parameter&> router_choice;      // choice, s (T, E), bias (E) or absent
  Op<Out, In, Router::Groups> router_group_scores;  // (T, G), choice (T, E)
  Op<Out, In, View<const Index, 2>, bool, double> router_weights;
  Op<Out, In, In> swiglu;  // h = silu(gate) * up, all (T, F)
  Op<Out, In, std::span<const Index>, std::span<const Real>> accumulate;  // y[row[i]] += w[i] x[i]
  Op<Out, In> add;                                                        // y += x

  // What a model is trained on.
  Loss<In, std::span<const Token>, std::span<const Real>>
      cross_entropy;  // logits, targets, weights
  Op<Out, const MlaExpandedInputs<Real>&, View<const Index, 2>>
      attention_mass;  // u (T, S), of the indexer's teacher; attention, keys that are kept
  Loss<const KlInputs<Real>&, std::span<const Real>, const KlSemantics&> index_kl;
  Loss<const BalanceInputs<Real>&, Real> balance_loss;
};

template <class Real>
Ops<Real> definition();

}  // namespace dsa::reference
