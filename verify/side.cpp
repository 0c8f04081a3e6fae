#include "verify/side.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/divergence.hpp"
#include "verify/trace_judge.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

const Tensor<double, 2> nothing;

/// The span's input: the trace of the layer before it.
Tensor<double, 2> input_of(const Golden& side, Index begin) {
  const std::string name = "model.layers." + std::to_string(begin - 1);
  const auto stored = side.traces.find(name);
  require(stored != side.traces.end(), side.path.string() + " has no tensor " + name +
                                           ", which layers from " + std::to_string(begin) +
                                           " on start from; dump it, or begin at layer 0");
  return trace_values(*stored->second);
}

/// The emulated precision, to nearest: how much of the difference it explains.
std::string emulation_note(const Models& models, const Golden& side, Precision precision,
                           const std::vector<Run>& base, const JudgeOptions& options) {
  const reference::Ops<double> ops = reference::ops_of(precision, {}, models.definition.config);
  double emulated = 0, definition = 0, emulated_max = 0, definition_max = 0, rows = 0;
  for (std::size_t b = 0; b < side.logits.size(); ++b) {
    RunOptions run;
    run.span = {0, models.definition.config.num_hidden_layers};
    run.record_decisions = false;
    if (options.progress) options.progress("emulating " + std::string(name_of(precision)), 0, 1);
    const Run emulation = run_reference(models.loaded, side.sequences[b], ops, run);
    for (Index t = 0; t < side.sequences[b].size(); ++t) {
      if (side.sequences[b].documents[static_cast<std::size_t>(t)] < 0) continue;
      const auto theirs = side.logits[b].view()[t];
      const double e = kl_divergence(theirs, emulation.logits.view()[t]);
      const double d = kl_divergence(theirs, base[b].logits.view()[t]);
      emulated += e, definition += d, ++rows;
      emulated_max = std::max(emulated_max, e), definition_max = std::max(definition_max, d);
    }
  }
  char text[256];
  std::snprintf(text, sizeof text,
                "emulated %s, rounded to nearest: KL mean %.2g max %.2g (the "
                "definition: mean %.2g max %.2g)",
                std::string(name_of(precision)).c_str(), emulated / rows, emulated_max,
                definition / rows, definition_max);
  return text;
}

/// The reference in long double against itself in double.
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
  char text[128];
  std::snprintf(text, sizeof text,
                "the reference's own rounding (double against long double): %.2g in a logit",
                worst);
  return text;
}

std::string list_unknown(const Golden& side, const std::vector<TensorResult>& judged) {
  std::string names;
  int count = 0;
  for (const auto& [name, stored] : side.traces) {
    const bool known = std::any_of(judged.begin(), judged.end(),
                                   [&](const TensorResult& r) { return r.name == name; });
    if (!known && ++count <= 3) names += (names.empty() ? "" : ", ") + name;
  }
  if (count == 0) return {};
  return std::to_string(count) + " tensors of the file were not compared, since the reference " +
         "has none of that name: " + names + (count > 3 ? ", ..." : "");
}

/// The definition over one sequence; a trace's decisions are adopted.
Run base_run(const Models& models, const Golden& side, std::size_t b, const RunOptions& options,
             const TracedDecisions* told) {
  RunOptions run = options;
  if (told != nullptr)
    run.decide = [told](const std::string& name, View<const double, 2> scores,
                        View<Index, 2> chosen) { told->replay(name, scores, chosen); };
  return run_reference(models.definition, side.sequences[b], reference::definition<double>(), run);
}

RowResult judge_row(const LogitsRow& row, const Noise& noise) {
  const auto t = static_cast<std::size_t>(row.at.position);
  RowResult r;
  r.at = row.at;
  r.kl = kl_divergence(row.want, row.got);
  r.kl_limit = noise.kl_limit[t];
  for (Index v = 0; v < row.want.size(); ++v) {
    const double error = std::abs(row.got(v) - row.want(v));
    const double ratio = error == 0 ? 0 : error / noise.logits_allowed(row.at.position, v);
    if (!(ratio <= r.worst_over_allowed)) r.worst_over_allowed = ratio, r.at.channel = v;
  }
  // A row that agrees as well as rounding allows is right, whatever might have happened to it.
  const bool agrees = r.kl <= r.kl_limit && r.worst_over_allowed <= 1;
  const Reach& reach = noise.reach[t];
  if (reach.undecided && !agrees) {
    r.undecided = true;
    r.decision = reach.first.name;
    r.decided_at = reach.first.position;
    r.margin = reach.first.margin;
    r.noise = reach.first.noise;
  }
  return r;
}

/// Adds one row's number to a check that reports the row with the largest ratio.
void add_to(Check& check, double value, double limit, const Place& at) {
  const bool worse = check.n == 0 || !(value * check.limit <= check.value * limit);
  ++check.n;
  if (!(value <= limit)) ++check.over;
  if (worse) check.value = value, check.limit = limit, check.at = at;
}

}  // namespace

