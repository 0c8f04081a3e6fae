#include "verify/localise/backward.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/trace_names.hpp"
#include "reference/model/backward.hpp"
#include "reference/precision/rounder_backward.hpp"
#include "verify/limits/held_runs.hpp"
#include "verify/localise/graft.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/names/name_map.hpp"

namespace dsa::verify {
namespace {

const std::string prefix = "d.";

/// The op before everything: it gives the gradient of the logits.
constexpr const char loss[] = "loss.lm";

/// What a pass backwards runs with.
struct BackwardVariant {
  Variant forward;
  reference::BackwardOps<double> backward;
};

/// Passes backwards over the side's sequence, fed with what it tells or not.
class Passes {
 public:
  Passes(const BackwardTrace& trace, const Graft& graft) : trace_(trace), graft_(graft) {}

  /// Gradients are kept as they come; `fed`: the pass goes on with the side's, and so does the
  /// forward pass with its tensors. `executed`: the names of all gradients, in order.
  Run run(const BackwardVariant& variant, bool fed, const Decide& decide,
          std::vector<std::string>* executed = nullptr) const {
    Run run;
    const Sequence& sequence = trace_.gradients.sequences.front();
    reference::Pass<double> forward{variant.forward.model, variant.forward.ops};
    const RunOptions told = graft_.options();
    forward.tap.tensor = [&](const std::string& name, View<double, 2> x) {
      if (fed) told.graft(name, x);
    };
    forward.tap.decision = [&](const std::string& name, View<const double, 2> scores,
                               View<Index, 2> chosen) {
      decide(name, scores, chosen);
      if (run.find(name) == nullptr) run.decisions.push_back(recorded(name, scores, chosen));
    };
    const auto objective = reference::lm_objective<double>(sequence);
    reference::backward<double>({forward, variant.backward, sequence, objective, [](auto&&...) {},
                                 [&](const std::string& name, View<double, 2> gradient) {
                                   if (!is_traced(name)) return;
                                   if (executed) executed->push_back(name);
                                   if (!trace_.gradients.trace.contains(name)) return;
                                   run.trace.put(name, gradient);
                                   run.order.push_back(name);
                                   if (fed) feed(name, gradient);
                                 }});
    return run;
  }

 private:
  static Decision recorded(const std::string& name, View<const double, 2> scores,
                           View<Index, 2> chosen) {
    Decision decision{name, Tensor<double, 2>(scores.shape), Tensor<Index, 2>(chosen.shape)};
    std::copy(scores.begin(), scores.end(), decision.scores.begin());
    std::copy(chosen.begin(), chosen.end(), decision.chosen.begin());
    return decision;
  }

  /// The side's gradient in place of ours, but for padding and what is not finite.
  void feed(const std::string& name, View<double, 2> gradient) const {
    // The order of a token's experts is told by the forward trace alone.
    if (within_layer(name) == names::gate_weights &&
        !graft_.tells(sibling(name, names::gate_experts)))
      return;
    const Tensor<double, 2> theirs = trace_.gradients.trace.at(name).values();
    if (theirs.shape() != gradient.shape) return;  // whoever compares them says so
    const std::vector<Index>& documents = trace_.gradients.sequences.front().documents;
    for (Index t = 0; t < gradient.shape[0]; ++t)
      for (Index c = 0; c < gradient.shape[1] && documents[static_cast<std::size_t>(t)] >= 0; ++c)
        if (std::isfinite(theirs(t, c))) gradient(t, c) = theirs(t, c);
  }

  const BackwardTrace& trace_;
  const Graft& graft_;
};

/// Which ops' backward a gradient comes from.
class Consumers {
 public:
  Consumers(const std::vector<std::string>& executed, const Trace& told, const Config& config)
      : executed_(executed), told_(told) {
    for (const std::string& op : executed)
      for (const std::string& input : inputs_of(op, config)) of_[input].insert(op);
  }

  /// The ops between `name` and the told gradients that it is made from, in backward order.
  std::vector<std::string> between(const std::string& name) const {
    std::set<std::string> ops;
    visit(name, ops);
    if (ops.empty()) return {loss};
    std::vector<std::string> ordered;
    for (const std::string& op : executed_)
      if (ops.contains(op)) ordered.push_back(op);
    return ordered;
  }

