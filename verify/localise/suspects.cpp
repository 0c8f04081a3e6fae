#include "verify/localise/suspects.hpp"

#include <algorithm>
#include <limits>
#include <set>

#include "core/trace_names.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {
namespace {

/// Names of every op of the definition, in order of execution.
std::vector<std::string> all_ops(const ModelPair& models, const Recording& candidate) {
  RunOptions run;
  run.span = {0, models.definition.config.num_hidden_layers};
  run.keep = [](const std::string& name) {
    return name.find(".mlp.experts.") == std::string::npos &&
           name.find(".shared_experts.") == std::string::npos;
  };
  Sequence one = candidate.sequences[0];
  one.tokens.resize(1), one.positions.resize(1), one.documents.assign(1, 0);
  const Variant definition = models.exact();
  return run_reference(definition.model, one, definition.ops, run).order;
}

std::set<std::string> behind_departure(const std::string& departure, const Judgement& plain,
                                       const std::vector<std::string>& ops, const Config& config) {
  std::set<std::string> agree, found;
  const std::set<std::string> exist(ops.begin(), ops.end());
  for (const TensorResult& tensor : plain.tensors)
    if (tensor.ok()) agree.insert(tensor.name);
  std::vector<std::string> open = {departure};
  while (!open.empty()) {
    const std::string name = open.back();
    open.pop_back();
    if (agree.contains(name) || !exist.contains(name) || !found.insert(name).second) continue;
    for (const std::string& input : inputs_of(name, config)) open.push_back(input);
  }
  return found;
}

/// The fewest keys that a departing row sees.
Index fewest_keys(const Recording& candidate, const LogitsResult& logits) {
  Index fewest = std::numeric_limits<Index>::max();
  for (const RowResult& row : logits.rows) {
    if (!row.decided() || row.agrees()) continue;
    const auto& documents =
        candidate.sequences[static_cast<std::size_t>(row.at.sequence)].documents;
    const auto end = documents.begin() + row.at.position + 1;
    fewest = std::min<Index>(fewest, std::count(documents.begin(), end, *(end - 1)));
  }
  return fewest;
}

bool of_scores(const std::string& name) {
  const std::string_view rest = within_layer(name);
  return is_indexer_part(name) || rest == names::q_rope || rest == names::k_rope ||
         rest == names::heads;
}

}  // namespace

std::vector<std::string> suspects(const ModelPair& models, const Recording& candidate,
                                  const Judgement& plain) {
  const Config& config = models.definition.config;
  std::vector<std::string> ops = all_ops(models, candidate);
  if (plain.first_departure) {
    const auto found = behind_departure(*plain.first_departure, plain, ops, config);
    std::erase_if(ops, [&](const std::string& name) { return !found.contains(name); });
    return ops;
  }
  if (!plain.logits) return ops;
  const Index fewest = fewest_keys(candidate, *plain.logits);
  const bool sparse = config.indexer && config.use_sparse_attention;
  if (sparse && fewest > config.indexer->topk)
    std::erase_if(ops, [](const std::string& name) { return !is_indexer_part(name); });
  else if (fewest > 1)
    std::erase_if(ops, [](const std::string& name) { return !of_scores(name); });
  for (std::string& name : ops)  // logits do not tell layers apart
    if (layer_of(name) >= 0) name = within_layer(name);
  std::vector<std::string> once;
  for (const std::string& name : ops)
    if (std::find(once.begin(), once.end(), name) == once.end()) once.push_back(name);
  return once;
}

}  // namespace dsa::verify
