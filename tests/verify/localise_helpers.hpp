// tests/verify/localise_helpers.hpp — traces of the reference, right or broken, as if read from a
// file.
#pragma once

#include <cstring>
#include <functional>
#include <set>
#include <string>

#include "tests/verify/judge_helpers.hpp"
#include "verify/localise/localise.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/names/layout.hpp"

namespace dsa::test {

/// Adds a tensor to a golden's trace.
template <class T>
void add_trace(Recording& golden, const std::string& name, Dtype dtype, std::vector<Index> shape,
               const std::vector<T>& values) {
  const auto tensor = std::make_shared<verify::OwnTensor>();
  tensor->name = name, tensor->dtype = dtype, tensor->shape = std::move(shape);
  const auto bytes = std::as_bytes(std::span(values));
  tensor->bytes.assign(bytes.begin(), bytes.end());
  tensor->data = tensor->bytes.data();
  golden.laid_out.push_back(tensor);
  golden.traces[name] = tensor.get();
}

/// What an altered reference would dump of a sequence: the names that `keeps` lets through.
inline Recording dump_of(const verify::Variant& altered, const Sequence& sequence,
                         const std::function<bool(const std::string&)>& keeps) {
  verify::RunOptions options;
  options.span.end = altered.model.config.num_hidden_layers;
  options.keep = [&](const std::string& name) { return verify::is_traced(name) && keeps(name); };
  const verify::Run run = run_reference(altered.model, sequence, altered.ops, options);
  Recording golden;
  golden.path = "dump";
  golden.sequences = {sequence};
  for (const Trace::Entry& entry : run.trace.entries())
    add_trace(golden, entry.name, Dtype::f64, {entry.values.shape()[0], entry.values.shape()[1]},
              std::vector<double>(entry.values.begin(), entry.values.end()));
  for (const verify::Decision& decision : run.decisions)
    if (keeps(decision.name))
      add_trace(golden, decision.name, Dtype::i64,
                {decision.chosen.shape()[0], decision.chosen.shape()[1]},
                std::vector<Index>(decision.chosen.begin(), decision.chosen.end()));
  return golden;
}

inline bool everything(const std::string&) { return true; }

/// What HuggingFace's modules show (data/README.md).
inline bool modules(const std::string& name) {
  for (const char* hidden :
       {"self_attn.q_rope", "self_attn.k_rope", "self_attn.heads", "indexer.q", "indexer.k",
        "attention_residual", "mlp.gate.choice", "mlp.gate.group_scores", "mlp.gate.groups",
        "mlp.experts", "gate_proj", "up_proj", "down_proj"})
    if (name.ends_with(hidden)) return false;
  return true;
}

/// "self_attn.indexer.q" of "model.layers.3.self_attn.indexer.q"; "" of a block itself.
inline std::string within_layer(const std::string& name) {
  const Index l = layer_of(name);
  if (l < 0) return name;
  const std::string block = "model.layers." + std::to_string(l);
  return name == block ? "" : name.substr(block.size() + 1);
}

/// Names of what is wrong, without their layers.
inline std::set<std::string> wrong_names(const verify::Grafted& grafted) {
  std::set<std::string> names;
  for (const verify::FaultyOp& wrong : grafted.wrong) names.insert(within_layer(wrong.tensor.name));
  return names;
}

}  // namespace dsa::test
