#include "verify/judge/notes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/judge/inputs.hpp"
#include "verify/measure/divergence.hpp"

namespace dsa::verify {

std::string emulation_note(const ModelPair& models, const Recording& side,
                           const std::vector<SequenceResult>& results) {
  const Variant rounded = models.rounded({});
  RunOptions run;
  run.span = {0, rounded.model.config.num_hidden_layers};
  run.record_decisions = false;
  double emulated = 0, definition = 0, emulated_max = 0, definition_max = 0, rows = 0;
  for (std::size_t b = 0; b < side.logits.size(); ++b) {
    const Run emulation = run_reference(rounded.model, side.sequences[b], rounded.ops, run);
    for (Index t = 0; t < side.sequences[b].size(); ++t) {
      if (side.sequences[b].documents[static_cast<std::size_t>(t)] < 0) continue;
      const auto theirs = side.logits[b].view()[t];
      const double e = kl_divergence(theirs, emulation.logits.view()[t]);
      const double d = kl_divergence(theirs, results[b].base.logits.view()[t]);
      emulated += e, definition += d, ++rows;
      emulated_max = std::max(emulated_max, e), definition_max = std::max(definition_max, d);
    }
  }
  return fmt::format(
      "emulated {}, rounded to nearest: KL mean {:.2g} max {:.2g} (the definition: mean {:.2g} max "
      "{:.2g})",
      name_of(models.precision), emulated / rows, emulated_max, definition / rows, definition_max);
}

std::string own_error_note(const Model& model, const Sequence& sequence, const Run& base) {
  const auto ops = reference::definition<long double>();
  reference::Pass<long double> pass{model, ops};
  pass.tap.decision = [&](const std::string& name, View<const long double, 2>,
                          View<Index, 2> chosen) {
    const Tensor<Index, 2>& held = base.find(name)->chosen;
    std::copy(held.begin(), held.end(), chosen.begin());
  };
  reference::Cache<long double> cache;
  const Tensor<long double, 2> exact = reference::forward(pass, sequence, cache);
  double worst = 0;
  for (Index i = 0; i < exact.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(exact.data()[i]) - base.logits.data()[i]));
  return fmt::format("the reference's own rounding (double against long double): {:.2g} in a logit",
                     worst);
}

std::string lengths_note(const LogitsResult& logits, const std::vector<Sequence>& sequences,
                         Index topk) {
  std::vector<bool> is_long, fails(sequences.size()), early(sequences.size());
  for (const Sequence& s : sequences) {
    const Index longest = longest_visible({s});
    const auto tokens = std::count_if(s.documents.begin(), s.documents.end(),
                                      [](Index document) { return document >= 0; });
    if (longest != tokens) return {};
    is_long.push_back(longest > topk);
  }
  for (const RowResult& row : logits.rows) {
    if (!row.decided() || row.agrees()) continue;
    const auto b = static_cast<std::size_t>(row.at.sequence);
    const auto& documents = sequences[b].documents;
    fails[b] = true;
    early[b] = early[b] || std::count(documents.begin(), documents.begin() + row.at.position + 1,
                                      documents[static_cast<std::size_t>(row.at.position)]) <= topk;
  }
  Index longs = 0, shorts = 0, wrong_longs = 0, wrong_shorts = 0, early_longs = 0;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    ++(is_long[b] ? longs : shorts);
    if (fails[b]) ++(is_long[b] ? wrong_longs : wrong_shorts);
    early_longs += is_long[b] && early[b];
  }
  if (longs == 0 || shorts == 0) return {};
  const bool of_long = wrong_shorts == 0 && early_longs == longs,
             of_short = wrong_longs == 0 && wrong_shorts == shorts;
  if (!of_long && !of_short) return {};
  return fmt::format(
      "rows depart in prompts of {} index_topk = {} tokens, and in no other{}: such prompts take "
      "another path (defect 118; vllm-project/vllm#48611)",
      of_long ? "more than" : "at most", topk,
      of_long ? ", from rows on that have nothing to choose" : "");
}

std::string unknown_tensors_note(const Recording& side, const std::vector<TensorResult>& judged) {
  std::string names;
  int count = 0;
  for (const Trace::Entry& entry : side.trace.entries()) {
    const bool known = std::any_of(judged.begin(), judged.end(),
                                   [&](const TensorResult& r) { return r.name == entry.name; });
    if (!known && ++count <= 3) names += (names.empty() ? "" : ", ") + entry.name;
  }
  if (count == 0) return {};
  return fmt::format(
      "{} tensors of the file were not compared, since the reference has none of that name: {}{}",
      count, names, count > 3 ? ", ..." : "");
}

}  // namespace dsa::verify
