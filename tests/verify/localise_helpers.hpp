// tests/verify/localise_helpers.hpp — traces of the reference, right or broken, as if read from a
// file.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "core/trace_names.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/localise/localise.hpp"
#include "verify/names/dataflow.hpp"

namespace dsa::test {

inline const verify::ModelPair& v32() {
  static const verify::ModelPair models =
      verify::open_models(sample("v32") / "checkpoint", reference::Precision::fp64);
  return models;
}

/// The first n tokens of v32's golden; index_topk is 22.
inline Sequence first_of_v32(Index n) {
  const Recording golden = read_recording(sample("v32") / "logits.safetensors", "fp64", 0);
  const std::vector<Token>& all = golden.sequences[0].tokens;
  return plain_sequence({all.begin(), all.begin() + n});
}

/// Adds a tensor to a golden's trace.
template <class T>
void add_trace(Recording& golden, const std::string& name, Dtype dtype, std::vector<Index> shape,
               const std::vector<T>& values) {
  const auto memory = std::make_shared<const std::vector<T>>(values);
  Trace::Entry entry;
  entry.name = name, entry.dtype = dtype, entry.shape = std::move(shape);
  entry.data = reinterpret_cast<const std::byte*>(memory->data());
  entry.memory = memory;
  golden.trace.erase_if([&](const std::string& other) { return other == name; });
  golden.trace.put(std::move(entry));
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
  for (const Trace::Entry& entry : run.trace.entries()) golden.trace.put(entry);
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

/// "self_attn.indexer.q" of "model.layers.3.self_attn.indexer.q"; "" of a block itself; other names
/// as they are.
inline std::string short_name(const std::string& name) {
  return layer_of(name) < 0 ? name : std::string(within_layer(name));
}

/// Names of what is wrong, without their layers.
inline std::set<std::string> wrong_names(const verify::Grafted& grafted) {
  std::set<std::string> names;
  for (const verify::FaultyOp& wrong : grafted.wrong) names.insert(short_name(wrong.tensor.name));
  return names;
}

}  // namespace dsa::test
