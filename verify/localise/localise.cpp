#include "verify/localise/localise.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "core/trace_names.hpp"
#include "verify/judge/inputs.hpp"
#include "verify/judge/precision_of.hpp"
#include "verify/localise/backward.hpp"
#include "verify/localise/graft.hpp"
#include "verify/localise/weights.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/names/name_map.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

/// The first sequence alone, with its logits under the name lm_head: what a trace can speak of.
Recording traced_sequence(const Recording& side) {
  Recording one = side;
  one.sequences.resize(1);
  one.trace.erase_if([](const std::string& name) { return !is_traced(name); });
  if (!one.trace.contains(names::lm_head) && !side.logits.empty())
    one.trace.put(names::lm_head, side.logits.front());
  return one;
}

/// Rows whose decisions the trace does not tell and rounding may turn.
class UnsettledRows {
 public:
  UnsettledRows(const Limits& limits, const Sequence& sequence) : sequence_(sequence) {
    for (const NearTie& u : limits.near_ties) rows_[u.name].push_back(u.position);
  }

  /// The decisions among `ops` that row t of their last tensor may hang on. An attention spreads
  /// what lies before it over all later rows; within one block there is only one.
  std::vector<std::string> behind(const std::set<std::string>& ops, Index t) const {
    const auto attentions = std::count_if(ops.begin(), ops.end(), [](const std::string& name) {
      return within_layer(name) == names::heads;
    });
    std::vector<std::string> names;
    for (const std::string& name : ops) {
      const auto found = rows_.find(name);
      if (found == rows_.end()) continue;
      if (std::any_of(found->second.begin(), found->second.end(), [&](Index row) {
            return row == t || (attentions > 1 && row < t && same_document(row, t));
          }))
        names.push_back(name);
    }
    return names;
  }

 private:
  bool same_document(Index a, Index b) const {
    return sequence_.documents[static_cast<std::size_t>(a)] ==
           sequence_.documents[static_cast<std::size_t>(b)];
  }

  const Sequence& sequence_;
  std::map<std::string, std::vector<Index>> rows_;
};

std::vector<std::string> in_order(const std::set<std::string>& names,
                                  const std::vector<std::string>& executed) {
  std::vector<std::string> ordered;
  for (const std::string& name : executed)
    if (names.contains(name)) ordered.push_back(name);
  return ordered;
}

/// One grafted run, its limits, and what departs.
Grafted graft_as(const ModelPair& models, const Recording& side, const JudgeOptions& options,
                 Reading reading, bool& readings_differ) {
  const Sequence& sequence = side.sequences.front();
  Graft graft(side, models.definition.config, reading);
  readings_differ = graft.readings_differ();
  std::vector<std::string> executed;
  const RunOptions run = graft.options();
  RunOptions watched = run;
  watched.graft = [&](const std::string& name, View<double, 2> x) {
    executed.push_back(name);
    run.graft(name, x);
  };
  watched.decide = [&](const std::string& name, View<const double, 2> scores,
                       View<Index, 2> chosen) {
    executed.push_back(name);
    run.decide(name, scores, chosen);
  };
  const Variant definition = graft.feeding(models.exact());
  const Run base = run_reference(definition.model, sequence, definition.ops, watched);
  NoiseOptions noise = noise_options(options, models);
  if (options.progress)
    noise.progress = [&](int done, int of) { options.progress("grafted", done, of); };
  Limits limits = measure_limits(
      [&](std::uint64_t draw) {
        return graft.feeding(models.rounded({reference::Rounding::Mode::random, draw}));
      },
      sequence, base, run,
      [&](const std::string& name) { return graft.decisions().determines(name); }, noise);

  add_last_place(limits, side, base);

  const UnsettledRows unsettled(limits, sequence);
  std::map<std::string, std::set<std::string>> made_by;
  for (const std::string& name : executed)
    if (graft.tells(name)) made_by[name] = graft.made_by(name);
  std::set<std::string> undecided;
  const Skip skip = [&](const std::string& name, Index t) {
    const std::vector<std::string> behind = unsettled.behind(made_by[name], t);
    undecided.insert(behind.begin(), behind.end());
    return !behind.empty();
  };
  const std::string origin =
      origin_of_element_limit(noise) + ", grafted, and one unit in the last place";
  std::vector<TensorResult> decisions =
      judge_decisions(graft.decisions(), base, limits, definition.ops, sequence, origin, skip);
  Grafted result;
  for (TensorResult& tensor :
       judge_tensors(side, base, limits, sequence, std::move(decisions), origin, skip)) {
    if (tensor.ok()) continue;
    if (tensor.n == 0 || graft.is_spoiled(tensor.name))
      result.unjudged.push_back(tensor.name);
    else
      result.wrong.push_back({tensor, in_order(made_by[tensor.name], executed)});
  }
  result.undecided = in_order(undecided, executed);
  return result;
}

}  // namespace

