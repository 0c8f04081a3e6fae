// All families, in order of number; and what a reading makes of a batch.
#include <algorithm>

#include "verify/defects/gradients/defect.hpp"

namespace dsa::verify {
namespace {

GradientDefects in_order() {
  GradientDefects all;
  for (const auto family :
       {target_defects, reading_defects, kl_defects, teacher_defects, attached_teacher_defects,
        indexer_gradient_defects, attention_gradient_defects, attention_key_defects, module_defects,
        expert_defects, flow_defects}) {
    const GradientDefects part = family();
    all.insert(all.end(), part.begin(), part.end());
  }
  std::stable_sort(all.begin(), all.end(), [](const GradientDefect& a, const GradientDefect& b) {
    return a.number < b.number;
  });
  return all;
}

/// V3's alpha.
constexpr double balance_alpha = 1e-4;

}  // namespace

void read_as(GradientVariant& v, const KlSemantics& semantics) {
  std::vector<Sequence> seen;
  for (const Sequence& one : v.sequences) seen.push_back(seen_by(semantics, one));
  v.sequence = reference::join(seen);
  v.objective = {};
  v.objective.semantics = semantics;
  if (v.is("lm")) {
    v.objective.lm = reference::lm_objective<double>(v.sequence).lm;
  } else if (v.is("kl")) {
    v.objective.kl = reference::kl_weights<double>(semantics, v.sequence);
  } else if (v.is("mtp")) {
    v.objective.mtp = reference::mean_over_targets<double>(reference::targets_of(v.sequence, 2));
    v.objective.mtp.pop_back();
  } else if (v.is("balance")) {
    v.objective.balance = balance_alpha;
  } else {
    throw Error("there is no loss \"" + v.loss + "\"; choose lm, kl, mtp or balance");
  }
}

std::span<const GradientDefect> all_gradient_defects() {
  static const GradientDefects all = in_order();
  return all;
}

std::vector<GradientChange> changes_of(const GradientDefect& defect, const GradientVariant& right) {
  std::vector<GradientChange> changes = defect.variants;
  if (defect.more)
    for (GradientChange& change : defect.more(right)) changes.push_back(std::move(change));
  return changes;
}

}  // namespace dsa::verify
