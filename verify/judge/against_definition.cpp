#include "verify/judge/against_definition.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/checkpoint.hpp"
#include "core/threads.hpp"
#include "verify/judge/notes.hpp"
#include "verify/judge/traces.hpp"
#include "verify/limits/in_words.hpp"
#include "verify/measure/divergence.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// The span's input: the trace of the layer before it.
Tensor<double, 2> input_of(const Recording& side, Index begin) {
  const std::string name = "model.layers." + std::to_string(begin - 1);
  const auto stored = side.traces.find(name);
  require(stored != side.traces.end(), side.path.string() + " has no tensor " + name +
                                           ", which layers from " + std::to_string(begin) +
                                           " on start from; dump it, or begin at layer 0");
  return trace_values(*stored->second);
}

/// The definition over one sequence; a trace's decisions are adopted.
Run base_run(const Variant& definition, const Sequence& sequence, const RunOptions& options,
             const TracedDecisions* told) {
  RunOptions run = options;
  if (told != nullptr)
    run.decide = [told](const std::string& name, View<const double, 2> scores,
                        View<Index, 2> chosen) { told->replay(name, scores, chosen); };
  return run_reference(definition.model, sequence, definition.ops, run);
}

bool agrees(const RowResult& r) { return r.kl <= r.kl_limit && r.worst_over_allowed <= 1; }

RowResult judge_row(const LogitsRow& row, const SequenceResult& sequence) {
  const auto t = static_cast<std::size_t>(row.at.position);
  RowResult r;
  r.at = row.at;
  r.kl = larger_kl(row.want, row.got);
  r.kl_limit = sequence.limits.kl[t];
  for (Index v = 0; v < row.want.size(); ++v) {
    const double error = std::abs(row.got(v) - row.want(v));
    const double ratio = error == 0 ? 0 : error / sequence.limits.logits(row.at.position, v);
    if (is_worse(ratio, r.worst_over_allowed)) r.worst_over_allowed = ratio, r.at.channel = v;
  }
  // A row that agrees as well as rounding allows is right, whatever might have happened to it.
  if (agrees(r) || sequence.free.reach.empty()) return r;
  const Reach& reach = sequence.free.reach[t];
  if (!(reach.kl > r.kl_limit && r.kl <= reach.kl)) return r;
  if (!sequence.explanation.explained.empty()) {
    r.explained = sequence.explanation.explained[t];
    r.kl_explained = sequence.explanation.kl[t];
  }
  r.undecided = !r.explained;
  r.decision = reach.first.name;
  r.decided_at = reach.first.position;
  r.margin = reach.first.margin;
  r.noise = reach.first.noise;
  return r;
}

/// Undecided rows taken together: their mean KL against that of the free runs.
Check judge_undecided(const LogitsResult& result, const std::vector<SequenceResult>& sequences,
                      const NoiseOptions& options) {
  Check check;
  std::vector<double> means;
  for (const RowResult& row : result.rows) {
    if (!row.undecided) continue;
    const FreeRuns& free = sequences[static_cast<std::size_t>(row.at.sequence)].free;
    means.resize(free.kl.size());
    ++check.n;
    check.value += row.kl;
    for (std::size_t m = 0; m < means.size(); ++m)
      means[m] += free.kl[m][static_cast<std::size_t>(row.at.position)];
  }
  if (check.n == 0) return check;
  const auto n = static_cast<double>(check.n);
  for (double& mean : means) mean /= n;
  check.value /= n;
  check.limit = limit_of_means(means, options.alpha / 3);
  check.over = check.value <= check.limit ? 0 : 1;
  check.from = std::to_string(options.runs) + " free runs (" + options.precision +
               "), decisions within the noise cast by lot; Student t on the logarithm of the mean";
  return check;
}

void add_flips(LogitsResult& result, const Explanation& explanation, Index sequence) {
  for (const Flip& flip : explanation.flips)
    result.flips.push_back({sequence, layer_of(flip.name), flip.position, flip.name, flip.without,
                            flip.with, flip.margin, flip.noise});
  result.flips_expected += explanation.expected;
  result.flips_most += explanation.most;
}

