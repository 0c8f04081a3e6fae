// verify/defects/gradients/parts.hpp — what the families of training defects share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "reference/ops/index_kl.hpp"
#include "verify/defects/alter.hpp"
#include "verify/defects/gradients/defect.hpp"

namespace dsa::verify {

/// Where a defect can occur.
using Applies = std::function<bool(const GradientVariant&)>;

inline bool of_lm(const GradientVariant& v) { return v.is("lm"); }
inline bool of_kl(const GradientVariant& v) { return v.is("kl"); }
/// A loss whose gradient flows through the whole model.
inline bool of_trunk(const GradientVariant& v) { return !v.is("kl"); }
inline bool any_loss(const GradientVariant&) { return true; }
inline bool has_experts(const GradientVariant& v) {
  return of_trunk(v) && has_router(v.model.config);
}
bool has_padding(const GradientVariant&);
/// Sequences that count unlike many tokens.
bool is_ragged(const GradientVariant&);
/// Every visible key is chosen, though the checkpoint's index_topk would choose fewer.
bool is_dense_stage(const GradientVariant&);

inline Applies both(Applies a, Applies b) {
  return [=](const GradientVariant& v) { return a(v) && b(v); };
}

/// The rows of each sequence in the joined batch: [first, first + its size).
std::vector<std::pair<Index, Index>> spans_of(const GradientVariant&);

/// Every key of the same document that is not later; -1 fills the rows. (T, T)
Tensor<Index, 2> all_visible(std::span<const Index> documents);

/// One row of the indexer's loss, key by key of the student.
struct KlRow {
  Index t;
  std::vector<Index> keys;
  std::vector<double> u;        // attention mass, not normalised
  std::vector<double> p, z, q;  // teacher; the student's logits, and their softmax
  double mass;                  // sum of u over all keys
};
/// Loss of a row of weight 1; writes its gradient with respect to z.
using RowLoss = std::function<double(const KlRow&, std::vector<double>& d_z)>;
void replace_kl(GradientVariant&, RowLoss);
/// The gradient alone: a backward pass that does not follow its forward.
void replace_kl_gradient(GradientVariant&, RowLoss);

/// Adds to every output of a row what another row computed for it, times a factor each.
template <int Rank>
void add_times(View<double, Rank> to, double factor, const Tensor<double, Rank>& from) {
  for (Index i = 0; i < to.size(); ++i) to.data[i] += factor * from.data()[i];
}

/// One head's softmax over `keys` at query t.
std::vector<double> head_attention(const reference::MlaExpandedInputs<double>&, Index t, Index n,
                                   const std::vector<Index>& keys);

/// How the scores' gradient comes from the probabilities'.
struct AttentionRow {
  Index t, n;
  const std::vector<Index>& keys;
  const std::vector<double>& p;    // softmax
  const std::vector<double>& d_p;  // d_out . v
  const double* d_out;             // (U)
  const double* out;               // (U)  the head's answer
  Index U;
};
using ScoresRule = std::function<std::vector<double>(const AttentionRow&)>;
struct AttentionRules {
  ScoresRule d_z;                // p ( d_p - delta ), if empty
  bool overwrites_keys = false;  // a key keeps what the last query gives it
};
/// reference/ops/mla.hpp, mla_expanded_backward, by these rules.
void attention_backward(const reference::MlaExpandedGradient<double>&,
                        const reference::MlaExpandedInputs<double>&, View<const double, 3> d_out,
                        const AttentionRules&);

}  // namespace dsa::verify
