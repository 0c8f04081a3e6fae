#include "verify/diagnose/lower_precision.hpp"

#include <limits>

#include "verify/judge/against_definition.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// Widest first.
struct Choice {
  Precision precision;
  const char *words, *cure;
};
constexpr Choice choices[] = {
    {Precision::hf_fp32, "fp32", "judge it with --precision hf-fp32"},
    {Precision::llama_f16, "f16 caches and f16 sums within float32, as llama.cpp does",
     "judge it with --precision llama-f16"},
    {Precision::hf_bf16, "bf16, stored in a wider format", "judge it with --precision hf-bf16"},
};

int width(Precision precision) {
  for (int i = 0; i < static_cast<int>(std::size(choices)); ++i)
    if (choices[i].precision == precision) return i;
  return precision == Precision::fp64 ? -1 : static_cast<int>(std::size(choices));
}

/// Of the mean KL of decided rows: the candidate's over that of runs of the precision.
double ratio_of(const SideResult& result) {
  if (!result.judgement.logits) return std::numeric_limits<double>::quiet_NaN();
  double theirs = 0, expected = 0;
  for (const RowResult& row : result.judgement.logits->rows) {
    if (!row.decided()) continue;
    theirs += row.kl;
    expected += result.sequences[static_cast<std::size_t>(row.at.sequence)]
                    .limits.kl_origin.mean[static_cast<std::size_t>(row.at.position)];
  }
  return theirs / expected;
}

}  // namespace

std::optional<LowerPrecision> lower_precision(const Model& stored, const Recording& side,
                                              Precision judged, const JudgeOptions& options) {
  constexpr double of_its_size = 8;
  JudgeOptions quiet = options;
  quiet.progress = nullptr;
  for (const Choice& choice : choices) {
    if (width(choice.precision) <= width(judged)) continue;
    const ModelPair models = open_models(stored, choice.precision);
    if (!models.in_memory) return std::nullopt;
    const SideResult result = hold_against_definition(models, side, "candidate", quiet);
    if (result.judgement.outcome != Outcome::pass) continue;
    const double ratio = ratio_of(result);
    if (ratio < 1 / of_its_size || ratio > of_its_size) continue;
    return LowerPrecision{choice.precision, ratio, choice.words, choice.cure};
  }
  return std::nullopt;
}

}  // namespace dsa::verify
