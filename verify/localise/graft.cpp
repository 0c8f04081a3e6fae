#include "verify/localise/graft.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/trace_names.hpp"
#include "verify/measure/check.hpp"
#include "verify/names/dataflow.hpp"

namespace dsa::verify {
namespace {

bool is_scores(const std::string& name) { return within_layer(name) == names::indexer_scores; }
bool is_weights(const std::string& name) { return within_layer(name) == names::gate_weights; }
std::string experts_of(const std::string& weights) { return sibling(weights, names::gate_experts); }

/// One of E for every slot: such a row can be put in place of ours.
bool is_choice(View<const double, 1> ids, Index slots, Index E) {
  return ids.size() == slots && std::all_of(ids.begin(), ids.end(), [&](double id) {
           return id >= 0 && id < static_cast<double>(E);
         });
}

}  // namespace

Graft::Graft(const Recording& side, const Config& config, Reading reading)
    : side_(side),
      sequence_(side.sequences.front()),
      config_(config),
      reading_(reading),
      told_(side, config, reading) {
  const Index T = sequence_.size();
  for (const Trace::Entry& entry : side.trace.entries()) {
    const std::string& name = entry.name;
    if (!is_traced(name)) continue;
    const Tensor<double, 2> theirs = entry.values();
    require(theirs.shape()[0] == T,
            side.path.string() + ": tensor " + name + " has " + std::to_string(theirs.shape()[0]) +
                " rows, expected one for each of " + std::to_string(T) + " tokens");
    for (Index t = 0; t < T; ++t) {
      if (sequence_.documents[static_cast<std::size_t>(t)] < 0) continue;
      if (is_selection(name)) {
        std::set<Index> seen;
        for (const double id : theirs.view()[t])
          if (const auto s = static_cast<Index>(id); id >= 0)
            readings_differ_ |= s >= T || !sees(t, s) || !seen.insert(s).second;
      }
      for (const double x : theirs.view()[t])
        if (!std::isfinite(x) && !(is_scores(name) && is_masked(x))) spoiled_.insert(name);
    }
  }
}

bool Graft::tells(const std::string& name) const {
  if (is_decision(name)) return told_.contains(name);
  if (!side_.trace.contains(name) || !is_traced(name)) return false;
  // Weights are told in the order of the experts; without these nobody knows whose they are.
  return !is_weights(name) || told_.contains(experts_of(name));
}

void Graft::visit_inputs(const std::string& name, std::set<std::string>& untold,
                         std::set<std::string>& told) const {
  for (const std::string& input : inputs_of(name, config_)) {
    if (tells(input))
      told.insert(input);
    else if (untold.insert(input).second)
      visit_inputs(input, untold, told);
  }
}

std::set<std::string> Graft::made_by(const std::string& name) const {
  std::set<std::string> untold = {name}, told;
  visit_inputs(name, untold, told);
  return untold;
}

bool Graft::is_spoiled(const std::string& name) const {
  std::set<std::string> untold = {name}, told;
  visit_inputs(name, untold, told);
  return std::any_of(told.begin(), told.end(),
                     [&](const std::string& input) { return spoiled_.contains(input); });
}

RunOptions Graft::options() const {
  RunOptions run;
  run.span = {0, config_.num_hidden_layers};
  run.head = side_.trace.contains(names::norm) || side_.trace.contains(names::lm_head);
  run.keep = [this](const std::string& name) {
    return side_.trace.contains(name) && is_traced(name);
  };
  run.graft = [this](const std::string& name, View<double, 2> x) { put_tensor(name, x); };
  run.decide = [this](const std::string& name, View<const double, 2> scores,
                      View<Index, 2> chosen) { put_decision(name, scores, chosen); };
  return run;
}

void Graft::put_tensor(const std::string& name, View<double, 2> x) const {
  if (!tells(name)) return;
  const Tensor<double, 2> theirs = side_.trace.at(name).values();
  if (theirs.shape() != x.shape) return;  // whoever compares them says so
  const bool by_expert = is_weights(name), masks = is_scores(name);
  for (Index t = 0; t < x.shape[0]; ++t) {
    if (sequence_.documents[static_cast<std::size_t>(t)] < 0) continue;
    if (by_expert &&
        !is_choice(told_.ids(experts_of(name)).view()[t], x.shape[1], config_.n_routed_experts))
      continue;
    for (Index c = 0; c < x.shape[1]; ++c) {
      if (masks && is_masked(theirs(t, c)))
        x(t, c) = -std::numeric_limits<double>::infinity();
      else if (std::isfinite(theirs(t, c)))
        x(t, c) = theirs(t, c);
    }
  }
}

void Graft::put_decision(const std::string& name, View<const double, 2> scores,
                         View<Index, 2> chosen) const {
  // Selections: what does not fit into ours is read by the attention, see keys().
  if (is_selection(name) || !told_.contains(name)) return told_.replay(name, scores, chosen);
  const Tensor<double, 2>& ids = told_.ids(name);
  for (Index t = 0; t < chosen.shape[0]; ++t) {
    if (sequence_.documents[static_cast<std::size_t>(t)] < 0) continue;
    if (!is_choice(ids.view()[t], chosen.shape[1], scores.shape[1])) continue;
    for (Index i = 0; i < chosen.shape[1]; ++i) chosen(t, i) = static_cast<Index>(ids(t, i));
  }
}

bool Graft::sees(Index t, Index s) const {
  return s <= t && sequence_.documents[static_cast<std::size_t>(s)] ==
                       sequence_.documents[static_cast<std::size_t>(t)];
}

std::vector<Index> Graft::keys_of(const std::string& selection, Index t) const {
  std::vector<Index> row;
  for (const double id : told_.ids(selection).view()[t]) {
    const auto s = static_cast<Index>(id);
    if (!(id >= 0) || s >= sequence_.size()) continue;
    if (reading_ == Reading::masked &&
        (!sees(t, s) || std::find(row.begin(), row.end(), s) != row.end()))
      continue;
    row.push_back(s);
  }
  return row;
}

std::optional<Tensor<Index, 2>> Graft::keys(const std::string& heads,
                                            View<const Index, 2> ours) const {
  if (!config_.indexer || !config_.use_sparse_attention) return std::nullopt;
  const std::string selection = in_layer(selecting_layer(config_, layer_of(heads)), names::indexer);
  if (!told_.contains(selection)) return std::nullopt;
  const Index T = ours.shape[0], W = std::max(ours.shape[1], told_.ids(selection).shape()[1]);
  Tensor<Index, 2> wide({T, W}, -1);
  for (Index t = 0; t < T; ++t) {
    const bool padding = sequence_.documents[static_cast<std::size_t>(t)] < 0;
    const std::vector<Index> row =
        padding ? std::vector<Index>(ours[t].begin(), ours[t].end()) : keys_of(selection, t);
    std::copy(row.begin(), row.end(), wide.view()[t].begin());
  }
  return wide;
}

Variant Graft::feeding(Variant altered) const {
  auto& attention = altered.ops.mla_expanded;
  attention = [this, inner = attention](const std::string& name, View<double, 3> out,
                                        View<const double, 3> q_nope, View<const double, 3> q_rope,
                                        View<const double, 3> kv, View<const double, 2> k_rope,
                                        View<const Index, 2> chosen, double scale) {
    if (const auto told = keys(name, chosen))
      inner(name, out, q_nope, q_rope, kv, k_rope, *told, scale);
    else
      inner(name, out, q_nope, q_rope, kv, k_rope, chosen, scale);
  };
  return altered;
}

}  // namespace dsa::verify
