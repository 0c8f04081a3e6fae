#include "verify/diagnose/lower_precision.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/judge/against_definition.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// Widest first.
struct Choice {
  Precision precision;
  std::optional<Dtype> format;  // that all its results are rounded to
  const char* words;
};
constexpr Choice choices[] = {
    {Precision::hf_fp32, Dtype::f32, "fp32, stored in a wider format"},
    {Precision::llama_f16, std::nullopt,
     "f16 caches and f16 sums within float32, as llama.cpp does"},
    {Precision::hf_tf32, std::nullopt,
     "TF32: inputs of matrix products with 10 bits of fraction, as "
     "torch.backends.cuda.matmul.allow_tf32 has them"},
    {Precision::hf_fp16, Dtype::f16,
     "fp16, its products summed in fp16 perhaps, as "
     "torch.backends.cuda.matmul.allow_fp16_accumulation has them"},
    {Precision::hf_bf16, Dtype::bf16, "bf16, stored in a wider format"},
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

template <class Values>
bool all_in(Dtype format, const Values& values) {
  return std::all_of(values.begin(), values.end(),
                     [format](double x) { return !std::isfinite(x) || round_to(format, x) == x; });
}

/// The logits, or without any more than half of the traced tensors, hold nothing but numbers of
/// the format. (A run in bf16 keeps its router and its index scores in float32.)
bool is_stored_from(Dtype format, const Recording& side) {
  if (!side.logits.empty())
    return std::all_of(side.logits.begin(), side.logits.end(),
                       [format](const Tensor<double, 2>& x) { return all_in(format, x); });
  int tensors = 0, narrow = 0;
  for (const Trace::Entry& entry : side.trace.entries()) {
    if (entry.dtype != Dtype::f64 && entry.dtype != Dtype::f32) continue;
    ++tensors;
    narrow += all_in(format, entry.values());
  }
  return 2 * narrow > tensors;
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
    const bool shown = choice.format && is_stored_from(*choice.format, side);
    const double ratio = ratio_of(result);
    if (!shown && !(1 / of_its_size <= ratio && ratio <= of_its_size)) continue;
    return LowerPrecision{choice.precision, shown, ratio, choice.words};
  }
  return std::nullopt;
}

}  // namespace dsa::verify
