#include "verify/diagnose/power.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/threads.hpp"
#include "core/trace_names.hpp"
#include "verify/defects/defect.hpp"
#include "verify/judge/against_definition.hpp"
#include "verify/judge/precision_of.hpp"
#include "verify/judge/samples.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/selection.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

/// Rows of logits that the golden decides.
std::vector<std::vector<bool>> decided_rows(const Recording& golden, const Judgement& judgement) {
  std::vector<std::vector<bool>> decided;
  for (const Sequence& s : golden.sequences) decided.emplace_back(s.tokens.size(), false);
  if (judgement.logits)
    for (const RowResult& row : judgement.logits->rows)
      decided[static_cast<std::size_t>(row.at.sequence)]
             [static_cast<std::size_t>(row.at.position)] = row.decided();
  return decided;
}

double largest_excess(const Tensor<double, 2>& got, const Tensor<double, 2>& want,
                      const Tensor<double, 2>& allowed, const Sequence& sequence) {
  double worst = 0;
  const Index T = std::min(want.shape()[0], sequence.size());
  for (Index t = 0; t < T; ++t) {
    if (sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
    for (Index c = 0; c < want.shape()[1]; ++c) {
      worst = std::max(worst, in_units_of(allowed(t, c), got(t, c), want(t, c)));
    }
  }
  return worst;
}

/// Traced decisions of a broken run that no noise explains, a count of rows.
Index unexplained(const Run& run, const SequenceResult& right, const Recording& golden,
                  const Sequence& sequence) {
  Index rows = 0;
  for (const Decision& decision : right.base.decisions) {
    const Decision* mine = run.find(decision.name);
    if (mine == nullptr || !golden.trace.contains(decision.name)) continue;
    for (Index t = 0; t < sequence.size(); ++t)
      rows += sequence.documents[static_cast<std::size_t>(t)] >= 0 &&
              !is_explained(sorted_set(mine->chosen.view()[t]), decision.scores.view()[t],
                            right.limits.scores.at(decision.name).view()[t],
                            decision.chosen.shape()[1]);
  }
  return rows;
}

/// Where the right scores, within their noise, allow what a broken run decides, the judge would
/// replay it, and so the golden's decision takes its place here: a tie that falls otherwise is no
/// defect.
void side_with(const SequenceResult& right, const std::string& name, View<Index, 2> chosen) {
  const Decision* told = right.base.find(name);
  if (told == nullptr || told->chosen.shape() != chosen.shape) return;
  const Tensor<double, 2>& allowed = right.limits.scores.at(name);
  for (Index t = 0; t < chosen.shape[0]; ++t) {
    const std::vector<Index> mine = sorted_set(chosen[t]);
    if (mine != sorted_set(told->chosen.view()[t]) &&
        is_explained(mine, told->scores.view()[t], allowed.view()[t], chosen.shape[1]))
      std::copy(told->chosen.view()[t].begin(), told->chosen.view()[t].end(), chosen[t].begin());
  }
}

void try_variant(const Variant& broken, const Recording& golden, const SideResult& right,
                 const std::vector<std::vector<bool>>& decided, PowerRow& row) {
  for (std::size_t b = 0; b < right.sequences.size(); ++b) {
    const Sequence& sequence = golden.sequences[b];
    const SequenceResult& want = right.sequences[b];
    RunOptions options;
    options.span = {0, broken.model.config.num_hidden_layers};
    options.keep = [&](const std::string& name) { return want.base.trace.find(name) != nullptr; };
    options.decide = [&](const std::string& name, View<const double, 2>, View<Index, 2> chosen) {
      side_with(want, name, chosen);
    };
    const Run run = run_reference(broken.model, sequence, broken.ops, options);
    for (Index t = 0; t < want.base.logits.shape()[0]; ++t) {
      const auto i = static_cast<std::size_t>(t);
      if (!decided[b][i]) continue;
      const double kl = kl_divergence(want.base.logits.view()[t], run.logits.view()[t]);
      const double ratio = kl / want.limits.kl[i];
      if (is_worse(ratio, row.logits)) row.logits = ratio;
    }
    for (const Trace::Entry& entry : want.base.trace.entries()) {
      const Trace::Entry* mine = run.trace.find(entry.name);
      if (mine == nullptr || within_layer(entry.name) == names::gate_weights) continue;
      const double ratio = largest_excess(mine->values(), entry.values(),
                                          want.limits.tensors.at(entry.name), sequence);
      if (is_worse(ratio, row.traces)) row.traces = ratio;
    }
    row.selections += unexplained(run, want, golden, sequence);
  }
}

/// What a golden lacks, as far as the tokens and the file tell.
std::vector<std::string> advice(const Config& config, const Recording& golden, const Power& power) {
  std::vector<std::string> add;
  Index longest = 0, last = 0;
  bool padded = false;
  for (const Sequence& s : golden.sequences) {
    longest = std::max(longest, s.size());
    for (Index position : s.positions) last = std::max(last, position);
    for (Index document : s.documents) padded |= document < 0;
  }
  if (config.indexer && longest <= 4 * config.indexer->topk)
    add.push_back("a sequence of more than 4 x index_topk = " +
                  std::to_string(4 * config.indexer->topk) + " tokens: selections then differ");
  if (config.rope.yarn && static_cast<double>(last) <= config.rope.original_max_position_embeddings)
    add.push_back("positions beyond original_max_position_embeddings, where YaRN matters most");
  if (golden.trace.empty())
    add.push_back("a trace: it sees what positive factors and near-equal tensors hide from logits");
  if (!padded) add.push_back("a padded or ragged batch: masks are then part of what is seen");
  if (golden.dtype != "fp64") add.push_back("an fp64 column: its limits are 10 orders lower");
  if (power.caught() == static_cast<Index>(power.matrix.size())) add.clear();
  return add;
}

}  // namespace

