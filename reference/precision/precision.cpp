#include "reference/precision/precision.hpp"

#include <utility>

#include "core/words.hpp"
#include "reference/precision/hf_fp16.hpp"
#include "reference/precision/hf_tf32.hpp"
#include "reference/precision/llama_f16.hpp"
#include "reference/precision/official_fp8.hpp"
#include "reference/precision/rounder.hpp"

namespace dsa::reference {
namespace {

constexpr std::pair<Precision, std::string_view> names[] = {
    {Precision::fp64, "fp64"},           {Precision::hf_fp32, "hf-fp32"},
    {Precision::hf_bf16, "hf-bf16"},     {Precision::official_fp8, "official-fp8"},
    {Precision::llama_f16, "llama-f16"}, {Precision::hf_tf32, "hf-tf32"},
    {Precision::hf_fp16, "hf-fp16"},
};

/// What DeepSeek's own code makes float32. Under bfloat16 transformers 5.23 keeps no parameter in
/// float32, 5.24 mlp.gate.weight and the bias; either casts weights_proj. The product with the
/// router's weights is in float32 in both, and a run of either lies within the same limits.
bool stays_float32(const std::string& name) {
  return name.ends_with("indexer.weights_proj.weight") || name.ends_with("e_score_correction_bias");
}

}  // namespace

std::string_view name_of(Precision precision) {
  for (const auto& [value, name] : names)
    if (value == precision) return name;
  return "unknown";
}

Precision precision_named(std::string_view wanted) {
  std::string all;
  for (const auto& [value, name] : names) {
    if (name == wanted) return value;
    all += (all.empty() ? "" : ", ") + std::string(name);
  }
  throw Error("unknown precision \"" + std::string(wanted) + "\"; choose one of " + all);
}

std::string precision_names() {
  std::vector<std::string> all;
  for (const auto& [value, name] : names) all.emplace_back(name);
  return alternatives(all);
}

Dtype format_of(Precision precision) {
  switch (precision) {
    case Precision::fp64:
      return Dtype::f64;
    case Precision::hf_fp32:
    case Precision::llama_f16:
    case Precision::hf_tf32:
      return Dtype::f32;
    case Precision::hf_fp16:
      return Dtype::f16;
    default:
      return Dtype::bf16;
  }
}

Model loaded_as(Model model, Precision precision) {
  const Dtype format = format_of(precision);
  if (format == Dtype::f64) return model;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, Parameter& p, const std::vector<Index>&) {
                    // The FP8 linears of the official code multiply the stored bytes as they are.
                    if (precision == Precision::official_fp8 && p.quantised()) return;
                    p.loaded_as = stays_float32(name) ? Dtype::f32 : format;
                  });
  tie_weights(model.weights, model.config);
  return model;
}

Ops<double> ops_of(Precision precision, Rounding rounding, const Config& config) {
  const Dtype model = format_of(precision);
  const Rounded rounded{{model, model == Dtype::f64 ? Dtype::f64 : Dtype::f32},
                        rounding,
                        config.model_type == "deepseek_v2",
                        {}};
  if (precision == Precision::official_fp8) return official_fp8_ops(rounded, config);
  if (precision == Precision::llama_f16) return llama_f16_ops(rounded);
  if (precision == Precision::hf_tf32) return hf_tf32_ops(rounded);
  if (precision == Precision::hf_fp16) return hf_fp16_ops(rounded);
  if (precision == Precision::fp64 && rounding.mode == Rounding::Mode::nearest)
    return definition<double>();
  return rounded.ops();
}

}  // namespace dsa::reference