Grafted graft(const ModelPair& models, const Recording& given, const JudgeOptions& options) {
  const Recording side = traced_sequence(given);
  bool readings_differ = false;
  Grafted masked = graft_as(models, side, options, Reading::masked, readings_differ);
  if (masked.wrong.empty() || !readings_differ) return masked;
  Grafted as_recorded = graft_as(models, side, options, Reading::as_recorded, readings_differ);
  return as_recorded.wrong.size() <= masked.wrong.size() ? as_recorded : masked;
}

namespace {

/// The names of a run, in order.
std::vector<std::string> names_of_run(const ModelPair& models, const Sequence& sequence) {
  std::vector<std::string> names;
  const Variant definition = models.exact();
  RunOptions run;
  run.span = {0, definition.model.config.num_hidden_layers};
  run.graft = [&](const std::string& name, View<double, 2>) { names.push_back(name); };
  run.decide = [&](const std::string& name, View<const double, 2>, View<Index, 2>) {
    names.push_back(name);
  };
  Sequence first = sequence;
  first.tokens.resize(1), first.positions.resize(1), first.documents.resize(1);
  run_reference(definition.model, first, definition.ops, run);
  return names;
}

/// The logits as a tensor that departs.
TensorResult head_of(const LogitsResult& logits) {
  TensorResult r;
  static_cast<Check&>(r) = logits.elements;
  r.name = names::lm_head;
  r.wrong_kind = logits.all.wrong_kind;
  return r;
}

/// Without a trace: what the rows of logits tell.
void conclude_logits(Localisation& l, const ModelPair& models, const Recording& side) {
  l.outcome = l.plain.outcome, l.why = l.plain.why;
  const std::vector<std::string> executed = names_of_run(models, side.sequences.front());
  for (const std::string& name : executed)
    if (layer_of(name) >= 0 && within_layer(name).empty()) l.dump_next.push_back(name);
  if (l.outcome != Outcome::fail) {
    if (l.outcome == Outcome::pass) l.dump_next.clear();
    return;
  }
  l.first_departure = names::lm_head;
  std::string bisected;
  const std::vector<std::string> ops =
      suspects(l.plain, side.sequences, models.definition.config, executed, bisected);
  l.why += "; " + bisected;
  if (ops.size() < executed.size()) l.dump_next = ops;
  l.grafted.wrong.push_back({head_of(*l.plain.logits), ops});
}

/// Logits depart, and of no sequence that has a trace.
bool departs_untraced(const Judgement& j) {
  return !j.first_departure && j.logits && j.logits->kl.at.sequence != 0 &&
         j.logits->elements.at.sequence != 0;
}

void conclude_trace(Localisation& l) {
  for (const FaultyOp& wrong : l.grafted.wrong)
    for (const std::string& op : wrong.ops)
      if (op != wrong.tensor.name &&
          std::find(l.dump_next.begin(), l.dump_next.end(), op) == l.dump_next.end())
        l.dump_next.push_back(op);
  l.first_departure = l.plain.first_departure;
  const std::vector<FaultyOp>& wrong = l.grafted.wrong;
  for (const TensorResult& tensor : l.plain.tensors)
    if (!tensor.ok() && std::none_of(wrong.begin(), wrong.end(), [&](const FaultyOp& w) {
          return w.tensor.name == tensor.name;
        }))
      l.inherited.push_back(tensor.name);
  if (!wrong.empty()) {
    if (!l.first_departure) l.first_departure = wrong.front().tensor.name;
    l.outcome = Outcome::fail;
    l.why = std::to_string(wrong.size()) + " of the traced tensors " +
            (wrong.size() == 1 ? "is" : "are") + " wrong by " +
            (wrong.size() == 1 ? "itself" : "themselves") + ", first " + wrong.front().tensor.name +
            "; " + std::to_string(l.inherited.size()) +
            " more depart because of what they are made from";
    return;
  }
  l.outcome = l.plain.outcome, l.why = l.plain.why;
  if (l.outcome == Outcome::pass) {
    l.why = "nothing departs: " + l.why;
  } else if (!l.grafted.undecided.empty()) {
    l.outcome = Outcome::inconclusive;
    l.dump_next = l.grafted.undecided;
    l.why = "what departs hangs on decisions that rounding may turn and the trace does not tell, " +
            std::to_string(l.grafted.undecided.size()) + " of them, first " +
            l.grafted.undecided.front();
  } else if (l.outcome == Outcome::fail && departs_untraced(l.plain)) {
    l.why +=
        "; no op of the trace is wrong by itself: what departs is another sequence than the "
        "first, of which there is no trace";
  } else if (l.outcome == Outcome::fail) {
    l.why +=
        "; yet every op lies within its own limit: errors of many ops add up, as they do "
        "where the precision is lower than " +
        l.precision;
  }
}

void localise_forward(Localisation& l, const ModelPair& models, Recording side,
                      const JudgeOptions& options) {
  bool traced = false;  // more than what are the logits anyway
  for (const Trace::Entry& entry : side.trace.entries()) {
    if (!is_traced(entry.name)) l.unmapped.push_back(entry.name);
    traced |= is_traced(entry.name) && entry.name != names::lm_head;
  }
  if (!traced) side.trace = {};
  JudgeOptions quick = options;
  quick.explain = false;
  l.plain = hold_against_definition(models, side, "candidate", quick).judgement;
  if (!traced) {
    conclude_logits(l, models, side);
  } else {
    l.grafted = graft(models, side, options);
    conclude_trace(l);
    if (const auto others = other_weights(models, side, l.grafted.wrong); !others.empty())
      l.why += "; " + in_words(others);
  }
}

}  // namespace

