#include "verify/judge/against_definition.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/threads.hpp"
#include "core/trace_names.hpp"
#include "verify/judge/conclude.hpp"
#include "verify/judge/in_words.hpp"
#include "verify/judge/notes.hpp"
#include "verify/judge/traces.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// The span's input: the trace of the layer before it.
Tensor<double, 2> input_of(const Recording& side, Index begin) {
  const std::string name = layer_name(begin - 1);
  require(side.trace.contains(name),
          fmt::format("{} has no tensor {}, which layers from {} on start from; dump it, or begin "
                      "at layer 0",
                      side.path.string(), name, begin));
  return side.trace.at(name).values();
}

/// Of a side: which layers run on which input, what is traced, and how noise is measured.
struct Holding {
  const ModelPair& models;
  const Recording& side;
  RunOptions run;
  NoiseOptions noise;
  Tensor<double, 2> input = {};  // of the span, if it does not begin with the embedding

  bool is_traced(std::size_t b) const { return b == 0 && !side.trace.empty(); }
};

Holding holding_of(const ModelPair& models, const Recording& side, const JudgeOptions& options) {
  const Index L = models.definition.config.num_hidden_layers;
  const auto [begin, end] = options.layers.value_or(std::pair{Index{0}, L});
  Holding h{models, side, {}, noise_options(options, models)};
  h.noise.share = static_cast<Index>(side.sequences.size());
  if (begin > 0) h.input = input_of(side, begin);
  h.run.span = {begin, end, nullptr};
  h.run.head = !side.logits.empty() || side.trace.contains(names::norm);
  return h;
}

/// Base run and limits of a sequence whose decisions are the definition's own.
SequenceResult measure_sequence(const Holding& h, const Sequence& sequence) {
  const Variant definition = h.models.exact();
  SequenceResult result;
  result.base = run_reference(definition.model, sequence, definition.ops, h.run);
  result.limits = measure_limits(
      rounded_at_random(h.models), sequence, result.base, h.run,
      [](const std::string&) { return false; }, h.noise);
  return result;
}

struct TracedSequence {
  SequenceResult result;
  std::vector<TensorResult> tensors;
};

/// The first sequence, with a trace: its decisions are judged, and adopted where they are
/// explained; then its tensors are.
TracedSequence measure_traced(const Holding& h) {
  const Sequence& sequence = h.side.sequences[0];
  const Variant definition = h.models.exact();
  TracedDecisions traced(h.side, h.models.definition.config);
  RunOptions run = h.run;
  run.keep = [&](const std::string& name) { return h.side.trace.contains(name); };
  RunOptions adopting = run;
  adopting.decide = [&](const std::string& name, View<const double, 2> scores,
                        View<Index, 2> chosen) { traced.replay(name, scores, chosen); };
  const auto base = [&] {
    return run_reference(definition.model, sequence, definition.ops, adopting);
  };

  TracedSequence held;
  SequenceResult& result = held.result;
  result.base = base();
  result.limits = measure_limits(
      rounded_at_random(h.models), sequence, result.base, run,
      [&](const std::string& name) { return traced.determines(name); }, h.noise);
  add_last_place(result.limits, h.side, result.base);
  const std::string origin = origin_of_element_limit(h.noise) + ", and one unit in the last place";
  std::vector<TensorResult> decisions =
      judge_decisions(traced, result.base, result.limits, definition.ops, sequence, origin);
  if (traced.refused_any()) result.base = base();
  held.tensors =
      judge_tensors(h.side, result.base, result.limits, sequence, std::move(decisions), origin);
  return held;
}

bool any_beyond(const std::vector<RowResult>& rows) {
  return std::any_of(rows.begin(), rows.end(),
                     [](const RowResult& r) { return r.decided() && !r.agrees(); });
}

/// Judges the rows of all sequences. Where some lie beyond their limits: how far near-ties reach,
/// and then the search for those that explain them.
void judge_all_rows(const Holding& h, bool search, std::vector<SequenceResult>& results) {
  const Variant definition = h.models.exact();
  const TracedDecisions traced(h.side, h.models.definition.config);
  const auto is_fixed = [&](std::size_t b) -> IsFixed {
    return [&, b](const std::string& name) { return b == 0 && traced.determines(name); };
  };
  bool wrong = false;  // a row lies beyond its limit, and no near-tie reaches it
  for (std::size_t b = 0; b < results.size(); ++b) {
    const Sequence& sequence = h.side.sequences[b];
    FreeRuns measured = std::exchange(results[b].free, {});
    judge_rows(results[b], sequence, static_cast<Index>(b), h.side.logits[b]);
    if (!any_beyond(results[b].rows)) continue;
    results[b].free = !measured.reach.empty()
                          ? std::move(measured)
                          : measure_reach(rounded_at_random(h.models), sequence, results[b].base,
                                          h.run, is_fixed(b), results[b].limits, h.noise);
    settle_rows(results[b]);
    wrong |= any_beyond(results[b].rows);
  }
  const auto count = static_cast<int>(results.size());
  if (wrong || !search || h.run.span.begin != 0) return;
  parallel_for(count, h.noise.parallel ? shared_loop_ns : 0, [&](int i) {
    const auto b = static_cast<std::size_t>(i);
    if (results[b].free.reach.empty()) return;
    results[b].explanation =
        explain(definition, h.side.sequences[b], h.side.logits[b], results[b].base,
                results[b].limits, is_fixed(b), h.noise.alpha / static_cast<double>(h.noise.share));
    settle_rows(results[b]);
  });
}

