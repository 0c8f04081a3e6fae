// verify/measure/selection.hpp — a top-k judged as a decision.
#pragma once

#include <vector>

#include "core/tensor.hpp"

namespace dsa::verify {

/// A selection is right if it has min(K, visible) different keys and some scores within their
/// error bounds would have chosen it: the weakest chosen key, raised by its bound, still reaches
/// the strongest rejected key, lowered by its own. Ties and near-ties need no special case.
/// scores (S): -inf is invisible; allowed (S): the error each score may have.
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

}  // namespace dsa::verify