Localisation localise(const std::filesystem::path& checkpoint,
                      const std::filesystem::path& candidate, const JudgeOptions& options,
                      const std::filesystem::path& forward) {
  const auto start = std::chrono::steady_clock::now();
  Localisation l;
  l.checkpoint = checkpoint.string(), l.candidate = candidate.string();
  const Config config = read_config(checkpoint);
  const bool backwards = is_backward(read_recording(candidate, options.dtype, config.vocab_size));
  require(backwards || forward.empty(),
          candidate.string() + " holds no gradients (d.NAME), so it needs no --forward");
  BackwardTrace trace;
  Recording side;
  if (backwards)
    trace = backward_trace(candidate, forward, config, options.names);
  else
    side = read_named(candidate, options.dtype, config, options.names);
  const reference::Precision precision = options.precision ? *options.precision
                                         : backwards       ? precision_of(trace)
                                                           : precision_of(side);
  l.precision = name_of(precision);
  const ModelPair models = open_models(Checkpoint(checkpoint, options).stored, precision);
  if (backwards)
    localise_backward(l, models, trace, options);
  else
    localise_forward(l, models, std::move(side), options);
  l.receipt = make_receipt(checkpoint, candidate, std::nullopt);
  l.receipt.candidate_sha256.swap(l.receipt.golden_sha256);
  l.receipt.draws = options;
  l.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return l;
}

}  // namespace dsa::verify
