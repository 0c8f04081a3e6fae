// verify/diagnose/evidence.hpp — whether a variant that leaves nothing beyond its noise explains
// anything.
//
// Under some variants almost any selection is right: where all scores tie, no selection lies beyond
// the noise. Such a variant passes whatever the candidate chose, and so its passing is no evidence.
#pragma once

#include <string>

#include "verify/judge/against_definition.hpp"

namespace dsa::verify {

/// The rows of logits and of traced decisions that the definition rejects, under a variant.
struct Evidence {
  Index differing = 0;  // rows that the definition rejects
  Index open = 0;       // of these, rows that the variant would accept with almost any content
  double allowed = 0;   // open rows that the precision's noise leaves under the right variant

  /// Of differing rows of decisions: keys that are not the variant's own, and how many there would
  /// be on average if the candidate had drawn at random among those that the variant's noise
  /// admits.
  double swaps = 0, swaps_by_chance = 0;

  double distance_before = 0, distance_after = 0;  // of the candidate, from either

  /// Why it is none: "24 of the 24 differing rows could have held almost anything under it"; empty
  /// where it is some.
  std::string why_none() const;
};

/// `plain`: the candidate against the definition; `broken`: against the variant, which passed.
///
/// Where a variant's noise is wide (under it many scores tie), what it accepts may still be far
/// from it: then most of the distance remains, or the keys are as if drawn at random.
///
/// A row of logits is open where the variant reaches it only by turning decisions. A row of a
/// decision is open where the candidate's choice is not the variant's own and the variant's noise
/// admits more than the square root of all possible choices; a trace of the scores themselves
/// settles it. The noise of the precision leaves such rows under the definition, too: their share
/// among all rows, with three standard deviations of a binomial count, is allowed.
/// The distances are the caller's to set.
Evidence weigh(const ModelPair& models, const SideResult& plain, const ModelPair& variant,
               const SideResult& broken, const Recording& side);

/// ln(choices within the noise) / ln(all choices) of one row of a top-k: 0 where the scores decide,
/// 1 where any choice would do.
double openness(View<const double, 1> scores, View<const double, 1> allowed, Index K);

/// The first position at which something of the side lies beyond the limits of the definition; -1
/// if nothing does.
Index first_difference(const SideResult& plain, const ModelPair& models, const Recording& side);

}  // namespace dsa::verify
