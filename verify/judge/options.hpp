// verify/judge/options.hpp — how a judgement is to be made.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/recording.hpp"
#include "reference/precision/precision.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct JudgeOptions : Draws {
  std::string
      names;  // name map of the judged file's traces (verify/names/name_map.hpp); empty: none
  std::string dtype;  // which logits column of the golden; empty: the most precise
  std::optional<reference::Precision> precision;  // of the judged side; default: by its dtype
  std::optional<double> max_kl_div, atol, rtol;   // the user's limits take the place of ours
  std::optional<std::pair<Index, Index>> layers;  // a span [A, B) instead of the whole model
  /// The definition's latent norms take rms_norm_eps, not transformers' 1e-6 (defect 109).
  bool latent_eps_of_config = false;
  std::string weights_of;      // diagnose: another checkpoint, whose weights are tried by module
  bool explain = true;         // search for near-ties that explain a row beyond its limit
  bool explain_limit = false;  // state the derivation of every limit
  bool own_error = false;      // also run in long double, to state the reference's own rounding
  std::function<void(const std::string& what, int done, int of)> progress;
  /// What is to be noted beside the judgement, of the golden itself; may be empty.
  std::function<std::vector<std::string>(const Recording& golden)> remarks;
};

}  // namespace dsa::verify
