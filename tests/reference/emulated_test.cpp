// Whole runs with somebody's roundings: what is loaded, what is stored, and what a seed decides.
#include "reference/precision/precision.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Precision;
using reference::Rounding;

namespace {

constexpr Rounding nearest{Rounding::Mode::nearest, 0};
Rounding die(std::uint64_t seed) { return {Rounding::Mode::random, seed}; }

Tensor<double, 2> emulated(const Model& model, Precision precision, Rounding rounding,
                           const reference::Tap<double>& tap = {}, int threads = 1) {
  const SharingThreads scope(threads);
  const auto ops = reference::ops_of(precision, rounding, model.config);
  reference::Cache<double> cache;
  return reference::forward<double>({model, ops, tap}, plain_sequence(some_tokens(model, 30)),
                                    cache);
}

}  // namespace

TEST_CASE("a run in fp64 to nearest is the definition, bit for bit", "[reference]") {
  const Model model = sample_model("v32");
  const Model loaded = reference::loaded_as(model, Precision::fp64);
  CHECK(distance(emulated(loaded, Precision::fp64, nearest),
                 logits_of(model, plain_sequence(some_tokens(model, 30)))) == 0);
  const auto a = emulated(loaded, Precision::fp64, die(1));
  CHECK(distance(a, emulated(loaded, Precision::fp64, nearest)) > 0);
  CHECK(distance(a, emulated(loaded, Precision::fp64, nearest)) < 1e-11 * range(a));
}

TEST_CASE("HuggingFace's runs hold numbers of their formats only", "[reference]") {
  for (const char* name : {"v32", "v3", "v2lite", "glm"}) {
    const Model stored = open_checkpoint(sample(name) / "checkpoint");
    for (const Precision precision : {Precision::hf_fp32, Precision::hf_bf16})
      for (const Rounding rounding : {nearest, die(1)}) {
        Record<double> record;
        const Model model = resident(reference::loaded_as(stored, precision), Index{1} << 30);
        const auto logits = emulated(model, precision, rounding, record.tap());
        CHECK(all_in(reference::format_of(precision), logits));
        for (const auto& [tensor, values] : record.tensors) {
          // Kept in float32: what decides (head weights, scores, router).
          const bool wide = tensor.ends_with("weights_proj") || tensor.ends_with("scores") ||
                            tensor.find("mlp.gate.") != std::string::npos;
          INFO(name << " " << name_of(precision) << " " << tensor);
          CHECK(all_in(wide ? Dtype::f32 : reference::format_of(precision), values));
        }
      }
  }
}

TEST_CASE("an emulated run depends on its seed and on nothing else", "[reference]") {
  const Model model =
      resident(reference::loaded_as(sample_model("v32"), Precision::hf_bf16), Index{1} << 30);
  const auto once = emulated(model, Precision::hf_bf16, die(1));
  CHECK(distance(emulated(model, Precision::hf_bf16, die(1), {}, 3), once) == 0);
  CHECK(distance(emulated(model, Precision::hf_bf16, die(2)), once) > 0);
  CHECK(distance(emulated(model, Precision::hf_bf16, nearest), once) > 0);
}

TEST_CASE("loaded_as rounds parameters to the run's format, but two to float32", "[reference]") {
  for (const char* name : {"v32", "v3", "fp8"})
    for (const Precision precision :
         {Precision::hf_fp32, Precision::hf_bf16, Precision::official_fp8, Precision::llama_f16,
          Precision::hf_tf32, Precision::hf_fp16}) {
      const Model model =
          reference::loaded_as(open_checkpoint(sample(name) / "checkpoint"), precision);
      int kept = 0;
      for_each_tensor(
          model.weights, model.config,
          [&](const std::string& tensor, const Parameter& p, const auto&) {
            const bool wide = tensor.ends_with(".indexer.weights_proj.weight") ||
                              tensor.ends_with(".e_score_correction_bias");
            kept += wide;
            INFO(name << " " << name_of(precision) << " " << tensor);
            if (precision == Precision::official_fp8 && p.quantised())
              CHECK_FALSE(p.loaded_as.has_value());
            else
              CHECK(p.loaded_as == (wide ? Dtype::f32 : reference::format_of(precision)));
          });
      CHECK(kept > 0);
    }
  const Model plain = reference::loaded_as(sample_model("v3"), Precision::fp64);
  CHECK_FALSE(plain.weights.embed_tokens.loaded_as.has_value());
}

TEST_CASE("a parameter that was loaded_as bf16 is rounded wherever it is read", "[reference]") {
  const auto w = matrix({{1 + 0x1p-12, 3}}), x = matrix({{1, 0}});
  const std::vector<float> narrow = {1 + 0x1p-12f, 3};
  Parameter wide = parameter(w), small = parameter(w);
  small.dtype = Dtype::f32, small.data = reinterpret_cast<const std::byte*>(narrow.data());
  for (Parameter p : {small, wide}) {
    Tensor<double, 2> y({1, 1});
    INFO("stored as " << name_of(p.dtype));
    reference::definition<double>().linear("n", y, x, {p, {}});
    CHECK(y(0, 0) == 1 + 0x1p-12);
    p.loaded_as = Dtype::bf16;
    CHECK(read_all<double>(p)[0] == 1);
    reference::definition<double>().linear("n", y, x, {p, {}});
    CHECK(y(0, 0) == 1);
  }
}

TEST_CASE("precisions have names", "[reference]") {
  for (const char* name :
       {"fp64", "hf-fp32", "hf-bf16", "official-fp8", "llama-f16", "hf-tf32", "hf-fp16"})
    CHECK(reference::name_of(reference::precision_named(name)) == name);
  CHECK_THROWS_WITH(reference::precision_named("bf16"),
                    "unknown precision \"bf16\"; choose one of fp64, hf-fp32, hf-bf16, "
                    "official-fp8, llama-f16, hf-tf32, hf-fp16");
  CHECK(reference::precision_names() ==
        "fp64, hf-fp32, hf-bf16, official-fp8, llama-f16, hf-tf32 or hf-fp16");
  CHECK(reference::format_of(Precision::llama_f16) == Dtype::f32);
  CHECK(reference::format_of(Precision::fp64) == Dtype::f64);
  CHECK(reference::format_of(Precision::hf_fp32) == Dtype::f32);
  CHECK(reference::format_of(Precision::hf_bf16) == Dtype::bf16);
  CHECK(reference::format_of(Precision::official_fp8) == Dtype::bf16);
}

TEST_CASE("an emulated precision refuses the absorbed form", "[reference]") {
  const Model model = sample_model("v32");
  const auto ops = reference::ops_of(Precision::hf_bf16, nearest, model.config);
  reference::Cache<double> cache;
  CHECK_THROWS_WITH(
      reference::forward<double>({model, ops, {}, reference::MlaForm::absorbed},
                                 plain_sequence({1, 2, 3}), cache),
      "model.layers.0.self_attn.heads: an emulated precision computes MLA in the expanded form, "
      "as its original does");
}
