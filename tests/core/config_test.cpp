// config.json of each family, and a sentence for everything that can be wrong with one.
#include "core/config.hpp"

#include <cmath>
#include <limits>

#include "core/file.hpp"
#include "core/json.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"

using namespace dsa;
using Catch::Contains;

namespace {

/// `more` put over `base`.
Json with(Json base, const Json& more) {
  for (const auto& [key, value] : more.items()) base[key] = value;
  return base;
}

/// Keys that all families share.
Json common() {
  return Json::parse(R"({
    "vocab_size": 227, "hidden_size": 64, "intermediate_size": 136, "moe_intermediate_size": 28,
    "num_hidden_layers": 4, "num_attention_heads": 4, "q_lora_rank": 36, "kv_lora_rank": 28,
    "qk_rope_head_dim": 12, "qk_nope_head_dim": 20, "v_head_dim": 16, "n_routed_experts": 24,
    "n_shared_experts": 1, "num_experts_per_tok": 5, "n_group": 6, "topk_group": 2,
    "routed_scaling_factor": 2.5, "first_k_dense_replace": 1, "rms_norm_eps": 1e-6})");
}

Json v2() {
  return with(common(), Json::parse(R"({"model_type": "deepseek_v2", "q_lora_rank": null,
    "n_group": null, "topk_group": null, "topk_method": "greedy", "routed_scaling_factor": 1.0,
    "norm_topk_prob": false, "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40,
    "original_max_position_embeddings": 4096, "mscale": 0.707, "mscale_all_dim": 0.707}})"));
}
Json v3() { return with(common(), {{"model_type", "deepseek_v3"}}); }
Json v32() {
  return with(common(), Json::parse(R"({"model_type": "deepseek_v32", "index_n_heads": 24,
    "index_head_dim": 32, "index_topk": 16, "rope_theta": 10000, "rope_scaling": {"type": "yarn",
    "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1.0, "mscale_all_dim": 1.0}})"));
}
Json glm() {
  return with(v32(), Json::parse(R"({"model_type": "glm_moe_dsa", "n_group": 1, "topk_group": 1,
    "rope_scaling": null, "rope_theta": null,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}})"));
}

