// verify/gradients/gradient_file.hpp — somebody's losses and gradients, as they lie in a file.
//
// safetensors: `tokens` (B, S); `valid` or `attention_mask` (B, S) where there is padding;
// `loss.NAME` with `NAME.PARAMETER` for each loss NAME (lm, kl, mtp, balance), parameters under
// their HuggingFace names, experts one by one or packed. data/README.md.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/recording.hpp"
#include "verify/gradients/parameters.hpp"

namespace dsa::verify {

struct GradientFile {
  std::filesystem::path path;
  std::vector<Sequence> sequences;
  std::map<std::string, double> losses;          // "lm", "kl", ...
  std::map<std::string, ByParameter> gradients;  // by loss
  std::string precision;  // "fp64", "hf-fp32" or "hf-bf16": what its numbers look like

  bool has(const std::string& loss) const {
    return losses.contains(loss) || gradients.contains(loss);
  }
};

/// Checks every name and shape against the config. `names`: a parameter map (verify/names/
/// parameter_map.hpp); empty: none. Error: a parameter that the model does not have, another shape
/// than the parameter's, a gradient without its loss, no tokens, neither losses nor gradients.
GradientFile read_gradients(const std::filesystem::path&, const Config&,
                            const std::string& names = "");

}  // namespace dsa::verify