/// Some row departs that, as far as is known by now, no decision within the noise accounts for.
bool departs(const Sequence& sequence, const Tensor<double, 2>& theirs,
             const SequenceResult& result) {
  for (Index t = 0; t < sequence.size(); ++t) {
    if (sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
    const RowResult row =
        judge_row({{0, t, -1}, theirs.view()[t], result.base.logits.view()[t], -1, -1}, result);
    if (row.decided() && !agrees(row)) return true;
  }
  return false;
}

/// Holds one sequence against the definition; tensors and notes go to the judgement.
SequenceResult hold_sequence(const ModelPair& models, const Recording& side, std::size_t b,
                             const RunOptions& span, const NoiseOptions& noise,
                             Judgement& judgement) {
  const Sequence& sequence = side.sequences[b];
  const Variant definition = models.exact();
  TracedDecisions told(side, models.definition.config);
  const bool traced = b == 0 && !side.traces.empty();
  RunOptions run = span;
  if (traced) run.keep = [&](const std::string& name) { return side.traces.contains(name); };
  const IsFixed known = [&](const std::string& name) { return traced && told.told(name); };
  const Perturbed perturbed = [&](std::uint64_t draw) {
    return models.rounded({reference::Rounding::Mode::random, draw});
  };

  SequenceResult result;
  result.base = base_run(definition, sequence, run, traced ? &told : nullptr);
  result.limits = measure_limits(perturbed, sequence, result.base, run, known, noise);
  if (traced) {
    add_last_place(result.limits, side, result.base);
    const std::string origin = origin_of_element_limit(noise) + ", and one unit in the last place";
    std::vector<TensorResult> decisions =
        judge_decisions(told, result.base, result.limits, definition.ops, sequence, origin);
    if (told.refused_any()) result.base = base_run(definition, sequence, run, &told);
    judgement.tensors =
        judge_tensors(side, result.base, result.limits, sequence, std::move(decisions), origin);
    if (const std::string unknown = unknown_tensors_note(side, judgement.tensors); !unknown.empty())
      judgement.notes.push_back(unknown);
  }
  return result;
}

/// What the rows that depart hang on: reach of the decisions, then the search for an explanation.
void account_for_rows(const ModelPair& models, const Recording& side, const RunOptions& span,
                      const NoiseOptions& noise, bool search,
                      std::vector<SequenceResult>& results) {
  const Variant definition = models.exact();
  const Perturbed perturbed = [&](std::uint64_t draw) {
    return models.rounded({reference::Rounding::Mode::random, draw});
  };
  const TracedDecisions told(side, models.definition.config);
  const auto known = [&](std::size_t b) -> IsFixed {
    return [&, b](const std::string& name) { return b == 0 && told.told(name); };
  };
  bool wrong = false;  // a row departs that no decision within the noise reaches
  for (std::size_t b = 0; b < results.size(); ++b) {
    const Sequence& sequence = side.sequences[b];
    FreeRuns measured = std::exchange(results[b].free, {});
    if (!departs(sequence, side.logits[b], results[b])) continue;
    results[b].free = !measured.reach.empty()
                          ? std::move(measured)
                          : measure_reach(perturbed, sequence, results[b].base, span, known(b),
                                          results[b].limits, noise);
    wrong |= departs(sequence, side.logits[b], results[b]);
  }
  const auto count = static_cast<int>(results.size());
  if (wrong || !search || span.span.begin != 0) return;
  parallel_for(count, noise.parallel ? shared_loop_ns : 0, [&](int i) {
    const auto b = static_cast<std::size_t>(i);
    if (!results[b].free.reach.empty())
      results[b].explanation =
          explain(definition, side.sequences[b], side.logits[b], results[b].base, results[b].limits,
                  known(b), noise.alpha / static_cast<double>(noise.share));
  });
}

}  // namespace

void add_to(Check& check, double value, double limit, const Place& at) {
  const bool worse = check.n == 0 || is_worse(value * check.limit, check.value * limit);
  ++check.n;
  if (!(value <= limit)) ++check.over;
  if (worse) check.value = value, check.limit = limit, check.at = at;
}

