// run/inspect_report.cpp — an Inspection as text and as JSON.
#include <fmt/format.h>

#include <cmath>

#include "core/checkpoint_writer.hpp"
#include "core/json.hpp"
#include "run/inspect.hpp"

namespace dsa::run {
namespace {

/// 1234567 -> "1,234,567".
std::string grouped(Index n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<Index>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::string rounded(double x) { return grouped(static_cast<Index>(x + 0.5)); }

/// 0.000 with a decimal prefix: "1.42 G".
std::string engineering(double x) {
  constexpr const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t i = 0;
  for (; x >= 999.5 && i + 1 < std::size(prefixes); ++i) x /= 1000;
  return fmt::format("{:.3g} {}", x, prefixes[i]);
}

std::string network_of(const Config& c, std::size_t layer) {
  if (!c.is_moe[layer]) return fmt::format("dense, width {}", c.intermediate_size);
  const std::string shared =
      c.n_shared_experts > 0 ? fmt::format(" + {} shared", c.n_shared_experts) : "";
  return fmt::format("{} of {} experts{}, width {}", c.num_experts_per_tok, c.n_routed_experts,
                     shared, c.moe_intermediate_size);
}

std::string index_of(const Config& c, std::size_t layer) {
  if (!c.indexer) return "all keys";
  if (c.indexer->computes[layer]) return "own index";
  std::size_t source = layer;
  while (!c.indexer->computes[source]) --source;
  return fmt::format("index of layer {}", source);
}

/// Runs of layers of the same kind: {first, last, network, index}.
struct Run {
  std::size_t first, last;
  std::string network, index;
};
std::vector<Run> runs_of(const Config& c) {
  std::vector<Run> runs;
  for (std::size_t l = 0; l < c.is_moe.size(); ++l) {
    Run now{l, l, network_of(c, l), index_of(c, l)};
    if (!runs.empty() && runs.back().network == now.network && runs.back().index == now.index)
      runs.back().last = l;
    else
      runs.push_back(std::move(now));
  }
  return runs;
}

std::string range_text(const Run& run) {
  return run.first == run.last ? fmt::format("{}", run.first)
                               : fmt::format("{}-{}", run.first, run.last);
}

std::string header_text(const Inspection& r) {
  const Config& c = r.config;
  std::string text = fmt::format("{}\n", r.directory.string());
  text += fmt::format("{}: {} layers, hidden {}, {} heads, vocabulary {}", c.model_type,
                      c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.vocab_size);
  if (c.tie_word_embeddings) text += ", tied head";
  if (r.mtp_blocks > 0) text += fmt::format(", {} MTP block(s)", r.mtp_blocks);
  if (c.indexer)
    text += fmt::format("\nindexer: {} heads x {}, top-k {}{}", c.indexer->n_heads,
                        c.indexer->head_dim, c.indexer->topk,
                        c.use_sparse_attention ? "" : " (use_sparse_attention is false)");
  return text + "\n";
}

std::string cost_text(const Inspection& r) {
  const auto row = [](const std::string& what, const Cost& cost) {
    return fmt::format("{:<26}{:>14}{:>14}\n", what, engineering(cost.bytes) + "B",
                       engineering(cost.flops) + "FLOP");
  };
  const Cost all{r.weights.bytes + r.attention.bytes + r.indexer.bytes,
                 r.weights.flops + r.attention.flops + r.indexer.flops};
  const bool sparse = r.config.indexer && r.config.use_sparse_attention;
  const Index keys = sparse ? std::min(r.config.indexer->topk, r.context) : r.context;
  std::string text = fmt::format("\n{:<26}{:>14}{:>14}\n", "one token decoded", "read", "compute");
  text += row("weights", r.weights);
  text += row(fmt::format("attention, {} keys", grouped(keys)), r.attention);
  if (sparse) text += row(fmt::format("indexer, {} keys", grouped(r.context)), r.indexer);
  text += row("total", all);
  text += fmt::format("{:<26}{:>14}\n", "cache a token",
                      engineering(static_cast<double>(r.cache_bytes_per_token)) + "B");
  const double cache =
      static_cast<double>(r.cache_bytes_per_token) * static_cast<double>(r.context);
  return text + fmt::format("{:<26}{:>14}\n", "cache at " + grouped(r.context) + " tokens",
                            engineering(cache) + "B");
}

/// {kind, sentences} in the order of the report.
std::vector<std::pair<const char*, const std::vector<std::string>*>> problem_lists(
    const Inspection& r) {
  return {{"missing", &r.problems.missing},     {"extra", &r.problems.extra},
          {"misshaped", &r.problems.misshaped}, {"unreadable", &r.problems.unreadable},
          {"not_finite", &r.not_finite},        {"bad_scale", &r.bad_scales}};
}

}  // namespace

std::string as_text(const Inspection& r) {
  std::string text = header_text(r);
  const auto count = [&](const char* what, const std::string& n) {
    text += fmt::format("{:<26}{:>20}\n", what, n);
  };
  text += "\n";
  count("parameters", grouped(r.parameters));
  count("  active per token", rounded(r.active_parameters));
  count("  routed experts", grouped(r.routed_parameters));
  count("  indexers", grouped(r.indexer_parameters));
  if (r.mtp_blocks > 0) count("  MTP blocks", grouped(r.mtp_parameters));

  text += fmt::format("\n{:<10}{:<44}{}\n", "layers", "feed-forward", "attention");
  for (const Run& run : runs_of(r.config))
    text += fmt::format("{:<10}{:<44}{}\n", range_text(run), run.network, run.index);

  text += fmt::format("\n{:<10}{:>16}{:>20}\n", "dtype", "tensors", "bytes");
  for (const auto& [name, row] : r.dtypes)
    text += fmt::format("{:<10}{:>16}{:>20}\n", name, grouped(row.tensors), grouped(row.bytes));
  text += cost_text(r) + "\n";

  std::size_t problems = 0;
  for (const auto& [kind, list] : problem_lists(r)) {
    problems += list->size();
    for (const std::string& sentence : *list) text += fmt::format("{:<12}{}\n", kind, sentence);
  }
  for (const std::string& sentence : r.warnings)
    text += fmt::format("{:<12}{}\n", "warning", sentence);
  text += !r.has_weights ? "ok: dsa runs this model; counted from the config, no weights are here\n"
          : problems == 0 ? "ok: every tensor is there, of the right shape, and finite\n"
                          : fmt::format("{} problem{}\n", problems, problems == 1 ? "" : "s");
  return text;
}

Json as_json(const Inspection& r) {
  const auto cost = [](const Cost& c) { return Json{{"bytes", c.bytes}, {"flops", c.flops}}; };
  Json json{{"directory", r.directory.string()},
            {"model_type", r.config.model_type},
            {"num_hidden_layers", r.config.num_hidden_layers},
            {"mtp_blocks", r.mtp_blocks},
            {"has_weights", r.has_weights},
            {"context", r.context},
            {"parameters", r.parameters},
            {"active_parameters", std::llround(r.active_parameters)},
            {"routed_parameters", r.routed_parameters},
            {"indexer_parameters", r.indexer_parameters},
            {"mtp_parameters", r.mtp_parameters},
            {"weights", cost(r.weights)},
            {"attention", cost(r.attention)},
            {"indexer", cost(r.indexer)},
            {"cache_bytes_per_token", r.cache_bytes_per_token},
            {"ok", r.ok()}};
  for (std::size_t l = 0; l < r.config.is_moe.size(); ++l)
    json["layers"].push_back(
        {{"mixture", static_cast<bool>(r.config.is_moe[l])}, {"attention", index_of(r.config, l)}});
  json["dtypes"] = Json::object();
  for (const auto& [name, row] : r.dtypes)
    json["dtypes"][name] = {{"tensors", row.tensors}, {"bytes", row.bytes}};
  for (const auto& [kind, list] : problem_lists(r)) json["problems"][kind] = *list;
  json["warnings"] = r.warnings;
  json["unused_keys"] = r.config.unused_keys;
  return json;
}

}  // namespace dsa::run
