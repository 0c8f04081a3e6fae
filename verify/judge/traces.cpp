#include "verify/judge/traces.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/trace_names.hpp"
#include "verify/measure/check.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::verify {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

bool is_padding(const Sequence& sequence, Index t) {
  return sequence.documents[static_cast<std::size_t>(t)] < 0;
}

std::string experts_name(const std::string& name) { return sibling(name, names::gate_experts); }
std::string groups_name(const std::string& name) { return sibling(name, names::gate_groups); }

/// Router weights are stored in the order in which each side names its experts: ours, by expert.
void align_experts(Tensor<double, 2>& weights, const Tensor<double, 2>& theirs,
                   const Tensor<Index, 2>& ours, std::vector<bool>& comparable) {
  const Index T = weights.shape()[0], k = weights.shape()[1];
  for (Index t = 0; t < T; ++t) {
    std::vector<double> row(static_cast<std::size_t>(k));
    for (Index i = 0; i < k; ++i) {
      Index j = 0;
      while (j < k && static_cast<Index>(theirs(t, j)) != ours(t, i)) ++j;
      if (j == k)
        comparable[static_cast<std::size_t>(t)] = false;
      else
        row[static_cast<std::size_t>(i)] = weights(t, j);
    }
    if (comparable[static_cast<std::size_t>(t)])
      std::copy(row.begin(), row.end(), weights.view()[t].begin());
  }
}

}  // namespace

TracedDecisions::TracedDecisions(const Recording& side, const Config& config, Reading reading)
    : reading_(reading), n_experts_(config.n_routed_experts) {
  for (const Trace::Entry& entry : side.trace.entries())
    if (is_decision(entry.name)) ids_.emplace(entry.name, entry.values());
}

bool TracedDecisions::determines(const std::string& name) const {
  return contains(name) || (is_routing(name) && contains(experts_name(name)));
}