Index Power::caught() const {
  return std::count_if(matrix.begin(), matrix.end(), [](const PowerRow& r) { return r.caught(); });
}

bool PowerRow::caught() const { return by_logits() || !(traces <= 1) || selections > 0; }

double PowerRow::most() const {
  const double of_decisions = selections > 0 ? std::numeric_limits<double>::infinity() : 0;
  double most = 0;
  for (const double ratio : {logits, traces, of_decisions})
    if (is_worse(ratio, most)) most = ratio;
  return most;
}

std::vector<Power> power_of_samples(const std::filesystem::path& directory,
                                    const JudgeOptions& options) {
  std::vector<Power> all;
  JudgeOptions each = options;
  each.dtype.clear();
  for (const Sample& sample : find_samples(directory)) {
    const std::string golden = sample.golden.string();
    if (!all.empty() && all.back().golden == golden) continue;  // another column of the same file
    all.push_back(power(sample.checkpoint, sample.golden, each));
  }
  return all;
}

std::vector<TogetherRow> together(const std::vector<Power>& goldens) {
  std::vector<TogetherRow> rows;
  for (std::size_t g = 0; g < goldens.size(); ++g)
    for (const PowerRow& mine : goldens[g].matrix) {
      auto row = std::find_if(rows.begin(), rows.end(), [&](const TogetherRow& r) {
        return r.best.name == mine.name && r.best.variant == mine.variant;
      });
      if (row == rows.end()) {
        rows.push_back({mine, 0, {}});
        row = rows.end() - 1;
        row->best.logits = row->best.traces = 0, row->best.selections = 0;
        row->most.resize(goldens.size(), -1);
      }
      row->goldens += mine.caught();
      row->most[g] = mine.most();
      if (is_worse(mine.logits, row->best.logits)) row->best.logits = mine.logits;
      if (is_worse(mine.traces, row->best.traces)) row->best.traces = mine.traces;
      row->best.selections = std::max(row->best.selections, mine.selections);
    }
  std::stable_sort(rows.begin(), rows.end(), [](const TogetherRow& a, const TogetherRow& b) {
    return a.best.number < b.best.number;
  });
  return rows;
}

Power power(const std::filesystem::path& checkpoint, const std::filesystem::path& golden_path,
            const JudgeOptions& options) {
  Power result;
  result.checkpoint = checkpoint.string();
  result.golden = golden_path.string();
  const Config config = read_config(checkpoint);
  const Recording golden = read_recording(golden_path, options.dtype, config.vocab_size);
  const reference::Precision precision =
      options.precision ? *options.precision : precision_of(golden);
  result.precision = name_of(precision);
  const ModelPair models =
      open_models(Checkpoint(checkpoint, options).stored, precision, config.fp8_block.has_value());
  const SideResult right = hold_against_definition(models, golden, "golden", options);
  require(right.judgement.outcome != Outcome::fail,
          golden_path.string() + " is not what the definition says (" + right.judgement.why +
              "); a wrong golden sees nothing");
  const auto decided = decided_rows(golden, right.judgement);

  std::vector<const DefectVariant*> variants;
  for (const Defect& defect : all_defects())
    if (defect.applies(config))
      for (const DefectVariant& variant : defect.variants) {
        result.matrix.push_back({defect.number, defect.name, variant.name, 0, 0, 0});
        variants.push_back(&variant);
      }
  int done = 0;
  std::mutex progress;
  const auto count = static_cast<int>(variants.size());
  parallel_for(count, models.in_memory ? shared_loop_ns : 0, [&](int i) {
    Variant broken = models.exact();
    variants[static_cast<std::size_t>(i)]->apply(broken);
    try_variant(broken, golden, right, decided, result.matrix[static_cast<std::size_t>(i)]);
    const std::lock_guard lock(progress);
    if (options.progress) options.progress("known defects", ++done, count);
  });
  result.add = advice(config, golden, result);
  result.receipt = make_receipt(checkpoint, golden_path, std::nullopt);
  result.receipt.draws = options;
  return result;
}

}  // namespace dsa::verify
