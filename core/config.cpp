#include "core/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/check.hpp"
#include "core/keys.hpp"

namespace dsa {
namespace {

// Nobody has built a model beyond these; a config that says so is damaged, and would otherwise
// end in an allocation of terabytes.
constexpr Index most_width = Index{1} << 24;
constexpr Index most_layers = 10'000;
constexpr Index most_experts = 100'000;
constexpr Index most_context = Index{1} << 40;
constexpr double least_eps = 1e-30;

Rope rope_of(const Keys& keys, double outer_theta) {
  constexpr double huge = 1e15;
  // Old configs say "type", new ones "rope_type", some both.
  const auto type = keys.text_or("rope_type", {"default", "yarn"}, "");
  const auto old_type = keys.text_or("type", {"default", "yarn"}, type);
  if (!type.empty() && type != old_type)
    keys.fail("rope_type", "is \"" + type + "\" but its \"type\" is \"" + old_type +
                               "\"; remove one of the two");
  Rope rope;
  rope.yarn = old_type == "yarn";
  rope.theta = keys.number_or("rope_theta", 1.001, huge, outer_theta);
  if (keys.number_or("partial_rotary_factor", 0, huge, 1) != 1)
    keys.fail_expected("partial_rotary_factor", "1: qk_rope_head_dim says what is rotated");
  if (!rope.yarn) {
    if (keys.number_or("factor", 0, huge, 1) != 1)
      keys.fail("factor", "is given without rope_type \"yarn\"; name the type or remove it");
    return rope;
  }
  rope.factor = keys.number("factor", 1e-6, 1e6);
  rope.original_max_position_embeddings =
      keys.number("original_max_position_embeddings", 1, static_cast<double>(most_context));
  rope.beta_fast = keys.number_or("beta_fast", 1e-6, 1e6, 32);
  rope.beta_slow = keys.number_or("beta_slow", 1e-6, 1e6, 1);
  if (!(rope.beta_fast > rope.beta_slow))
    keys.fail_expected("beta_fast", "a number above beta_slow, " + shown(Json(rope.beta_slow)));
  rope.mscale = keys.number_or("mscale", 0, 1e6, 0);
  rope.mscale_all_dim = keys.number_or("mscale_all_dim", 0, 1e6, 0);
  if (keys.has("attention_factor")) rope.attention_factor = keys.number("attention_factor", 0, 1e6);
  rope.truncate = keys.boolean_or("truncate", true);
  return rope;
}

bool same(const Rope& a, const Rope& b) {
  const auto numbers = [](const Rope& r) {
    return std::array{r.theta,         r.factor,    r.original_max_position_embeddings,
                      r.beta_fast,     r.beta_slow, r.mscale,
                      r.mscale_all_dim};
  };
  return numbers(a) == numbers(b) && a.yarn == b.yarn && a.truncate == b.truncate &&
         a.attention_factor == b.attention_factor;
}

/// `rope_parameters` (new), or `rope_scaling` beside `rope_theta` (old): the same thing.
Rope read_rope(const Keys& keys) {
  const double theta = keys.number_or("rope_theta", 1.001, 1e15, Rope{}.theta);
  const bool is_new = keys.has("rope_parameters"), is_old = keys.has("rope_scaling");
  Rope rope;
  rope.theta = theta;
  if (is_old) rope = rope_of(keys.object("rope_scaling"), theta);
  if (!is_new) return rope;
  const Rope newer = rope_of(keys.object("rope_parameters"), theta);
  if (is_old && !same(rope, newer))
    keys.fail("rope_scaling", "and \"rope_parameters\" contradict each other: " +
                                  shown(*keys.find("rope_scaling")) + " and " +
                                  shown(*keys.find("rope_parameters")) + "; remove one of them");
  if (keys.has("rope_theta") && newer.theta != theta)
    keys.fail("rope_theta", "is " + shown(*keys.find("rope_theta")) +
                                " but \"rope_parameters.rope_theta\" is " +
                                shown(Json(newer.theta)) + "; remove one of them");
  return newer;
}

Dtype read_dtype(const Keys& keys) {
  constexpr std::pair<std::string_view, Dtype> names[] = {{"bfloat16", Dtype::bf16},
                                                          {"float32", Dtype::f32},
                                                          {"float16", Dtype::f16},
                                                          {"float64", Dtype::f64}};
  const auto supported = {std::string_view("bfloat16"), std::string_view("float32"),
                          std::string_view("float16"), std::string_view("float64")};
  const auto older = keys.text_or("torch_dtype", supported, "");
  const auto name = keys.text_or("dtype", supported, older.empty() ? "bfloat16" : older);
  if (!older.empty() && name != older)
    keys.fail("dtype",
              "is \"" + name + "\" but \"torch_dtype\" is \"" + older + "\"; remove one of them");
  for (const auto& [word, dtype] : names)
    if (word == name) return dtype;
  return Dtype::bf16;
}

/// DeepSeek's FP8 release: e4m3 weights with one scale a square block.
void read_quantization(const Keys& keys, Config& c) {
  if (!keys.has("quantization_config")) return;
  const Keys q = keys.object("quantization_config");
  q.text("quant_method", {"fp8"});
  q.text_or("fmt", {"e4m3"}, "e4m3");
  q.text_or("activation_scheme", {"dynamic"}, "dynamic");
  const Json* size = q.find("weight_block_size");
  const auto is_edge = [](const Json& x) {
    return x.is_number_integer() && x > 0 && x <= most_width;
  };
  if (size == nullptr || !size->is_array() || size->size() != 2 || !is_edge((*size)[0]) ||
      (*size)[0] != (*size)[1])
    q.fail_expected("weight_block_size", "a square block such as [128, 128]");
  c.fp8_block = (*size)[0].get<Index>();
  c.fp8_scale_ue8m0 = q.text_or("scale_fmt", {"ue8m0", "float"}, "float") == "ue8m0";
}

void read_attention(const Keys& keys, Config& c) {
  c.num_attention_heads = keys.integer("num_attention_heads", 1, most_width);
  const auto kv_heads = keys.maybe_integer("num_key_value_heads", 1, most_width);
  if (kv_heads && *kv_heads != c.num_attention_heads)
    keys.fail_expected(
        "num_key_value_heads",
        std::to_string(c.num_attention_heads) + " as num_attention_heads: MLA has one key a head");
  c.q_lora_rank = keys.maybe_integer("q_lora_rank", 1, most_width);
  c.kv_lora_rank = keys.integer("kv_lora_rank", 1, most_width);
  c.qk_rope_head_dim = keys.integer("qk_rope_head_dim", 2, most_width);
  if (c.qk_rope_head_dim % 2 != 0)
    keys.fail_expected("qk_rope_head_dim", "an even integer: rotations turn pairs");
  c.qk_nope_head_dim = keys.integer("qk_nope_head_dim", 1, most_width);
  c.v_head_dim = keys.integer("v_head_dim", 1, most_width);
  const auto qk = keys.maybe_integer("qk_head_dim", 1, 2 * most_width);
  if (qk && *qk != c.qk_head_dim())
    keys.fail_expected("qk_head_dim",
                       std::to_string(c.qk_head_dim()) + ", qk_nope_head_dim + qk_rope_head_dim");
  c.attention_bias = keys.boolean_or("attention_bias", false);
  c.rope_layout =
      keys.boolean_or("rope_interleave", true) ? RopeLayout::interleaved : RopeLayout::half;
  c.rope = read_rope(keys);
}

/// Which layers are mixtures. A list wins over first_k_dense_replace, as in HuggingFace; the
/// tensors of the checkpoint contradict it if it is wrong.
std::vector<bool> read_layer_kinds(const Keys& keys, Index layers, Index default_dense) {
  std::vector<bool> is_moe;
  if (keys.has("mlp_layer_types")) {
    for (const auto& kind : keys.texts("mlp_layer_types", layers, {"dense", "sparse"}))
      is_moe.push_back(kind == "sparse");
    return is_moe;
  }
  const Index dense =
      keys.maybe_integer("first_k_dense_replace", 0, most_width).value_or(default_dense);
  const Index every = keys.maybe_integer("moe_layer_freq", 1, most_layers).value_or(1);
  for (Index l = 0; l < layers; ++l) is_moe.push_back(l >= dense && l % every == 0);
  return is_moe;
}

void read_experts(const Keys& keys, Config& c) {
  c.n_routed_experts = keys.integer("n_routed_experts", 1, most_experts);
  c.n_shared_experts = keys.maybe_integer("n_shared_experts", 0, most_experts).value_or(0);
  c.moe_intermediate_size = keys.integer("moe_intermediate_size", 1, most_width);
  c.num_experts_per_tok = keys.integer("num_experts_per_tok", 1, c.n_routed_experts);
  c.n_group = keys.maybe_integer("n_group", 1, c.n_routed_experts).value_or(1);
  c.topk_group = keys.maybe_integer("topk_group", 1, most_experts).value_or(1);
  c.routed_scaling_factor = keys.number_or("routed_scaling_factor", 1e-9, 1e9, 1);
  const auto text = [](Index n) { return std::to_string(n); };
  if (c.n_routed_experts % c.n_group != 0)
    keys.fail_expected("n_group", "a divisor of n_routed_experts, " + text(c.n_routed_experts));
  if (c.topk_group > c.n_group)
    keys.fail_expected("topk_group", "at most n_group, " + text(c.n_group));
  const Index candidates = c.topk_group * (c.n_routed_experts / c.n_group);
  if (c.router.groups != Router::Groups::none && c.num_experts_per_tok > candidates)
    keys.fail_expected("num_experts_per_tok",
                       "at most " + text(candidates) + ", the experts of topk_group groups");
  if (c.router.groups == Router::Groups::sum_of_two && c.n_routed_experts / c.n_group < 2)
    keys.fail_expected("n_group",
                       "groups of two experts or more: a group's score sums its two best");
}

/// DeepSeek-V2: softmax scores, no bias.
void describe_softmax_router(const Keys& keys, Config& c) {
  c.router.scoring = Router::Scoring::softmax;
  keys.text_or("scoring_func", {"softmax"}, "softmax");
  const auto method = keys.text_or("topk_method", {"greedy", "group_limited_greedy"}, "greedy");
  c.router.groups = method == "greedy" ? Router::Groups::none : Router::Groups::maximum;
  c.router.dropped_group_score = 0;
  // HuggingFace's DeepseekV2TopkRouter reads the key and never applies it.
  if (keys.boolean_or("norm_topk_prob", false))
    keys.fail("norm_topk_prob",
              "is true, which is unsupported for deepseek_v2 (HuggingFace's "
              "router ignores it); expected false");
}

/// DeepSeek-V3 and its descendants: sigmoid scores, a bias that takes part in the choice only.
void describe_sigmoid_router(const Keys& keys, Config& c) {
  c.router.scoring = Router::Scoring::sigmoid;
  keys.text_or("scoring_func", {"sigmoid"}, "sigmoid");
  keys.text_or("topk_method", {"noaux_tc"}, "noaux_tc");
  c.router.groups = Router::Groups::sum_of_two;
  c.router.has_correction_bias = true;
  c.router.dropped_group_score = -std::numeric_limits<double>::infinity();
  c.router.norm_topk_prob = keys.boolean_or("norm_topk_prob", true);
}

/// The lightning indexer of DeepSeek-V3.2, every layer with its own.
Indexer describe_indexer(const Keys& keys, const Config& c, RopeLayout layout) {
  if (!c.q_lora_rank)
    keys.fail_expected("q_lora_rank", "a positive integer: the indexer reads the query latent");
  Indexer x;
  x.n_heads = keys.integer("index_n_heads", 1, most_width);
  x.head_dim = keys.integer("index_head_dim", 1, most_width);
  if (x.head_dim < c.qk_rope_head_dim)
    keys.fail_expected("index_head_dim", "at least qk_rope_head_dim, " +
                                             std::to_string(c.qk_rope_head_dim) +
                                             ", whose rotation it shares");
  x.topk = keys.integer("index_topk", 1, most_context);
  x.rope_layout = layout;
  if (keys.boolean_or("indexer_rope_interleave", layout == RopeLayout::interleaved) !=
      (layout == RopeLayout::interleaved))
    keys.fail_expected("indexer_rope_interleave", layout == RopeLayout::interleaved
                                                      ? "true for this model_type"
                                                      : "false for this model_type");
  x.dot_scale = 1 / std::sqrt(static_cast<double>(x.head_dim));
  x.weight_scale = 1 / std::sqrt(static_cast<double>(x.n_heads));
  x.computes.assign(static_cast<std::size_t>(c.num_hidden_layers), true);
  return x;
}

/// Words of `indexer_types`, or letters of `index_topk_pattern`, as "computes its own".
std::vector<bool> read_pattern(const Keys& keys, Index layers) {
  std::vector<bool> computes;
  const Json& pattern = *keys.find("index_topk_pattern");
  if (!pattern.is_string()) {
    for (const auto& word : keys.texts("index_topk_pattern", layers, {"full", "shared"}))
      computes.push_back(word == "full");
    return computes;
  }
  for (char letter : pattern.get<std::string>()) {
    if (letter != 'F' && letter != 'S')
      keys.fail_expected("index_topk_pattern", "letters F (full) and S (shared), one a layer");
    computes.push_back(letter == 'F');
  }
  if (static_cast<Index>(computes.size()) != layers)
    keys.fail_expected("index_topk_pattern", std::to_string(layers) + " letters, one a layer");
  return computes;
}

/// GLM-5: a layer runs the indexer, or reuses what the last such layer chose. The rule for an
/// absent list is that of GlmMoeDsaConfig.__post_init__ in HuggingFace transformers.
std::vector<bool> read_index_sharing(const Keys& keys, Index layers) {
  std::vector<bool> computes;
  if (keys.has("index_topk_pattern")) computes = read_pattern(keys, layers);
  if (keys.has("indexer_types")) {
    std::vector<bool> listed;
    for (const auto& word : keys.texts("indexer_types", layers, {"full", "shared"}))
      listed.push_back(word == "full");
    if (!computes.empty() && computes != listed)
      keys.fail("indexer_types", "and \"index_topk_pattern\" contradict each other; remove one");
    computes = listed;
  }
  if (computes.empty()) {
    const Index every = keys.maybe_integer("index_topk_freq", 0, most_width).value_or(1);
    const Index offset =
        keys.maybe_integer("index_skip_topk_offset", -most_width, most_width).value_or(2);
    for (Index l = 0; l < layers; ++l)
      computes.push_back(std::max<Index>(l - offset + 1, 0) % std::max<Index>(every, 1) == 0);
  }
  const char* source = keys.has("indexer_types")        ? "indexer_types"
                       : keys.has("index_topk_pattern") ? "index_topk_pattern"
                                                        : "index_topk_freq";
  if (!computes.front())
    keys.fail(source,
              "makes layer 0 share an index, which has no layer before it; expected "
              "\"full\" there");
  return computes;
}

// One function a family: what its name stands for. The rest of the repository reads the result.
void deepseek_v2(const Keys& keys, Config& c) {
  describe_softmax_router(keys, c);
  c.mlp_bias = keys.boolean_or("mlp_bias", false);
  c.is_moe = read_layer_kinds(keys, c.num_hidden_layers, 0);
}

/// What DeepSeek-V3 and its descendants have in common.
void sigmoid_mixture(const Keys& keys, Config& c) {
  describe_sigmoid_router(keys, c);
  keys.number("routed_scaling_factor", 1e-9, 1e9);  // V3's class default of 2.5 is not 1
  if (keys.boolean_or("mlp_bias", false)) keys.fail_expected("mlp_bias", "false");
  c.is_moe = read_layer_kinds(keys, c.num_hidden_layers, 3);
}

/// A missing group count would be 8 (of which 4) in HuggingFace, a null one means no groups.
void state_groups(const Keys& keys) {
  for (const char* key : {"n_group", "topk_group"})
    if (!keys.mentions(key)) keys.fail_expected(key, "a positive integer (1: no groups)");
}

void deepseek_v3(const Keys& keys, Config& c) {
  sigmoid_mixture(keys, c);
  state_groups(keys);
}

void deepseek_v32(const Keys& keys, Config& c) {
  sigmoid_mixture(keys, c);
  state_groups(keys);
  c.indexer = describe_indexer(keys, c, RopeLayout::half);
}

void glm_moe_dsa(const Keys& keys, Config& c) {
  sigmoid_mixture(keys, c);
  c.rms_norm_eps = keys.number_or("rms_norm_eps", least_eps, 1, 1e-5);
  c.indexer = describe_indexer(keys, c, RopeLayout::interleaved);
  c.indexer->computes = read_index_sharing(keys, c.num_hidden_layers);
}

}  // namespace

Config parse_config(const Json& json, const std::string& what) {
  const Keys keys(json, what);
  Config c;
  c.model_type =
      keys.text("model_type", {"deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa"});
  c.vocab_size = keys.integer("vocab_size", 1, most_width);
  c.hidden_size = keys.integer("hidden_size", 1, most_width);
  c.intermediate_size = keys.integer("intermediate_size", 1, most_width);
  c.num_hidden_layers = keys.integer("num_hidden_layers", 1, most_layers);
  c.rms_norm_eps = keys.number_or("rms_norm_eps", least_eps, 1, 1e-6);
  keys.text_or("hidden_act", {"silu"}, "silu");
  c.tie_word_embeddings = keys.boolean_or("tie_word_embeddings", false);
  c.max_position_embeddings =
      keys.maybe_integer("max_position_embeddings", 1, most_context).value_or(0);
  c.use_sparse_attention = keys.boolean_or("use_sparse_attention", true);
  c.num_nextn_predict_layers =
      keys.maybe_integer("num_nextn_predict_layers", 0, most_layers).value_or(0);
  c.dtype = read_dtype(keys);
  read_quantization(keys, c);
  read_attention(keys, c);

  constexpr std::pair<std::string_view, void (*)(const Keys&, Config&)> families[] = {
      {"deepseek_v2", deepseek_v2},
      {"deepseek_v3", deepseek_v3},
      {"deepseek_v32", deepseek_v32},
      {"glm_moe_dsa", glm_moe_dsa}};
  for (const auto& [name, describe] : families)
    if (c.model_type == name) describe(keys, c);
  read_experts(keys, c);
  return c;
}

Config read_config(const std::filesystem::path& dir) {
  return parse_config(read_json(dir / "config.json"), "config.json of " + dir.string());
}

double Config::attention_scale() const {
  const double scale = 1 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (!rope.yarn || rope.mscale_all_dim == 0 || rope.factor <= 1) return scale;
  const double m = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1;
  return scale * m * m;
}

}  // namespace dsa