 private:
  void visit(const std::string& name, std::set<std::string>& ops) const {
    const auto found = of_.find(name);
    if (found == of_.end()) return;
    for (const std::string& op : found->second)
      if (ops.insert(op).second && !told_.contains(op)) visit(op, ops);
  }

  const std::vector<std::string>& executed_;
  const Trace& told_;
  std::map<std::string, std::set<std::string>> of_;
};

/// One series: the definition's run, its limits, and what departs.
struct Series {
  std::vector<TensorResult> tensors;
  std::vector<NearTie> near_ties;
  std::vector<std::string> executed;
};

Series judge(const ModelPair& models, const BackwardTrace& trace, const Graft& graft, bool fed,
             const JudgeOptions& options) {
  using reference::Rounding;
  const Passes passes(trace, graft);
  const Decide replayed = graft.options().decide;
  Series series;
  const Run base = passes.run({models.exact(), reference::backward_definition<double>()}, fed,
                              replayed, &series.executed);
  NoiseOptions noise = noise_options(options, models);
  if (options.progress)
    noise.progress = [&](int done, int of) {
      options.progress(fed ? "grafted" : "held", done, of);
    };
  Limits limits = measure_limits(
      [&](std::uint64_t draw, const Decide& held) {
        const Rounding rounding{Rounding::Mode::random, draw};
        return passes.run(
            {models.rounded(rounding), reference::backward_ops_of(models.precision, rounding)}, fed,
            held);
      },
      base, [&](const std::string& name) { return graft.decisions().determines(name); }, noise);
  add_last_place(limits, trace.gradients, base);
  series.near_ties = limits.near_ties;
  series.tensors =
      judge_tensors(trace.gradients, base, limits, trace.gradients.sequences.front(), {},
                    origin_of_element_limit(noise) + (fed ? ", grafted" : "") +
                        ", and one unit in the last place");
  return series;
}

/// Names that are not the reference's, and gradients that the pass does not have.
void list_unmapped(Localisation& l, const BackwardTrace& trace,
                   const std::vector<std::string>& executed) {
  for (const Trace::Entry& entry : trace.gradients.trace.entries())
    if (!is_decision(entry.name) &&
        std::find(executed.begin(), executed.end(), entry.name) == executed.end())
      l.unmapped.push_back(prefix + entry.name);
  for (const Trace::Entry& entry : trace.forward.trace.entries())
    if (!is_traced(entry.name)) l.unmapped.push_back(entry.name);
}

void conclude(Localisation& l, const Series& plain, const Series& fed) {
  for (const TensorResult& tensor : plain.tensors) {
    if (tensor.ok()) continue;
    if (!l.first_departure) l.first_departure = prefix + tensor.name;
    const auto& wrong = l.grafted.wrong;
    if (std::none_of(wrong.begin(), wrong.end(),
                     [&](const FaultyOp& w) { return w.tensor.name == prefix + tensor.name; }))
      l.inherited.push_back(prefix + tensor.name);
  }
  const std::vector<FaultyOp>& wrong = l.grafted.wrong;
  if (!wrong.empty() && !l.first_departure) l.first_departure = wrong.front().tensor.name;
  if (!l.first_departure) {
    l.outcome = plain.tensors.empty() ? Outcome::inconclusive : Outcome::pass;
    l.why = plain.tensors.empty() ? "no gradient was compared"
                                  : "nothing departs: " + std::to_string(plain.tensors.size()) +
                                        " gradients of the backward trace lie within their limits";
  } else if (!fed.near_ties.empty()) {
    l.outcome = Outcome::inconclusive;
    l.dump_next.clear();
    for (const NearTie& tie : fed.near_ties)
      if (std::find(l.dump_next.begin(), l.dump_next.end(), tie.name) == l.dump_next.end())
        l.dump_next.push_back(tie.name);
    l.why =
        "what departs hangs on decisions that rounding may turn and no forward trace tells, "
        "first " +
        fed.near_ties.front().name + "; give the run's forward trace (--forward)";
  } else if (!wrong.empty()) {
    l.outcome = Outcome::fail;
    l.why = std::to_string(wrong.size()) + " of the gradients " +
            (wrong.size() == 1 ? "is" : "are") + " made wrong, first " + wrong.front().tensor.name +
            ", by the backward of " + wrong.front().ops.front() +
            (wrong.front().ops.size() > 1 ? " or of an op near it" : "") + "; " +
            std::to_string(l.inherited.size()) + " more depart because of what they are made from";
  } else {
    l.outcome = Outcome::fail;
    l.why = "gradients depart, first " + *l.first_departure +
            "; yet the backward of every op lies within its own limit: errors of many ops add up, "
            "or the forward tensors that were fed are themselves wrong";
  }
}

}  // namespace

reference::Precision precision_of(const BackwardTrace& trace) {
  const auto& entries = trace.gradients.trace.entries();
  const auto any = [&](Dtype dtype) {
    return std::any_of(entries.begin(), entries.end(),
                       [=](const Trace::Entry& e) { return e.dtype == dtype; });
  };
  return any(Dtype::bf16) || any(Dtype::f16) ? reference::Precision::hf_bf16
         : any(Dtype::f32)                   ? reference::Precision::hf_fp32
                                             : reference::Precision::fp64;
}

bool is_backward(const Recording& recording) {
  const auto& entries = recording.trace.entries();
  return std::any_of(entries.begin(), entries.end(),
                     [](const Trace::Entry& e) { return e.name.starts_with(prefix); });
}

BackwardTrace backward_trace(const std::filesystem::path& file,
                             const std::filesystem::path& forward, const Config& config,
                             const std::string& names) {
  const Recording all = read_recording(file, "", config.vocab_size);
  BackwardTrace parts;
  parts.gradients.path = parts.forward.path = file;
  parts.gradients.sequences = parts.forward.sequences = {all.sequences.front()};
  for (Trace::Entry entry : all.trace.entries()) {
    const bool is_gradient = entry.name.starts_with(prefix);
    if (is_gradient) entry.name = entry.name.substr(prefix.size());
    if (is_gradient || !entry.name.starts_with("loss."))
      (is_gradient ? parts.gradients : parts.forward).trace.put(std::move(entry));
  }
  if (!forward.empty()) {
    parts.forward = read_recording(forward, "", config.vocab_size);
    require(!is_backward(parts.forward),
            forward.string() + " holds gradients, expected a forward trace");
    require(parts.forward.sequences.front().tokens == all.sequences.front().tokens,
            forward.string() + " is of other tokens than " + file.string() +
                "; trace one run forwards and backwards");
    parts.forward.sequences.resize(1);
    parts.forward.logits.clear();
  }
  if (!names.empty()) {
    const NameMap map = NameMap::open(names);
    map.apply(parts.gradients, config);
    map.apply(parts.forward, config);
  }
  // Gradients of a token's weights are in the order of its experts, which stands beside them.
  for (const Trace::Entry& entry : parts.forward.trace.entries())
    if (within_layer(entry.name) == names::gate_experts) parts.gradients.trace.put(entry);
  return parts;
}

void localise_backward(Localisation& l, const ModelPair& models, const BackwardTrace& trace,
                       const JudgeOptions& options) {
  const Graft graft(trace.forward, models.definition.config, Reading::masked);
  const Series plain = judge(models, trace, graft, false, options);
  const Series fed = judge(models, trace, graft, true, options);
  list_unmapped(l, trace, fed.executed);
  const Consumers consumers(fed.executed, trace.gradients.trace, models.definition.config);
  for (const TensorResult& tensor : fed.tensors) {
    if (tensor.ok()) continue;
    FaultyOp wrong{tensor, consumers.between(tensor.name)};
    wrong.tensor.name = prefix + tensor.name;
    for (const std::string& op : wrong.ops)
      if (op != loss && !trace.gradients.trace.contains(op) &&
          std::find(l.dump_next.begin(), l.dump_next.end(), prefix + op) == l.dump_next.end())
        l.dump_next.push_back(prefix + op);
    l.grafted.wrong.push_back(std::move(wrong));
  }
  conclude(l, plain, fed);
}

}  // namespace dsa::verify