void add_notes(Judgement& judgement, const Holding& h, const std::vector<SequenceResult>& sequences,
               const JudgeOptions& options) {
  if (h.run.span.begin > 0) return;
  const auto& indexer = h.models.definition.config.indexer;
  const std::string of_lengths =
      indexer ? lengths_note(*judgement.logits, h.side.sequences, indexer->topk) : "";
  if (!of_lengths.empty()) judgement.notes.push_back(of_lengths);
  if (h.models.precision != Precision::fp64 && h.models.in_memory)
    judgement.notes.push_back(emulation_note(h.models, h.side, sequences));
  if (options.own_error)
    judgement.notes.push_back(
        own_error_note(h.models.definition, h.side.sequences[0], sequences[0].base));
}

}  // namespace

Perturbed rounded_at_random(const ModelPair& models) {
  return [&models](std::uint64_t draw) {
    return models.rounded({reference::Rounding::Mode::random, draw});
  };
}

NoiseOptions noise_options(const JudgeOptions& options, const ModelPair& models) {
  NoiseOptions noise;
  static_cast<Draws&>(noise) = options;
  noise.precision = name_of(models.precision);
  noise.parallel = models.in_memory;
  return noise;
}

std::vector<SequenceResult> measure_sequences(const ModelPair& models,
                                              const std::vector<Sequence>& sequences,
                                              const JudgeOptions& options) {
  const Recording none;
  Holding h{models, none, {}, noise_options(options, models)};
  h.noise.share = static_cast<Index>(sequences.size());
  h.run.span = {0, models.definition.config.num_hidden_layers};
  std::vector<SequenceResult> measured;
  for (const Sequence& sequence : sequences) {
    SequenceResult result = measure_sequence(h, sequence);
    result.free = measure_reach(
        rounded_at_random(models), sequence, result.base, h.run,
        [](const std::string&) { return false; }, result.limits, h.noise);
    measured.push_back(std::move(result));
  }
  return measured;
}

SideResult hold(const ModelPair& models, const Recording& side, const std::string& what,
                const JudgeOptions& options, const std::vector<SequenceResult>* measured) {
  Holding h = holding_of(models, side, options);
  if (h.input.size() > 0) h.run.span.input = &h.input;
  SideResult result;
  Judgement& judgement = result.judgement;
  judgement.title = fmt::format("{} ({}) against the definition", what, h.noise.precision);
  judgement.precision = h.noise.precision;

  const bool whole =
      h.run.span.end == models.definition.config.num_hidden_layers && !side.logits.empty();
  const std::size_t count = whole ? side.logits.size() : 1;  // a trace is of sequence 0 only
  for (std::size_t b = 0; b < count; ++b) {
    if (options.progress)
      h.noise.progress = [&, b](int done, int of) {
        options.progress(fmt::format("{}, sequence {} of {}", what, b + 1, count), done, of);
      };
    if (measured != nullptr) {
      result.sequences.push_back(measured->at(b));
    } else if (h.is_traced(b)) {
      TracedSequence held = measure_traced(h);
      result.sequences.push_back(std::move(held.result));
      judgement.tensors = std::move(held.tensors);
      if (const std::string note = unknown_tensors_note(side, judgement.tensors); !note.empty())
        judgement.notes.push_back(note);
    } else {
      result.sequences.push_back(measure_sequence(h, side.sequences[b]));
    }
  }
  if (whole) {
    judge_all_rows(h, options.explain, result.sequences);
    judgement.logits = judge_logits(side.sequences, side.logits, result.sequences, h.noise);
    add_notes(judgement, h, result.sequences, options);
  }
  if (options.explain_limit)
    judgement.limits = explained_limits(judgement, result.sequences, side.sequences, h.noise);
  require(judgement.logits || !judgement.tensors.empty(),
          fmt::format("{} holds nothing that could be compared: neither logits nor a trace of "
                      "layers {} to {}",
                      side.path.string(), h.run.span.begin, h.run.span.end));
  return result;
}

SideResult hold_against_definition(const ModelPair& models, const Recording& side,
                                   const std::string& what, const JudgeOptions& options,
                                   const std::vector<SequenceResult>* measured) {
  SideResult result = hold(models, side, what, options, measured);
  conclude(result.judgement);
  return result;
}

}  // namespace dsa::verify
