// verify/limits/explain.hpp — which decisions, turned within the noise, explain somebody's logits.
//
// The sequence is replayed token by token through the caches. At the first row that lies beyond its
// limit, the row's own decisions whose margin lies within the noise are turned, by swapping a
// chosen and a rejected key (or expert, or group) that rounding could have swapped: downhill in the
// KL that remains, until the row lies within its limit. What is found is kept, and the replay
// goes on from there, so that later rows are compared on equal terms.
#pragma once

#include <string>
#include <vector>

#include "verify/limits/noise.hpp"

namespace dsa::verify {

/// A decision that was turned: what it would have chosen, and what it was made to choose instead.
struct Flip {
  std::string name;
  Index position = -1;
  std::vector<Index> without, with;  // keys given up, keys taken
  double margin = 0;                 // the largest gap between a pair that was swapped
  double noise = 0;                  // the largest gap that rounding may close
};

struct Explanation {
  std::vector<bool> explained;  // (T): within the limit once the flips so far are replayed
  std::vector<double> kl;       // (T): what remains of the row's KL under the flips
  std::vector<Flip> flips;
  double expected = 0;  // decisions that rounding turns, by their margins: mean, and
  double most = 0;      // the most at alpha (Bernstein's inequality)
  bool plausible() const { return static_cast<double>(flips.size()) <= most; }
};

struct ExplainOptions {
  int trials_per_row = 2000;  // replays of one token; halved by every row that nothing explains
};

/// `definition` runs; `theirs` (T, V); limits of the rows and of the margins.
Explanation explain(const Variant& definition, const Sequence&, const Tensor<double, 2>& theirs,
                    const Run& base, const Limits&, const IsFixed&, double alpha,
                    const ExplainOptions& = {});

}  // namespace dsa::verify
