#include "core/config.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/check.hpp"
#include "core/config_parts.hpp"

namespace dsa {
namespace {

using namespace config_parts;

/// "bfloat16", "torch.bfloat16" or "bf16"; "auto" says nothing, the tensors' own dtypes hold.
std::string dtype_under(const Keys& keys, const char* key) {
  const Json* value = keys.find(key);
  if (value == nullptr) return "";
  std::string name = value->is_string() ? value->get<std::string>() : "";
  if (name.starts_with("torch.")) name = name.substr(6);
  if (name == "auto") return "";
  constexpr std::pair<std::string_view, const char*> spellings[] = {
      {"bf16", "bfloat16"}, {"fp32", "float32"}, {"float", "float32"}, {"fp16", "float16"},
      {"half", "float16"},  {"fp64", "float64"}, {"double", "float64"}};
  for (const auto& [spelling, word] : spellings)
    if (name == spelling) name = word;
  for (const char* known : {"bfloat16", "float32", "float16", "float64"})
    if (name == known) return name;
  keys.fail_expected(key, "\"bfloat16\", \"float32\", \"float16\" or \"float64\"");
}

Dtype read_dtype(const Keys& keys) {
  const std::string older = dtype_under(keys, "torch_dtype"), newer = dtype_under(keys, "dtype");
  if (!older.empty() && !newer.empty() && newer != older)
    keys.fail("dtype",
              "is \"" + newer + "\" but \"torch_dtype\" is \"" + older + "\"; remove one of them");
  const std::string name = newer.empty() ? older : newer;
  return name == "float32"   ? Dtype::f32
         : name == "float16" ? Dtype::f16
         : name == "float64" ? Dtype::f64
                             : Dtype::bf16;
}

void read_attention(const Keys& keys, Config& c) {
  c.num_attention_heads = keys.integer("num_attention_heads", 1, most_width);
  const auto kv_heads = keys.maybe_integer("num_key_value_heads", 1, most_width);
  // Repacked checkpoints count the one latent that all heads share; MLA reads neither number.
  if (kv_heads && *kv_heads != c.num_attention_heads && *kv_heads != 1)
    keys.fail_expected("num_key_value_heads",
                       std::to_string(c.num_attention_heads) +
                           " as num_attention_heads, or 1: MLA has one key a head");
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
std::vector<bool> read_layer_kinds(const Keys& keys, const Config& c, Index default_dense) {
  const Index layers = c.num_hidden_layers, mtp = c.num_nextn_predict_layers;
  std::vector<bool> is_moe;
  keys.has("first_k_dense_replace");  // a list beside it says the same in more words
  if (keys.has("mlp_layer_types")) {
    for (const auto& kind : keys.texts("mlp_layer_types", layers, mtp, {"dense", "sparse"}))
      is_moe.push_back(kind == "sparse");
    for (Index l = layers; l < static_cast<Index>(is_moe.size()); ++l)
      if (!is_moe[static_cast<std::size_t>(l)])
        keys.fail("mlp_layer_types", "says \"dense\" of layer " + std::to_string(l) +
                                         ", a multi-token-prediction layer; expected \"sparse\"");
    is_moe.resize(static_cast<std::size_t>(layers));
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

// One function a family: what its name stands for. The rest of the repository reads the result.
void deepseek_v2(const Keys& keys, Config& c) {
  describe_softmax_router(keys, c);
  c.mlp_bias = keys.boolean_or("mlp_bias", false);
  c.is_moe = read_layer_kinds(keys, c, 0);
}

/// What DeepSeek-V3 and its descendants have in common.
void sigmoid_mixture(const Keys& keys, Config& c) {
  describe_sigmoid_router(keys, c);
  keys.number("routed_scaling_factor", 1e-9, 1e9);  // V3's class default of 2.5 is not 1
  if (keys.boolean_or("mlp_bias", false)) keys.fail_expected("mlp_bias", "false");
  c.is_moe = read_layer_kinds(keys, c, 3);
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
}

}  // namespace

Config parse_config(const Json& as_written, const std::string& what) {
  const Json json = with_canonical_names(as_written, what);
  const Keys keys(json, what);
  Config c;
  c.model_type = keys.text(
      "model_type", {"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa"});
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
      {"kimi_k2", deepseek_v3},  // DeepSeek-V3's architecture under another name
      {"glm_moe_dsa", glm_moe_dsa}};
  for (const auto& [name, describe] : families)
    if (c.model_type == name) describe(keys, c);
  read_experts(keys, c);
  refuse_unsupported(keys, c);
  c.unused_keys = keys.unused();
  return c;
}

Config read_config(const std::filesystem::path& path) {
  const bool is_file = std::filesystem::is_regular_file(path);
  Config config = parse_config(read_json(is_file ? path : path / "config.json"),
                               is_file ? path.string() : "config.json of " + path.string());
  refuse_quantisation_sidecars(is_file ? path.parent_path() : path);
  return config;
}

double Config::attention_scale() const {
  const double scale = 1 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (!rope.yarn || rope.mscale_all_dim == 0 || rope.factor <= 1) return scale;
  const double m = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1;
  return scale * m * m;
}

}  // namespace dsa
