// verify/measure/selection.hpp — a top-k judged as a decision.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::verify {

/// Which of equal scores is chosen: any, or the one with the lower subscript.
enum class Ties { free, lower_first };

/// The kinds of wrong rows, which have different causes.
enum class TopkFault {
  none,
  no_score,      // of the reference: NaN
  no_subscript,  // below 0, or no key at all
  duplicate,
  invisible,  // a later key, or one of another document
  count,      // fewer or more than min(K, visible)
  preference  // a key too weak, by more than the errors of the scores
};

/// One row of a top-k, judged.
struct TopkVerdict {
  /// How much of what their errors allow was needed to prefer the weakest chosen key to the
  /// strongest rejected one; above 1: no scores within their errors choose so. Infinite: not a
  /// selection at all.
  double ratio = 0;
  std::string why = {};  // what is wrong, one clause
  TopkFault fault = TopkFault::none;
  bool ok() const { return ratio <= 1; }
};

/// A selection is right if it has min(K, visible) different visible keys and some scores within
/// their error bounds would have chosen it: the weakest chosen key, raised by its bound, still
/// reaches the strongest rejected key, lowered by its own. Near-ties need no special case; of exact
/// scores (allowed 0) and Ties::lower_first only one set is right.
/// scores (S): -inf is invisible; allowed (S): the error each score may have.
TopkVerdict judge_topk(const std::vector<Index>& chosen, View<const double, 1> scores,
                       View<const double, 1> allowed, Index K, Ties);

/// judge_topk with free ties, yes or no.
bool is_explained(const std::vector<Index>& chosen, View<const double, 1> scores,
                  View<const double, 1> allowed, Index K);

/// min(K, visible) different visible keys: the shape of a right answer, whatever the scores.
bool is_wellformed(const std::vector<Index>& chosen, View<const double, 1> scores, Index K);

/// The weakest chosen score less the strongest rejected one. +inf where nothing was rejected.
double margin(View<const double, 1> scores, View<const Index, 1> chosen);

/// The subscripts of a row without the -1 at its end, in ascending order.
std::vector<Index> sorted_set(View<const Index, 1> chosen);

/// |a and b| / |a or b|; 1 for two empty sets. Both ascending.
double jaccard(const std::vector<Index>& a, const std::vector<Index>& b);

/// The first K keys of a row as torch.topk leaves them on a CPU (ATen, topk_impl_loop): equal
/// scores, and so masked keys, come in the order that a partial sort happens to make.
std::vector<Index> as_torch_orders(View<const double, 1> scores, Index K);

}  // namespace dsa::verify
