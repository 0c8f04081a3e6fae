// reference/model/backward.hpp — the whole model backwards: every gradient of every loss.
//
// Layer by layer, last to first. The forward pass keeps each layer's input and selection only; a
// layer is run again when its turn comes, so memory holds one layer's activations. Gradients are
// handed out tensor by tensor, and forgotten.
//
// Constants to a loss ("detached"): every decision (selections, routing), the indexer's teacher,
// and the indexer's inputs as KlSemantics says. So the language-model loss gives the indexer
// nothing, and by default the KL gives everything else nothing: those gradients are handed out as
// exact zeros.
//
// A batch is one sequence of several documents: join(). Padding is document -1.
#pragma once

#include "reference/model/backward_ops.hpp"
#include "reference/model/forward.hpp"

namespace dsa::reference {

/// What is asked of a sequence of T tokens. Weights are a share of the whole batch's mean or sum:
/// see mean_over_targets() and kl_weights().
template <class Real>
struct Objective {
  std::vector<Real> lm;   // (T)    of each row's cross entropy with its target; empty: no loss
  std::vector<Real> mtp;  // (T-1)  of the first prediction block's rows
  std::vector<Real> kl;   // (T)    of each row's KL in every layer that computes an index
  Real balance = 0;       // alpha of the sequence-wise balance loss, in every layer of experts
  KlSemantics semantics = {};
  std::vector<Token> lm_targets = {};   // (T)    empty: the next token of each row
  std::vector<Token> mtp_targets = {};  // (T-1)  empty: the token two places ahead
};

/// Means over a sequence: of the next token, and of the indexer's KL by `semantics`.
template <class Real>
Objective<Real> lm_objective(const Sequence&);
template <class Real>
Objective<Real> kl_objective(const Sequence&, const KlSemantics& semantics = {});

/// Several sequences one after the other, each a document of its own (packed ones: several);
/// padding stays padding.
Sequence join(const std::vector<Sequence>&);

template <class Real>
struct Losses {
  Real lm = 0, mtp = 0, balance = 0;
  Real kl = 0;                  // kl_layers, reduced as the semantics say
  std::vector<Real> kl_layers;  // one a layer that computes an index
  Real total() const { return lm + mtp + balance + kl; }
};

/// The losses alone, for finite differences and duals. Constants to a loss carry no tangent.
template <class Real>
Losses<Real> losses(const Pass<Real>&, const Sequence&, const Objective<Real>&);

/// Who receives gradients: (name of the parameter, (rows, columns); a vector is (n, 1)).
template <class Real>
using Gradients = std::function<void(const std::string& name, View<const Real, 2> gradient)>;

/// Gradient of the loss with respect to the output that a trace calls `name`, as (T, width), in
/// order of execution. It may be written to: the rest of the pass sees what is left there.
template <class Real>
using BackwardTap = std::function<void(const std::string& name, View<Real, 2> d_output)>;

/// The pass's tap sees each layer, and the head, twice: in the forward pass, and when run again.
template <class Real>
struct BackwardPass {
  const Pass<Real>& forward;
  const BackwardOps<Real>& ops;
  const Sequence& sequence;
  const Objective<Real>& objective;
  Gradients<Real> give;
  BackwardTap<Real> tap = {};
};

/// Gradients of all losses of the objective, summed. Every parameter of the config is handed out
/// once, zeros included; only the router's correction bias, which has no gradient, is not.
template <class Real>
Losses<Real> backward(const BackwardPass<Real>&);

/// Blocks [begin, end) only: x (T, C) is their input, d_x the gradient of their output and on
/// return of their input. Hands out the parameters of these blocks; KL and balance included.
template <class Real>
Losses<Real> backward_layers(const BackwardPass<Real>&, const Tensor<Real, 2>& x,
                             Tensor<Real, 2>& d_x, Index begin, Index end);

}  // namespace dsa::reference
