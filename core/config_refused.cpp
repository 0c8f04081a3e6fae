// What of a config.json cannot be read exactly, refused by its name.
#include <algorithm>
#include <set>

#include "core/check.hpp"
#include "core/config_parts.hpp"

namespace dsa::config_parts {
namespace {

constexpr const char* what_to_do = "; convert the weights to BF16 or to FP8 blocks first";

std::string word_under(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) && json[key].is_string()
             ? json[key].get<std::string>()
             : "";
}

/// "INT4 weights in groups of 32 (compressed-tensors, pack-quantized)".
std::string name_of_compressed(const Json& q) {
  std::string name = "compressed-tensors";
  if (const std::string format = word_under(q, "format"); !format.empty()) name += ", " + format;
  if (!q.contains("config_groups") || !q["config_groups"].is_object()) return name;
  for (const auto& [group, settings] : q["config_groups"].items()) {
    const Json weights = settings.is_object() ? settings.value("weights", Json()) : Json();
    if (!weights.is_object() || !weights.contains("num_bits")) continue;
    std::string type = word_under(weights, "type");
    std::transform(type.begin(), type.end(), type.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    std::string what = (type == "FLOAT" ? "FP" : type) + weights["num_bits"].dump() + " weights";
    if (const std::string strategy = word_under(weights, "strategy"); !strategy.empty())
      what += " by " + strategy;
    if (weights.value("group_size", Json()).is_number_integer())
      what += " of " + weights["group_size"].dump();
    return what + " (" + name + ")";
  }
  return name;
}

/// The name of a format that is not DeepSeek's FP8 blocks; empty: it may be.
std::string foreign_format(const Json& q) {
  const std::string method = word_under(q, "quant_method"), algorithm = word_under(q, "quant_algo");
  if (method == "compressed-tensors") return name_of_compressed(q);
  if (!algorithm.empty() && method != "fp8") return algorithm + " (" + method + ")";
  if (!method.empty() && method != "fp8") return "\"" + method + "\"";
  if (method.empty()) return "";
  const std::string fmt = word_under(q, "fmt");
  if (!fmt.empty() && fmt != "e4m3") return "FP8 " + fmt;
  const Json size = q.value("weight_block_size", Json());
  if (size.is_null()) return "FP8 with one scale a tensor or channel (no weight_block_size)";
  if (size == Json::array({1, 32})) return "MXFP8 (blocks of 1 x 32)";
  return "";
}

bool is_neutral(const Json& value) {
  if (value.is_null() || value == false) return true;
  if (value.is_number()) return value.get<double>() == 0;
  return (value.is_array() || value.is_object() || value.is_string()) && value.empty();
}

bool is_one(const Json& value) { return value.is_number() && value.get<double>() == 1; }

/// Keys of other models that change what a layer computes; `factor`: 1 is neutral.
struct ForeignKey {
  const char* key;
  const char* effect;
  bool factor = false;
};
constexpr ForeignKey foreign_keys[] = {
    {"swiglu_limit", "clamps the activations of the experts"},
    {"swiglu_limits", "clamps the activations of the experts"},
    {"swiglu_alpha", "changes the activation of the experts"},
    {"final_logit_softcapping", "bounds the logits by a tanh"},
    {"logit_softcap", "bounds the logits by a tanh"},
    {"logits_soft_cap", "bounds the logits by a tanh"},
    {"logits_softcap", "bounds the logits by a tanh"},
    {"attn_logit_softcapping", "bounds the attention's scores by a tanh"},
    {"attn_logit_softcap", "bounds the attention's scores by a tanh"},
    {"attention_sink", "adds a sink to the attention's softmax"},
    {"attention_sinks", "adds a sink to the attention's softmax"},
    {"attn_sink", "adds a sink to the attention's softmax"},
    {"use_attention_sink", "adds a sink to the attention's softmax"},
    {"use_attention_sinks", "adds a sink to the attention's softmax"},
    {"use_sink", "adds a sink to the attention's softmax"},
    {"num_sink_tokens", "keeps the first tokens visible to every query"},
    {"sliding_window", "bounds how far a query sees"},
    {"attention_chunk_size", "bounds how far a query sees"},
    {"use_qk_norm", "normalises queries and keys"},
    {"qk_norm", "normalises queries and keys"},
    {"use_gated_attention", "gates the attention's output"},
    {"attention_output_gate", "gates the attention's output"},
    {"attn_output_gate", "gates the attention's output"},
    {"no_rope_layers", "leaves layers without rotary embedding"},
    {"nope_layer_interval", "leaves layers without rotary embedding"},
    {"no_rope_layer_interval", "leaves layers without rotary embedding"},
    {"num_kv_shared_layers", "lets layers share keys and values"},
    {"kv_share", "lets layers share keys and values"},
    {"cla_share_factor", "lets layers share keys and values", true},
    {"index_kpool", "pools the indexer's keys"},
    {"index_k_pool", "pools the indexer's keys"},
    {"index_kpool_size", "pools the indexer's keys", true},
    {"index_pool_size", "pools the indexer's keys", true},
    {"index_block_size", "selects blocks of keys", true},
    {"compress_ratios", "compresses keys (DeepSeek-V4)"},
    {"hc_mult", "widens the residual stream (DeepSeek-V4)", true},
    {"num_hash_layers", "routes by a hash of the token (DeepSeek-V4)"},
    {"o_lora_rank", "factors o_proj (DeepSeek-V4)"},
    {"zero_expert_num", "adds experts that compute nothing"},
    {"embedding_multiplier", "scales the embeddings", true},
    {"scale_emb", "scales the embeddings", true},
    {"residual_multiplier", "scales the residual stream", true},
    {"scale_depth", "scales the residual stream", true},
    {"attention_multiplier", "scales the attention", true},
    {"logit_scale", "scales the logits", true},
    {"logits_scaling", "scales the logits", true},
};

/// Parts of names that nobody has given to a key without an effect.
struct ForeignWord {
  const char* word;
  const char* effect;
};
constexpr ForeignWord foreign_words[] = {
    {"softcap", "bounds scores or logits by a tanh"},
    {"soft_cap", "bounds scores or logits by a tanh"},
    {"swiglu", "changes the activation of the experts"},
    {"sink", "adds a sink to the attention's softmax"},
    {"kpool", "pools the indexer's keys"},
    {"k_pool", "pools the indexer's keys"},
    {"norope", "leaves something without rotary embedding"},
    {"no_rope", "leaves something without rotary embedding"},
    {"kv_share", "lets layers share keys and values"},
    {"share_kv", "lets layers share keys and values"},
    {"clip_qkv", "clips queries, keys and values"},
};

/// HuggingFace's list of attention types: "indexed_attention" where an indexer selects,
/// "full_attention" in models without one.
void check_layer_types(const Keys& keys, const Config& c) {
  const Json* types = keys.find("layer_types");
  if (types == nullptr) return;
  const std::string expected = c.indexer ? "indexed_attention" : "full_attention";
  if (!types->is_array()) keys.fail_expected("layer_types", "a list of strings, one a layer");
  for (std::size_t l = 0; l < types->size(); ++l)
    if ((*types)[l] != expected)
      keys.fail("layer_types", "says " + shown((*types)[l]) + " of layer " + std::to_string(l) +
                                   ", expected \"" + expected + "\" in every layer of " +
                                   c.model_type);
}

}  // namespace

void read_quantization(const Keys& keys, Config& c) {
  const Json* json = keys.find("quantization_config");
  if (json == nullptr) return;
  const Keys q = keys.object("quantization_config");
  if (const std::string format = foreign_format(*json); !format.empty())
    keys.fail("quantization_config",
              "says that the weights are " + format + ", which dsa does not read" + what_to_do);
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

void refuse_quantisation_sidecars(const std::filesystem::path& dir) {
  for (const char* name : {"hf_quant_config.json", "quant_config.json", "quantize_config.json"}) {
    const std::filesystem::path file = dir / name;
    if (!std::filesystem::exists(file)) continue;
    const Json json = read_json(file);
    if (!json.is_object()) continue;
    const Json q = json.contains("quantization") ? json["quantization"] : json;
    std::string format = word_under(q, "quant_algo");
    if (format.empty()) format = word_under(q, "quant_method");
    if (format.empty() && q.is_object() && q.contains("bits")) format = q["bits"].dump() + "-bit";
    if (format.empty() || format == "fp8" || format == "FP8_BLOCK" ||
        format == "FP8_PB_WO")  // DeepSeek's own blocks, under modelopt's name
      continue;
    const Json producer = json.value("producer", Json());
    const std::string by = word_under(producer, "name");
    throw Error(file.string() + " says that the weights are " + format +
                (by.empty() ? "" : " (" + by + ")") + ", which dsa does not read" + what_to_do);
  }
}

void refuse_unsupported(const Keys& keys, const Config& c) {
  check_layer_types(keys, c);
  for (const ForeignKey& foreign : foreign_keys) {
    const Json* value = keys.find(foreign.key);
    if (value == nullptr || is_neutral(*value) || (foreign.factor && is_one(*value))) continue;
    if (std::string_view(foreign.key) == "sliding_window" &&
        !keys.boolean_or("use_sliding_window", true))
      continue;
    keys.fail(foreign.key, "is " + shown(*value) + ", which " + foreign.effect +
                               "; dsa has no such model, and would compute something else");
  }
  for (const std::string& key : keys.unused())
    for (const auto& [word, effect] : foreign_words) {
      if (key.find(word) == std::string::npos) continue;
      if (const Json* value = keys.find(key); value != nullptr && !is_neutral(*value))
        keys.fail(key, "is " + shown(*value) + ", which by its name " + effect +
                           "; dsa has no such model, and would compute something else");
    }
}

Json with_canonical_names(const Json& json, const std::string& what) {
  require(json.is_object(), what + " is " + shown(json) + ", expected a JSON object");
  Json names = json;
  if (names.contains("text_config") && names["text_config"].is_object() &&
      !names.contains("hidden_size")) {
    const Json text = names["text_config"];
    names.erase("text_config");
    for (const auto& [key, value] : text.items()) names[key] = value;  // the inner value wins
  }
  constexpr std::pair<const char*, const char*> aliases[] = {
      {"num_experts", "n_routed_experts"},        {"num_local_experts", "n_routed_experts"},
      {"num_routed_experts", "n_routed_experts"}, {"num_shared_experts", "n_shared_experts"},
      {"moe_topk", "num_experts_per_tok"},        {"num_expert_group", "n_group"}};
  for (const auto& [alias, name] : aliases) {
    if (!names.contains(alias) || names[alias].is_null()) continue;
    const Json value = names[alias];
    require(!names.contains(name) || names[name].is_null() || names[name] == value,
            what + ": \"" + alias + "\" is " + shown(value) + " but \"" + name + "\" is " +
                shown(names.value(name, Json())) + "; remove one of the two");
    names[name] = value;
    names.erase(alias);
  }
  return names;
}

}  // namespace dsa::config_parts