Config parse(const Json& json) { return parse_config(json, "config.json of DIR"); }
std::string failure(const Json& json) {
  try {
    parse(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}
std::string failure(const Json& base, const Json& more) { return failure(with(base, more)); }

}  // namespace

TEST_CASE("deepseek_v2: softmax router, no latent query", "[config]") {
  const Config c = parse(v2());
  CHECK_FALSE(c.q_lora_rank);
  CHECK_FALSE(c.indexer);
  CHECK(c.router.scoring == Router::Scoring::softmax);
  CHECK(c.router.groups == Router::Groups::none);
  CHECK_FALSE(c.router.has_correction_bias);
  CHECK_FALSE(c.router.norm_topk_prob);
  CHECK(c.n_group == 1);
  CHECK(c.is_moe == std::vector<bool>{false, true, true, true});
  CHECK(c.rope.mscale == 0.707);
  const Json grouped = {{"topk_method", "group_limited_greedy"}, {"n_group", 6}, {"topk_group", 2}};
  const Config limited = parse(with(v2(), grouped));
  CHECK(limited.router.groups == Router::Groups::maximum);
  CHECK(limited.router.dropped_group_score == 0);
}

TEST_CASE("deepseek_v3: sigmoid router with groups", "[config]") {
  const Config c = parse(v3());
  CHECK(c.router.scoring == Router::Scoring::sigmoid);
  CHECK(c.router.groups == Router::Groups::sum_of_two);
  CHECK(c.router.dropped_group_score == -std::numeric_limits<double>::infinity());
  CHECK(c.router.has_correction_bias);
  CHECK(c.router.norm_topk_prob);
  CHECK(c.rope_layout == RopeLayout::interleaved);
  CHECK(c.num_nextn_predict_layers == 0);
  CHECK(c.dtype == Dtype::bf16);
  CHECK_FALSE(c.fp8_block);
  CHECK_FALSE(c.indexer);
  CHECK(parse(with(v3(), {{"rope_interleave", false}})).rope_layout == RopeLayout::half);
  CHECK_FALSE(parse(with(v3(), {{"norm_topk_prob", false}})).router.norm_topk_prob);
  CHECK(parse(with(v3(), {{"n_group", nullptr}, {"topk_group", nullptr}})).n_group == 1);
  CHECK(parse(with(v3(), {{"torch_dtype", "float32"}})).dtype == Dtype::f32);
}

TEST_CASE("deepseek_v32: an indexer in every layer", "[config]") {
  const Config c = parse(v32());
  REQUIRE(c.indexer);
  CHECK(c.indexer->n_heads == 24);
  CHECK(c.indexer->rope_first);
  CHECK(c.indexer->rope_layout == RopeLayout::half);
  CHECK(c.indexer->key_norm == Indexer::KeyNorm::layer_norm);
  CHECK(c.indexer->dot_scale == Approx(1 / std::sqrt(32.0)).epsilon(1e-15));
  CHECK(c.indexer->weight_scale == Approx(1 / std::sqrt(24.0)).epsilon(1e-15));
  CHECK(c.indexer->computes == std::vector<bool>(4, true));
  CHECK(c.use_sparse_attention);
  CHECK_FALSE(parse(with(v32(), {{"use_sparse_attention", false}})).use_sparse_attention);
}

TEST_CASE("the softmax scale of DeepSeek-V3.2", "[config]") {
  // 192^-1/2 (0.1 ln 40 + 1)^2, from the release's inference/model.py.
  const Config c = parse(
      with(v32(), {{"qk_nope_head_dim", 128}, {"qk_rope_head_dim", 64}, {"index_head_dim", 128}}));
  CHECK(c.attention_scale() == Approx(0.1352337789).epsilon(1e-9));
  CHECK(parse(v3()).attention_scale() == Approx(1 / std::sqrt(32.0)).epsilon(1e-15));
}

TEST_CASE("glm_moe_dsa: layers share indices", "[config]") {
  CHECK(parse(glm()).indexer->rope_layout == RopeLayout::interleaved);
  CHECK(parse(glm()).rope.theta == 1e6);
  CHECK(parse(glm()).indexer->computes == std::vector<bool>(4, true));
  const std::vector<bool> expected = {true, true, false, true};
  // HuggingFace: full where max(l - offset + 1, 0) is a multiple of the frequency, offset 2.
  CHECK(parse(with(glm(), {{"index_topk_freq", 2}})).indexer->computes == expected);
  CHECK(parse(with(glm(), {{"index_topk_pattern", "FFSF"}})).indexer->computes == expected);
  const Json types = {"full", "full", "shared", "full"};
  CHECK(parse(with(glm(), {{"indexer_types", types}})).indexer->computes == expected);
  CHECK(parse(with(glm(), {{"index_topk_pattern", types}})).indexer->computes == expected);
  CHECK_THAT(failure(glm(), {{"indexer_types", types}, {"index_topk_pattern", "FFFF"}}),
             Contains("\"indexer_types\" and \"index_topk_pattern\" contradict each other"));
  CHECK_THAT(failure(glm(), {{"indexer_types", {"shared", "full", "full", "full"}}}),
             Contains("\"indexer_types\" makes layer 0 share an index"));
  CHECK_THAT(failure(glm(), {{"indexer_types", {"full"}}}),
             Contains("\"indexer_types\" has 1 entries, expected 4, one a layer"));
  CHECK_THAT(failure(glm(), {{"indexer_types", {"full", "full", "none", "full"}}}),
             Contains("has \"none\" at index 2, expected \"full\" or \"shared\""));
  CHECK_THAT(failure(glm(), {{"index_topk_pattern", "FFS"}}), Contains("expected 4 letters"));
  CHECK_THAT(failure(glm(), {{"index_topk_pattern", "FFSX"}}), Contains("letters F (full) and S"));
  CHECK_THAT(failure(glm(), {{"index_topk_freq", 2}, {"index_skip_topk_offset", 0}}),
             Contains("\"index_topk_freq\" makes layer 0 share"));
}

TEST_CASE("old and new spelling of the rotary embedding are the same", "[config]") {
  Json modern = v32();
  modern["rope_parameters"] = modern["rope_scaling"];
  modern["rope_parameters"]["rope_theta"] = 10000.0;
  modern["rope_parameters"]["rope_type"] = "yarn";
  Json both = modern;
  modern.erase("rope_scaling");
  modern.erase("rope_theta");
  for (const Config& c : {parse(v32()), parse(modern), parse(both)}) {
    CHECK(c.rope.yarn);
    CHECK(c.rope.factor == 40);
    CHECK(c.rope.theta == 10000);
    CHECK(c.rope.truncate);
  }
  Json other = both;
  other["rope_scaling"]["factor"] = 20;
  CHECK_THAT(failure(other),
             Contains("\"rope_scaling\" and \"rope_parameters\" contradict each other"));
  other = modern;
  other["rope_theta"] = 5000;
  CHECK_THAT(failure(other), Contains("\"rope_theta\" is 5000 but \"rope_parameters.rope_theta\""));
  other = modern;
  other["rope_parameters"]["type"] = "default";
  CHECK_THAT(failure(other), Contains("is \"yarn\" but its \"type\" is \"default\""));
}

TEST_CASE("a rotary embedding that is not understood is refused", "[config]") {
  const auto scaling = [](const char* text) { return Json{{"rope_scaling", Json::parse(text)}}; };
  CHECK_THAT(failure(v3(), scaling(R"({"type": "llama3", "factor": 8})")),
             Contains("\"rope_scaling.type\" is \"llama3\", expected \"default\", \"yarn\" or "
                      "\"deepseek_yarn\""));
  CHECK_THAT(failure(v3(), scaling(R"({"type": "yarn", "factor": 8})")),
             Contains("\"rope_scaling.original_max_position_embeddings\" is missing"));
  CHECK_THAT(
      failure(v3(), scaling(R"({"type": "yarn", "original_max_position_embeddings": 4096})")),
      Contains("\"rope_scaling.factor\" is missing"));
  CHECK_THAT(failure(v3(), scaling(R"({"factor": 8})")),
             Contains("\"rope_scaling.factor\" is given without rope_type \"yarn\""));
  CHECK_THAT(failure(v3(), {{"rope_scaling", "yarn"}}),
             Contains("\"rope_scaling\" is \"yarn\", expected a JSON object"));
  CHECK_THAT(failure(v3(), {{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}),
             Contains("partial_rotary_factor\" is 0.5"));
  CHECK_FALSE(parse(with(v3(), {{"rope_scaling", nullptr}})).rope.yarn);
}

TEST_CASE("quantisation is FP8 in square blocks or nothing", "[config]") {
  Json fp8 = with(v32(), Json::parse(R"({"quantization_config": {"quant_method": "fp8",
      "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
      "scale_fmt": "ue8m0"}})"));
  CHECK(parse(fp8).fp8_block == 128);
  CHECK(parse(fp8).fp8_scale_ue8m0);
  const auto change = [&](const char* key, const Json& value) {
    Json json = fp8;
    json["quantization_config"][key] = value;
    return failure(json);
  };
  CHECK_THAT(change("quant_method", "awq"),
             Contains("the weights are \"awq\", which dsa does not read"));
  CHECK_THAT(change("fmt", "e5m2"), Contains("the weights are FP8 e5m2, which dsa does not read"));
  CHECK_THAT(change("activation_scheme", "static"), Contains("expected \"dynamic\""));
  CHECK_THAT(change("scale_fmt", "e3"), Contains("expected \"ue8m0\" or \"float\""));
  for (const Json& size : {Json{128, 64}, Json{0, 0}, Json("128"), Json{1}, Json{1.5, 1.5}})
    CHECK_THAT(change("weight_block_size", size), Contains("a square block such as [128, 128]"));
  fp8["quantization_config"].erase("scale_fmt");
  CHECK_FALSE(parse(fp8).fp8_scale_ue8m0);
}

TEST_CASE("what is missing is named", "[config]") {
  for (const char* key : {"vocab_size",
                          "hidden_size",
                          "intermediate_size",
                          "moe_intermediate_size",
                          "num_hidden_layers",
                          "num_attention_heads",
                          "kv_lora_rank",
                          "qk_rope_head_dim",
                          "qk_nope_head_dim",
                          "v_head_dim",
                          "n_routed_experts",
                          "num_experts_per_tok",
                          "n_group",
                          "topk_group",
                          "routed_scaling_factor",
                          "index_n_heads",
                          "index_head_dim",
                          "index_topk",
                          "q_lora_rank",
                          "model_type"}) {
    Json json = v32();
    json.erase(key);
    CHECK_THAT(failure(json),
               Contains("config.json of DIR: \"" + std::string(key) + "\" is missing, expected "));
  }
}

TEST_CASE("a value of the wrong type or size is shown", "[config]") {
  CHECK(failure(v3(), {{"hidden_size", "abc"}}) ==
        "config.json of DIR: \"hidden_size\" is \"abc\", expected a positive integer, at most "
        "16777216");
  for (const Json& bad : {Json(0), Json(-1), Json(1.5), Json(true), Json(1 << 25), Json::array(),
                          Json(18446744073709551615u), Json(1e300)})
    CHECK_THAT(failure(v3(), {{"hidden_size", bad}}), Contains("\"hidden_size\" is "));
  CHECK_THAT(failure(v3(), {{"num_hidden_layers", 10001}}), Contains("at most 10000"));
  CHECK_THAT(failure(v3(), {{"n_routed_experts", 100001}}), Contains("at most 100000"));
  CHECK_THAT(failure(v3(), {{"rms_norm_eps", 0}}), Contains("\"rms_norm_eps\" is 0"));
  CHECK_THAT(failure(v3(), {{"tie_word_embeddings", 1}}), Contains("is 1, expected true or false"));
  CHECK_THAT(failure(v3(), {{"dtype", "int8"}}), Contains("\"dtype\" is \"int8\""));
  CHECK_THAT(failure(v3(), {{"dtype", "float32"}, {"torch_dtype", "bfloat16"}}),
             Contains("\"dtype\" is \"float32\" but \"torch_dtype\" is \"bfloat16\""));
  CHECK_THAT(failure(Json::array()), Contains("config.json of DIR is [], expected a JSON object"));
  CHECK_THAT(failure(v3(), {{"model_type", "llama"}}), Contains("\"glm_moe_dsa\""));
  CHECK_THAT(failure(v3(), {{"hidden_act", "gelu"}}), Contains("expected \"silu\""));
  CHECK_THAT(failure(v3(), {{"mlp_bias", true}}), Contains("\"mlp_bias\" is true"));
}

TEST_CASE("values that contradict each other are refused", "[config]") {
  CHECK_THAT(failure(v3(), {{"num_key_value_heads", 2}}), Contains("expected 4 as num_attention"));
  CHECK_THAT(failure(v3(), {{"qk_head_dim", 33}}), Contains("\"qk_head_dim\" is 33, expected 32"));
  CHECK_THAT(failure(v3(), {{"qk_rope_head_dim", 7}}), Contains("an even integer"));
  CHECK_THAT(failure(v3(), {{"n_group", 7}}), Contains("a divisor of n_routed_experts, 24"));
  CHECK_THAT(failure(v3(), {{"topk_group", 7}}), Contains("at most n_group, 6"));
  CHECK_THAT(failure(v3(), {{"num_experts_per_tok", 9}}), Contains("at most 8, the experts of"));
  CHECK_THAT(failure(v3(), {{"n_group", 24}, {"topk_group", 8}}), Contains("two experts or more"));
  CHECK_THAT(failure(v32(), {{"index_head_dim", 8}}), Contains("at least qk_rope_head_dim, 12"));
  CHECK_THAT(failure(v32(), {{"index_topk", 0}}), Contains("\"index_topk\" is 0"));
  CHECK_THAT(failure(v32(), {{"indexer_rope_interleave", true}}), Contains("expected false"));
  CHECK_THAT(failure(v3(), {{"scoring_func", "softmax"}}),
             Contains("\"scoring_func\" is \"softmax\", expected \"sigmoid\""));
  CHECK_THAT(failure(v3(), {{"topk_method", "greedy"}}), Contains("expected \"noaux_tc\""));
  CHECK_THAT(failure(v2(), {{"norm_topk_prob", true}}),
             Contains("\"norm_topk_prob\" is true, which is unsupported for deepseek_v2"));
}

TEST_CASE("which layers are mixtures", "[config]") {
  const Json list = {"dense", "sparse", "dense", "sparse"};
  CHECK(parse(with(v3(), {{"mlp_layer_types", list}})).is_moe ==
        std::vector<bool>{false, true, false, true});
  CHECK(parse(with(v3(), {{"moe_layer_freq", 2}})).is_moe ==
        std::vector<bool>{false, false, true, false});
  CHECK_THAT(failure(v3(), {{"mlp_layer_types", {"dense"}}}),
             Contains("has 1 entries, expected 4"));
  CHECK_THAT(failure(v3(), {{"mlp_layer_types", {"dense", "moe", "dense", "dense"}}}),
             Contains("\"moe\" at index 1"));
}

TEST_CASE("config.json is read from a directory", "[config]") {
  const test::Scratch dir;
  write_text(dir / "config.json", v32().dump());
  CHECK(read_config(dir.path()).model_type == "deepseek_v32");
  write_text(dir / "config.json", with(v32(), {{"vocab_size", 0}}).dump());
  CHECK_THROWS_WITH(read_config(dir.path()),
                    Contains("config.json of " + dir.path().string() + ": \"vocab_size\" is 0"));
}
