// The lightning indexer of a config.json.
#include <algorithm>
#include <cmath>

#include "core/config_parts.hpp"

namespace dsa::config_parts {
namespace {

/// Words of `indexer_types`, or letters of `index_topk_pattern`, as "computes its own".
std::vector<bool> read_pattern(const Keys& keys, Index layers, Index mtp) {
  std::vector<bool> computes;
  const Json& pattern = *keys.find("index_topk_pattern");
  if (!pattern.is_string()) {
    for (const auto& word : keys.texts("index_topk_pattern", layers, mtp, {"full", "shared"}))
      computes.push_back(word == "full");
    return computes;
  }
  for (char letter : pattern.get<std::string>()) {
    if (letter != 'F' && letter != 'S')
      keys.fail_expected("index_topk_pattern", "letters F (full) and S (shared), one a layer");
    computes.push_back(letter == 'F');
  }
  const auto size = static_cast<Index>(computes.size());
  if (size != layers && size != layers + mtp)
    keys.fail_expected("index_topk_pattern", std::to_string(layers) + " letters, one a layer");
  return computes;
}

/// A layer runs the indexer, or reuses what the last such layer chose: GLM-5, and IndexCache on
/// DeepSeek-V3.2 (vllm-project/vllm#37735). Without a list: the rule of
/// GlmMoeDsaConfig.__post_init__ in HuggingFace transformers. Entries behind the last layer are of
/// multi-token-prediction layers, which run their own.
std::vector<bool> read_index_sharing(const Keys& keys, const Config& c) {
  const Index layers = c.num_hidden_layers, mtp = c.num_nextn_predict_layers;
  std::vector<bool> computes;
  for (const char* key : {"index_topk_freq", "index_skip_topk_offset"})
    keys.has(key);  // a list beside them says the same in more words
  if (!keys.boolean_or("use_index_cache", true))
    return std::vector<bool>(static_cast<std::size_t>(layers), true);
  if (keys.has("index_topk_pattern")) computes = read_pattern(keys, layers, mtp);
  if (keys.has("indexer_types")) {
    std::vector<bool> listed;
    for (const auto& word : keys.texts("indexer_types", layers, mtp, {"full", "shared"}))
      listed.push_back(word == "full");
    listed.resize(static_cast<std::size_t>(layers));
    computes.resize(computes.empty() ? 0 : static_cast<std::size_t>(layers));
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
  computes.resize(static_cast<std::size_t>(layers));
  if (!computes.front())
    keys.fail(source,
              "makes layer 0 share an index, which has no layer before it; expected "
              "\"full\" there");
  return computes;
}

}  // namespace

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
  keys.boolean_or("index_share_for_mtp_iteration", false);  // of later iterations of MTP
  x.computes = read_index_sharing(keys, c);
  return x;
}

}  // namespace dsa::config_parts
