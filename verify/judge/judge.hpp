// verify/judge/judge.hpp — from a checkpoint and a golden to a verdict.
//
// One side (the golden alone, or a candidate) is held against the definition: the reference in
// double. Limits come from perturbed runs at the side's precision (verify/limits/noise.hpp). Where
// the side brings a trace, its decisions are judged as decisions, and replayed where they are
// explained, so that what follows is compared on equal terms.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "core/recording.hpp"
#include "core/weights.hpp"
#include "verify/limits/noise.hpp"
#include "verify/runs/implementation.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct JudgeOptions {
  std::string
      names;  // name map of the judged file's traces (verify/names/name_map.hpp); empty: none
  std::string dtype;  // which logits column of the golden; empty: the most precise
  std::optional<reference::Precision> precision;  // of the judged side; default: by its dtype
  int runs = 16;
  std::uint64_t seed = 1;
  double alpha = 1e-3;
  std::optional<double> max_kl_div, atol, rtol;   // the user's limits take the place of ours
  std::optional<std::pair<Index, Index>> layers;  // a span [A, B) instead of the whole model
  bool explain = true;         // search for the decisions that explain a departing row
  bool explain_limit = false;  // put into words what every limit is made of
  bool own_error = false;      // also run in long double, to state the reference's own rounding
  std::function<void(const std::string& what, int done, int of)> progress;
};

/// Judges GOLDEN, or CANDIDATE by GOLDEN. Bad input is an Error.
Verdict judge(const std::filesystem::path& checkpoint, const std::filesystem::path& golden,
              const std::optional<std::filesystem::path>& candidate, const JudgeOptions&);

/// Judges what an implementation makes of GOLDEN's tokens, by GOLDEN.
Verdict judge(const std::filesystem::path& checkpoint, const std::filesystem::path& golden,
              const Implementation&, const JudgeOptions&);

/// A bf16 run that is stored as F32 fails an fp32 limit: says so where the pattern suggests it.
std::string bf16_hint(const std::filesystem::path& checkpoint, const Recording& side,
                      const JudgeOptions&);

/// The most keys that any query sees.
Index longest_visible(const std::vector<Sequence>&);

/// The precision that a column of this name is taken for: fp64, hf-fp32 or hf-bf16.
reference::Precision precision_of_dtype(const std::string& dtype);

}  // namespace dsa::verify