NoiseOptions noise_options(const JudgeOptions& options, const ModelPair& models) {
  NoiseOptions noise;
  noise.precision = name_of(models.precision);
  noise.runs = options.runs;
  noise.seed = options.seed;
  noise.alpha = options.alpha;
  noise.parallel = models.in_memory;
  return noise;
}

LogitsResult judge_logits(const std::vector<Sequence>& sequences,
                          const std::vector<Tensor<double, 2>>& want,
                          const std::vector<Tensor<double, 2>>& got,
                          const std::vector<SequenceResult>& results, const NoiseOptions& options) {
  LogitsResult result;
  std::vector<LogitsRow> all, decided;
  for (std::size_t b = 0; b < want.size(); ++b) {
    const Sequence& s = sequences[b];
    for (Index t = 0; t < s.size(); ++t) {
      const auto i = static_cast<std::size_t>(t);
      if (s.documents[i] < 0) continue;
      const bool labelled = t + 1 < s.size() && s.documents[i + 1] == s.documents[i];
      LogitsRow row{{static_cast<Index>(b), t, -1},
                    want[b].view()[t],
                    got[b].view()[t],
                    s.tokens[i],
                    labelled ? s.tokens[i + 1] : -1};
      result.rows.push_back(judge_row(row, results[b]));
      all.push_back(row);
      const RowResult& r = result.rows.back();
      if (r.undecided || r.explained) continue;
      decided.push_back(row);
      add_to(result.kl, r.kl, r.kl_limit, {r.at.sequence, r.at.position, -1});
      add_to(result.elements, r.worst_over_allowed, 1, r.at);
    }
    add_flips(result, results[b].explanation, static_cast<Index>(b));
  }
  result.all = measure(all);
  result.decided = measure(decided);
  result.together = judge_undecided(result, results, options);
  result.kl.from = origin_of_kl_limit(options, result.all.rows);
  result.elements.from = origin_of_element_limit(options);
  return result;
}

std::vector<SequenceResult> measure_sequences(const ModelPair& models,
                                              const std::vector<Sequence>& sequences,
                                              const JudgeOptions& options) {
  Recording side;
  side.sequences = sequences;
  NoiseOptions noise = noise_options(options, models);
  noise.share = static_cast<Index>(sequences.size());
  RunOptions run;
  run.span = {0, models.definition.config.num_hidden_layers};
  const Perturbed perturbed = [&](std::uint64_t draw) {
    return models.rounded({reference::Rounding::Mode::random, draw});
  };
  const IsFixed none = [](const std::string&) { return false; };
  std::vector<SequenceResult> measured;
  Judgement unused;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    SequenceResult result = hold_sequence(models, side, b, run, noise, unused);
    result.free =
        measure_reach(perturbed, sequences[b], result.base, run, none, result.limits, noise);
    measured.push_back(std::move(result));
  }
  return measured;
}

SideResult hold_against_definition(const ModelPair& models, const Recording& side,
                                   const std::string& what, const JudgeOptions& options,
                                   const std::vector<SequenceResult>* measured) {
  const Config& config = models.definition.config;
  const auto layers = options.layers.value_or(std::pair{Index{0}, config.num_hidden_layers});
  NoiseOptions noise = noise_options(options, models);
  noise.share = static_cast<Index>(side.sequences.size());
  SideResult result;
  Judgement& judgement = result.judgement;
  judgement.title = what + " (" + noise.precision + ") against the definition";
  judgement.precision = noise.precision;

  Tensor<double, 2> input;
  if (layers.first > 0) input = input_of(side, layers.first);
  RunOptions run;
  run.span = {layers.first, layers.second, layers.first > 0 ? &input : nullptr};
  run.head = !side.logits.empty() || side.traces.contains("model.norm");
  const bool whole = layers.second == config.num_hidden_layers && !side.logits.empty();
  const std::size_t count = whole ? side.logits.size() : 1;  // traces speak of sequence 0 only
  for (std::size_t b = 0; b < count; ++b) {
    if (options.progress)
      noise.progress = [&, b](int done, int of) {
        options.progress(
            what + ", sequence " + std::to_string(b + 1) + " of " + std::to_string(count), done,
            of);
      };
    result.sequences.push_back(measured ? measured->at(b)
                                        : hold_sequence(models, side, b, run, noise, judgement));
  }
  if (whole) {
    account_for_rows(models, side, run, noise, options.explain, result.sequences);
    std::vector<Tensor<double, 2>> ours;
    for (const SequenceResult& sequence : result.sequences) ours.push_back(sequence.base.logits);
    judgement.logits = judge_logits(side.sequences, side.logits, ours, result.sequences, noise);
    if (models.precision != Precision::fp64 && models.in_memory && layers.first == 0)
      judgement.notes.push_back(emulation_note(models, side, result.sequences));
    if (options.own_error && layers.first == 0)
      judgement.notes.push_back(
          own_error_note(models.definition, side.sequences[0], result.sequences[0].base));
  }
  if (options.explain_limit)
    judgement.limits = explained_limits(judgement, result.sequences, side.sequences, noise);
  require(judgement.logits || !judgement.tensors.empty(),
          side.path.string() +
              " holds nothing that could be compared: neither logits nor a trace " + "of layers " +
              std::to_string(layers.first) + " to " + std::to_string(layers.second));
  conclude(judgement);
  return result;
}

