#include "verify/suspects.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "verify/run.hpp"

namespace dsa::verify {
namespace {

/// What an op of a layer is made of; names within the layer. "<" is the layer's input.
const std::map<std::string, std::vector<std::string>>& made_of() {
  static const std::map<std::string, std::vector<std::string>> inputs = {
      {"input_layernorm", {"<"}},
      {"self_attn.q_a_proj", {"input_layernorm"}},
      {"self_attn.q_a_layernorm", {"self_attn.q_a_proj"}},
      {"self_attn.q_b_proj", {"self_attn.q_a_layernorm"}},
      {"self_attn.q_proj", {"input_layernorm"}},
      {"self_attn.q_rope", {"self_attn.q_b_proj", "self_attn.q_proj"}},
      {"self_attn.kv_a_proj_with_mqa", {"input_layernorm"}},
      {"self_attn.kv_a_layernorm", {"self_attn.kv_a_proj_with_mqa"}},
      {"self_attn.k_rope", {"self_attn.kv_a_proj_with_mqa"}},
      {"self_attn.kv_b_proj", {"self_attn.kv_a_layernorm"}},
      {"self_attn.indexer.wq_b", {"self_attn.q_a_layernorm"}},
      {"self_attn.indexer.q", {"self_attn.indexer.wq_b"}},
      {"self_attn.indexer.wk", {"input_layernorm"}},
      {"self_attn.indexer.k_norm", {"self_attn.indexer.wk"}},
      {"self_attn.indexer.k", {"self_attn.indexer.k_norm"}},
      {"self_attn.indexer.weights_proj", {"input_layernorm"}},
      {"self_attn.indexer.scores",
       {"self_attn.indexer.q", "self_attn.indexer.k", "self_attn.indexer.weights_proj"}},
      {"self_attn.indexer", {"self_attn.indexer.scores"}},
      {"self_attn.heads",
       {"self_attn.q_b_proj", "self_attn.q_proj", "self_attn.q_rope", "self_attn.k_rope",
        "self_attn.kv_b_proj", "self_attn.indexer"}},
      {"self_attn", {"self_attn.heads"}},
      {"attention_residual", {"self_attn", "<"}},
      {"post_attention_layernorm", {"attention_residual"}},
      {"mlp.gate.logits", {"post_attention_layernorm"}},
      {"mlp.gate.choice", {"mlp.gate.logits"}},
      {"mlp.gate.group_scores", {"mlp.gate.choice"}},
      {"mlp.gate.groups", {"mlp.gate.group_scores"}},
      {"mlp.gate.experts", {"mlp.gate.choice", "mlp.gate.groups"}},
      {"mlp.gate.weights", {"mlp.gate.choice", "mlp.gate.experts"}},
      {"mlp.experts", {"post_attention_layernorm", "mlp.gate.experts", "mlp.gate.weights"}},
      {"mlp.shared_experts", {"post_attention_layernorm"}},
      {"mlp.gate_proj", {"post_attention_layernorm"}},
      {"mlp.up_proj", {"post_attention_layernorm"}},
      {"mlp.down_proj", {"mlp.gate_proj", "mlp.up_proj"}},
      {"mlp", {"mlp.experts", "mlp.shared_experts", "mlp.down_proj"}},
      {"", {"attention_residual", "mlp"}},
  };
  return inputs;
}

std::string layer_name(Index layer) { return "model.layers." + std::to_string(layer); }

/// Full names of what `name` is made of.
std::vector<std::string> inputs_of(const std::string& name, Index layers) {
  const Index layer = layer_of(name);
  if (layer < 0) {
    if (name == "lm_head") return {"model.norm"};
    if (name == "model.norm") return {layer_name(layers - 1)};
    return {};
  }
  const std::string at = layer_name(layer);
  const auto found = made_of().find(name == at ? "" : name.substr(at.size() + 1));
  if (found == made_of().end()) return {};
  std::vector<std::string> inputs;
  for (const std::string& input : found->second)
    inputs.push_back(input != "<" ? at + "." + input
                     : layer == 0 ? "model.embed_tokens"
                                  : layer_name(layer - 1));
  return inputs;
}

/// Names of every op of the definition, in order of execution.
std::vector<std::string> all_ops(const Models& models, const Golden& candidate) {
  RunOptions run;
  run.span = {0, models.definition.config.num_hidden_layers};
  run.keep = [](const std::string& name) {
    return name.find(".mlp.experts.") == std::string::npos &&
           name.find(".shared_experts.") == std::string::npos;
  };
  Sequence one = candidate.sequences[0];
  one.tokens.resize(1), one.positions.resize(1), one.documents.assign(1, 0);
  const Altered definition = models.exact();
  return run_reference(definition.model, one, definition.ops, run).order;
}

std::set<std::string> behind_departure(const std::string& departure, const Judgement& plain,
                                       const std::vector<std::string>& ops, Index layers) {
  std::set<std::string> agree, found;
  const std::set<std::string> exist(ops.begin(), ops.end());
  for (const TensorResult& tensor : plain.tensors)
    if (tensor.ok()) agree.insert(tensor.name);
  std::vector<std::string> open = {departure};
  while (!open.empty()) {
    const std::string name = open.back();
    open.pop_back();
    if (agree.contains(name) || !exist.contains(name) || !found.insert(name).second) continue;
    for (const std::string& input : inputs_of(name, layers)) open.push_back(input);
  }
  return found;
}

/// The fewest keys that a departing row sees.
Index fewest_keys(const Golden& candidate, const LogitsResult& logits) {
  Index fewest = std::numeric_limits<Index>::max();
  for (const RowResult& row : logits.rows) {
    if (!row.decided() || (row.kl <= row.kl_limit && row.worst_over_allowed <= 1)) continue;
    const auto& documents =
        candidate.sequences[static_cast<std::size_t>(row.at.sequence)].documents;
    const auto end = documents.begin() + row.at.position + 1;
    fewest = std::min<Index>(fewest, std::count(documents.begin(), end, *(end - 1)));
  }
  return fewest;
}

bool of_indexer(const std::string& name) {
  return name.find("self_attn.indexer") != std::string::npos;
}
bool of_scores(const std::string& name) {
  return of_indexer(name) || name.ends_with("_rope") || name.ends_with("self_attn.heads");
}

}  // namespace

std::vector<std::string> suspects(const Models& models, const Golden& candidate,
                                  const Judgement& plain) {
  const Config& config = models.definition.config;
  std::vector<std::string> ops = all_ops(models, candidate);
  if (plain.first_departure) {
    const auto found =
        behind_departure(*plain.first_departure, plain, ops, config.num_hidden_layers);
    std::erase_if(ops, [&](const std::string& name) { return !found.contains(name); });
    return ops;
  }
  if (!plain.logits) return ops;
  const Index fewest = fewest_keys(candidate, *plain.logits);
  const bool sparse = config.indexer && config.use_sparse_attention;
  if (sparse && fewest > config.indexer->topk)
    std::erase_if(ops, [](const std::string& name) { return !of_indexer(name); });
  else if (fewest > 1)
    std::erase_if(ops, [](const std::string& name) { return !of_scores(name); });
  for (std::string& name : ops)  // logits do not tell layers apart
    if (layer_of(name) >= 0) name = name.substr(name.find('.', sizeof "model.layers.") + 1);
  std::vector<std::string> once;
  for (const std::string& name : ops)
    if (std::find(once.begin(), once.end(), name) == once.end()) once.push_back(name);
  return once;
}

}  // namespace dsa::verify
