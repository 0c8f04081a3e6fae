// core/config_parts.hpp — the parts of core/config.cpp: what reads one subject of a config.json.
//
// Only core/config*.cpp include this file.
#pragma once

#include <vector>

#include "core/config.hpp"
#include "core/keys.hpp"

namespace dsa::config_parts {

// Nobody has built a model beyond these; a config that says so is damaged, and would otherwise
// end in an allocation of terabytes.
inline constexpr Index most_width = Index{1} << 24;
inline constexpr Index most_layers = 10'000;
inline constexpr Index most_experts = 100'000;
inline constexpr Index most_context = Index{1} << 40;
inline constexpr double least_eps = 1e-30;

/// `rope_parameters` (new), or `rope_scaling` beside `rope_theta` (old): the same thing.
Rope read_rope(const Keys&);

/// The lightning indexer of DeepSeek-V3.2 and GLM-5, and which layers run one of their own.
Indexer describe_indexer(const Keys&, const Config&, RopeLayout);

/// DeepSeek's FP8 release: e4m3 weights with one scale a square block. Every other format of
/// weights is an Error that names it.
void read_quantization(const Keys&, Config&);

/// The same for formats that only a file beside config.json tells (hf_quant_config.json, ...).
void refuse_quantisation_sidecars(const std::filesystem::path& dir);

/// Keys that are known to change the forward pass and that no model here has: an Error, unless the
/// value is the neutral one.
void refuse_unsupported(const Keys&, const Config&);

/// The config under the names that this repository reads: attribute aliases of HuggingFace's
/// classes resolved, a text_config moved to the top. `what` begins the sentence of an Error.
Json with_canonical_names(const Json&, const std::string& what);

}  // namespace dsa::config_parts
