// verify/limits/explain.hpp — which near-ties, flipped, explain logits beyond their limits.
//
// The sequence is replayed token by token through the caches. At the first row beyond its limit,
// the near-ties of that row are flipped: a chosen and a rejected key (or expert, or group) that
// rounding could have swapped are swapped. Every flip must lower the KL that remains, until the row
// lies within its limit. The replay keeps these flips for the rows that follow, so that later rows
// are compared on equal terms.
#pragma once

#include <string>
#include <vector>

#include "verify/limits/noise.hpp"

namespace dsa::verify {

/// A decision that was flipped: the keys that it gave up, and those it took instead.
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
  double expected = 0;  // decisions that rounding flips, by their margins: mean, and
  double most = 0;      // the most at alpha (Bernstein's inequality)
  bool plausible() const { return static_cast<double>(flips.size()) <= most; }
};

struct ExplainOptions {
  int trials_per_row = 2000;  // replays of one token; halved by every row that nothing explains
};

/// `definition` is run; `theirs` (T, V) are the judged logits; limits of rows and of margins.
Explanation explain(const Variant& definition, const Sequence&, const Tensor<double, 2>& theirs,
                    const Run& base, const Limits&, const IsFixed&, double alpha,
                    const ExplainOptions& = {});

}  // namespace dsa::verify