void conclude(Judgement& j) {
  j.first_departure.reset();
  for (const TensorResult& tensor : j.tensors)
    if (!tensor.ok()) {
      j.first_departure = tensor.name;
      break;
    }
  if (j.first_departure) {
    j.outcome = Outcome::fail;
    j.why = *j.first_departure + " is the first tensor beyond its limit";
    return;
  }
  if (!j.logits && j.tensors.empty()) {
    j.outcome = Outcome::inconclusive;
    j.why = "nothing was compared";
    return;
  }
  if (!j.logits) {
    j.outcome = Outcome::pass;
    j.why = std::to_string(j.tensors.size()) + " tensors lie within their limits";
    return;
  }
  const LogitsResult& l = *j.logits;
  if (l.all.wrong_kind > 0) {
    j.outcome = Outcome::fail;
    j.why = std::to_string(l.all.wrong_kind) +
            " logits are NaN or infinite on one side and not on the other";
    return;
  }
  if (!l.user.empty()) {
    const bool ok =
        std::all_of(l.user.begin(), l.user.end(), [](const Check& c) { return c.ok(); });
    j.outcome = ok ? Outcome::pass : Outcome::fail;
    j.why = ok ? "every row lies within the limits given on the command line"
               : "rows lie beyond a limit given on the command line";
    return;
  }
  if (l.all.rows == 0) {
    j.outcome = Outcome::inconclusive;
    j.why = "no row of logits was compared";
    return;
  }
  if (l.decided.rows > 0 && !(l.kl.ok() && l.elements.ok())) {
    j.outcome = Outcome::fail;
    j.why = std::to_string(std::max(l.kl.over, l.elements.over)) + " of " +
            std::to_string(l.decided.rows) + " decided rows of logits lie beyond their limits";
    return;
  }
  if (l.together.over > 0) {
    j.outcome = Outcome::fail;
    j.why = "the " + std::to_string(l.together.n) +
            " undecided rows lie further off than any turn " +
            "of the decisions within the noise takes them";
    return;
  }
  if (l.too_many_flips()) {
    j.outcome = Outcome::fail;
    j.why = std::to_string(l.flips.size()) + " decisions had to be turned to explain the logits, " +
            "more than the " + std::to_string(static_cast<Index>(l.flips_most)) +
            " that rounding turns at the most";
    return;
  }
  if (2 * l.undecided() > l.all.rows) {
    j.outcome = Outcome::inconclusive;
    j.why = std::to_string(l.undecided()) + " of " + std::to_string(l.all.rows) +
            " rows depend on decisions that rounding may turn; a trace, a golden of higher "
            "precision, or smaller weights would decide them";
    return;
  }
  j.outcome = Outcome::pass;
  j.why =
      "all " + std::to_string(l.decided.rows + l.explained()) + " decided rows of logits" +
      (l.explained() == 0 ? ""
                          : " (" + std::to_string(l.explained()) + " of them explained by " +
                                std::to_string(l.flips.size()) + " decisions within the noise)") +
      (j.tensors.empty() ? "" : " and " + std::to_string(j.tensors.size()) + " tensors") +
      " lie within their limits";
}

}  // namespace dsa::verify