std::vector<Index> TracedDecisions::row(const std::string& name, Index t,
                                        View<const double, 1> scores) const {
  std::vector<Index> ids;
  for (double id : ids_.at(name).view()[t]) {
    const auto s = static_cast<Index>(id);
    const bool unseen = s < 0 || (s < scores.size() && scores(s) == -inf);
    if (unseen && (s < 0 || reading_ == Reading::masked)) continue;
    ids.push_back(s);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

void TracedDecisions::replay(const std::string& name, View<const double, 2> scores,
                             View<Index, 2> chosen) const {
  const auto recorded = ids_.find(name);
  if (recorded == ids_.end()) {
    if (is_routing(name) && contains(experts_name(name)))
      replay_groups(experts_name(name), scores, chosen);
    return;
  }
  const Index T = scores.shape[0];
  if (recorded->second.shape()[0] != T)
    throw Error(fmt::format("trace {} has {} rows, expected one for each of {} tokens", name,
                            recorded->second.shape()[0], T));
  for (Index t = 0; t < T; ++t) {
    if (refused_.contains({name, t})) continue;
    std::vector<Index> ids = row(name, t, scores[t]);
    if (!is_wellformed(ids, scores[t], chosen.shape[1])) continue;
    std::stable_sort(ids.begin(), ids.end(),
                     [&](Index a, Index b) { return scores(t, a) > scores(t, b); });
    std::fill(chosen[t].begin(), chosen[t].end(), -1);
    std::copy(ids.begin(), ids.end(), chosen[t].begin());
  }
}

void TracedDecisions::replay_groups(const std::string& experts, View<const double, 2> scores,
                                    View<Index, 2> chosen) const {
  const Index G = scores.shape[1], K = chosen.shape[1], size = n_experts_ / G;
  for (Index t = 0; t < std::min(scores.shape[0], ids_.at(experts).shape()[0]); ++t) {
    if (refused_.contains({experts, t})) continue;
    std::vector<bool> needed(static_cast<std::size_t>(G));
    for (const double id : ids_.at(experts).view()[t])
      if (id >= 0 && id < static_cast<double>(n_experts_))
        needed[static_cast<std::size_t>(static_cast<Index>(id) / size)] = true;
    if (std::count(needed.begin(), needed.end(), true) > K) continue;
    std::vector<Index> groups(static_cast<std::size_t>(G));
    std::iota(groups.begin(), groups.end(), Index{0});
    std::stable_sort(groups.begin(), groups.end(), [&](Index a, Index b) {
      const bool a_is = needed[static_cast<std::size_t>(a)],
                 b_is = needed[static_cast<std::size_t>(b)];
      return a_is != b_is ? a_is : scores(t, a) > scores(t, b);
    });
    std::copy_n(groups.begin(), K, chosen[t].begin());
  }
}

namespace {

/// The significant bits of the narrowest format that holds every number of a tensor.
int bits_of_numbers(const Tensor<double, 2>& x) {
  for (const auto& [format, bits] : {std::pair{Dtype::bf16, 8}, std::pair{Dtype::f32, 24}})
    if (std::all_of(x.begin(), x.end(), [&, to = format](double v) {
          return !std::isfinite(v) || round_to(to, v) == v;
        }))
      return bits;
  return 53;
}

}  // namespace

void add_last_place(Limits& limits, const Recording& side, const Run& base) {
  for (auto& [name, allowed] : limits.tensors) {
    const Tensor<double, 2> values = base.trace.at(name).values();
    const int bits = bits_of_numbers(side.trace.at(name).values());
    for (Index i = 0; i < allowed.size(); ++i)
      if (const double x = values.data()[i]; x != 0 && std::isfinite(x))
        allowed.data()[i] += std::ldexp(1.0, std::ilogb(x) + 1 - bits);
  }
}

namespace {

/// The groups that were replayed for a row of experts, against those of the definition.
struct Groups {
  bool flipped = false, explained = true;
};

Groups groups_of(const std::string& experts, Index t, const Run& base, const Limits& limits,
                 const reference::Ops<double>& ops) {
  const std::string name = groups_name(experts);
  const Decision* groups = base.find(name);
  if (groups == nullptr) return {};
  const Index G = groups->scores.shape()[1], K = groups->chosen.shape()[1];
  Tensor<Index, 2> own({1, K});
  ops.topk_select(name, own, View<const double, 2>{groups->scores.view()[t].data, {1, G}});
  const std::vector<Index> theirs = sorted_set(groups->chosen.view()[t]);
  if (theirs == sorted_set(own.view()[0])) return {};
  return {true,
          is_explained(theirs, groups->scores.view()[t], limits.scores.at(name).view()[t], K)};
}

}  // namespace

std::vector<TensorResult> judge_decisions(TracedDecisions& traced, const Run& base,
                                          const Limits& limits, const reference::Ops<double>& ops,
                                          const Sequence& sequence, const std::string& origin,
                                          const Skip& skip) {
  std::vector<TensorResult> results;
  for (const Decision& decision : base.decisions) {
    if (!traced.contains(decision.name)) continue;
    const bool selection = is_selection(decision.name);
    TensorResult r;
    r.name = decision.name;
    r.kind = selection ? TensorResult::Kind::selection : TensorResult::Kind::routing;
    r.from = origin + "; a decision is right if scores within their noise would have made it";
    Tensor<Index, 2> own(decision.chosen.shape());
    ops.topk_select(decision.name, own, decision.scores);
    for (Index t = 0; t < decision.scores.shape()[0]; ++t) {
      if (is_padding(sequence, t) || (skip && skip(decision.name, t))) continue;
      const auto scores = decision.scores.view()[t];
      const auto allowed = limits.scores.at(decision.name).view()[t];
      const std::vector<Index> mine = sorted_set(own.view()[t]),
                               theirs = traced.row(decision.name, t, scores);
      ++r.n;
      if (selection) r.agreement_by_position.push_back(jaccard(mine, theirs));
      // Groups that are traced are judged by themselves.
      const bool by_group = !selection && !traced.contains(groups_name(decision.name));
      const Groups groups = by_group ? groups_of(decision.name, t, base, limits, ops) : Groups{};
      if (!groups.flipped && mine == theirs) {
        ++r.agreeing;
        continue;
      }
      if (groups.explained &&
          (mine == theirs || is_explained(theirs, scores, allowed, decision.chosen.shape()[1]))) {
        ++r.explained;
        continue;
      }
      if (r.over++ == 0) r.at = {0, t, -1};
      traced.refuse(decision.name, t);
    }
    r.worst = r.over > 0 ? inf : 0;
    results.push_back(std::move(r));
  }
  return results;
}

std::vector<TensorResult> judge_tensors(const Recording& side, const Run& base,
                                        const Limits& limits, const Sequence& sequence,
                                        std::vector<TensorResult> decisions,
                                        const std::string& origin, const Skip& skip) {
  std::vector<TensorResult> results;
  for (const std::string& name : base.order) {
    const auto decided = std::find_if(decisions.begin(), decisions.end(),
                                      [&](const TensorResult& d) { return d.name == name; });
    if (decided != decisions.end()) {
      results.push_back(std::move(*decided));
      continue;
    }
    if (!base.trace.contains(name) || !side.trace.contains(name)) continue;
    const Tensor<double, 2> ours = base.trace.at(name).values();
    Tensor<double, 2> theirs = side.trace.at(name).values();
    if (theirs.shape() != ours.shape())
      throw Error(fmt::format(
          "{}: tensor {} has shape {}, expected {}; is it a trace of another model?",
          side.path.string(), name, to_string<2>(theirs.shape()), to_string<2>(ours.shape())));
    std::vector<bool> comparable(static_cast<std::size_t>(sequence.size()), true);
    if (within_layer(name) == names::gate_weights) {
      const std::string experts = experts_name(name);
      if (!side.trace.contains(experts)) continue;  // weights of unnamed experts mean nothing
      align_experts(theirs, side.trace.at(experts).values(), base.find(experts)->chosen,
                    comparable);
    }
    TensorResult r;
    r.name = name;
    r.from = origin;
    const Tensor<double, 2>& allowed = limits.tensors.at(name);
    for (Index t = 0; t < ours.shape()[0]; ++t) {
      if (is_padding(sequence, t) || !comparable[static_cast<std::size_t>(t)] ||
          (skip && skip(name, t)))
        continue;
      for (Index c = 0; c < ours.shape()[1]; ++c) {
        const double got = theirs(t, c), want = ours(t, c);
        if (is_masked(want) && is_masked(got))
          ++r.n;  // masked on both sides, whatever either calls it
        else
          r.add(got, want, allowed(t, c), {0, t, c});
      }
    }
    results.push_back(std::move(r));
  }
  return results;
}

}  // namespace dsa::verify
