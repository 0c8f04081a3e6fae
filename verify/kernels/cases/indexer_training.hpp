// verify/kernels/cases/indexer_training.hpp — the indexer over packed documents, and the gradient
// of its scores: what indexer_scores_backward and indexer_kl_backward share.
#pragma once

#include "core/config.hpp"
#include "verify/kernels/cases/packed.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {

struct TrainedIndexPlan {
  Lengths documents;
  Index H, D, K;  // K 0: no keys are chosen
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};
  bool relu = true, uniform = false, holes = false;  // uniform: every weight is 1, w is absent

  double pairs() const { return pairs_of(documents, K); }
};

/// Inputs q (T,H,D), k (T,D), w (T,H), begin (T), chosen (T,K); scalars dot_scale, weight_scale,
/// relu.
class TrainedIndex {
 public:
  TrainedIndex(Case&, Draw&, const TrainedIndexPlan&);

  /// sum_h b w act( c q.k ).
  Rounded score(Index t, Index s) const;
  /// The scores of every visible key, -inf elsewhere: (T, T).
  Tensor<double, 2> scores() const;

  /// d_q, d_k and, where there are weights, d_w: from the gradient of the scores (T, T), which may
  /// be wrong by `error`.
  void set_gradient(Case&, const Tensor<double, 2>& d_scores, const Tensor<double, 2>& error) const;

 private:
  /// c q.k of a head.
  Rounded dot(Index t, Index h, Index s) const;

  Indexer indexer_;
  std::vector<Index> documents_;
  Tensor<double, 3> q_;
  Tensor<double, 2> k_, w_;
  bool uniform_;
};

}  // namespace dsa::verify::kernels