NoiseOptions noise_options(const JudgeOptions& options, Precision precision, bool parallel) {
  NoiseOptions noise;
  noise.precision = precision;
  noise.runs = options.runs;
  noise.seed = options.seed;
  noise.alpha = options.alpha;
  noise.parallel = parallel;
  return noise;
}

LogitsResult judge_logits(const std::vector<Sequence>& sequences,
                          const std::vector<Tensor<double, 2>>& want,
                          const std::vector<Tensor<double, 2>>& got,
                          const std::vector<Noise>& noise, const NoiseOptions& options) {
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
      result.rows.push_back(judge_row(row, noise[b]));
      all.push_back(row);
      if (result.rows.back().undecided) continue;
      const RowResult& r = result.rows.back();
      decided.push_back(row);
      add_to(result.kl, r.kl, r.kl_limit, {r.at.sequence, r.at.position, -1});
      add_to(result.elements, r.worst_over_allowed, 1, r.at);
    }
  }
  result.all = measure(all);
  result.decided = measure(decided);
  result.kl.from = origin_of_kl_limit(options, result.all.rows);
  result.elements.from = origin_of_element_limit(options);
  return result;
}

SideResult hold_against_definition(const Models& models, const Golden& side, Precision precision,
                                   const std::string& what, const JudgeOptions& options) {
  const Config& config = models.definition.config;
  const auto layers = options.layers.value_or(std::pair{Index{0}, config.num_hidden_layers});
  const NoiseOptions limits = noise_options(options, precision, models.in_memory);
  const auto share = static_cast<Index>(side.sequences.size());
  SideResult result;
  Judgement& judgement = result.judgement;
  judgement.title = what + " (" + std::string(name_of(precision)) + ") against the definition";
  judgement.precision = name_of(precision);

  Tensor<double, 2> input;
  if (layers.first > 0) input = input_of(side, layers.first);
  const bool whole = layers.second == config.num_hidden_layers && !side.logits.empty();
  const std::size_t count = whole ? side.logits.size() : 1;  // traces speak of sequence 0 only
  for (std::size_t b = 0; b < count; ++b) {
    RunOptions run;
    run.span = {layers.first, layers.second, layers.first > 0 ? &input : nullptr};
    TracedDecisions told(side);
    const bool traced = b == 0 && !side.traces.empty();
    if (traced) run.keep = [&](const std::string& name) { return side.traces.contains(name); };
    const auto known = [&](const std::string& name) { return traced && told.told(name); };
    NoiseOptions mine = limits;
    const std::string stage =
        what + ", sequence " + std::to_string(b + 1) + " of " + std::to_string(count);
    if (options.progress)
      mine.progress = [&](int done, int of) { options.progress(stage, done, of); };

    Run base = base_run(models, side, b, run, traced ? &told : nullptr);
    Noise noise = measure_noise(models.loaded, side.sequences[b], base, run, known, mine, share);
    if (traced) {
      const std::string origin = origin_of_element_limit(mine);
      std::vector<TensorResult> decisions = judge_decisions(
          told, base, noise, reference::definition<double>(), side.sequences[b], origin);
      if (told.refused_any()) base = base_run(models, side, b, run, &told);
      judgement.tensors =
          judge_tensors(side, base, noise, side.sequences[b], std::move(decisions), origin);
      if (const std::string unknown = list_unknown(side, judgement.tensors); !unknown.empty())
        judgement.notes.push_back(unknown);
    }
    result.base.push_back(std::move(base));
    result.noise.push_back(std::move(noise));
  }

  if (whole) {
    std::vector<Tensor<double, 2>> ours;
    for (const Run& run : result.base) ours.push_back(run.logits);
    judgement.logits = judge_logits(side.sequences, side.logits, ours, result.noise, limits);
    if (precision != Precision::fp64 && models.in_memory && layers.first == 0)
      judgement.notes.push_back(emulation_note(models, side, precision, result.base, options));
    if (options.own_error && layers.first == 0)
      judgement.notes.push_back(
          own_error_note(models.definition, side.sequences[0], result.base[0]));
  }
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
  if (l.kl.over > 0 || l.elements.over > 0) {
    j.outcome = Outcome::fail;
    j.why = std::to_string(std::max(l.kl.over, l.elements.over)) + " of " +
            std::to_string(l.decided.rows) + " decided rows of logits lie beyond their limits";
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
  j.why = "all " + std::to_string(l.decided.rows) + " decided rows of logits" +
          (j.tensors.empty() ? "" : " and " + std::to_string(j.tensors.size()) + " tensors") +
          " lie within their limits";
}

}  // namespace dsa::verify
