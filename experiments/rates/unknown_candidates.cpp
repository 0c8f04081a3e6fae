#include "experiments/rates/unknown_candidates.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "core/random.hpp"
#include "core/trace_names.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::experiments {
namespace {

using verify::RunOptions;
using verify::Variant;
using Scores = View<const double, 2>;
using Chosen = View<Index, 2>;

/// Dice of one seed, in order.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : seed_(random_bits(seed, 0x0DD)) {}
  double uniform() { return dsa::uniform(seed_, next_++); }
  Index below(Index n) { return std::min(n - 1, static_cast<Index>(uniform() * double(n))); }
  std::uint64_t seed() { return random_bits(seed_, next_++); }

 private:
  std::uint64_t seed_, next_ = 0;
};

/// Selects by f(layer, t, s) in place of the scores, in rows from `first` on.
void select_by(RunOptions& run, Index first, std::function<double(Index, Index, Index)> f) {
  run.decide = [=](const std::string& name, Scores scores, Chosen chosen) {
    if (!is_selection(name)) return;
    for (Index t = first; t < scores.shape[0]; ++t) {
      std::vector<std::pair<double, Index>> order;
      for (Index s = 0; s < scores.shape[1]; ++s)
        if (std::isfinite(scores(t, s))) order.push_back({-f(layer_of(name), t, s), s});
      std::sort(order.begin(), order.end());
      std::fill(chosen[t].begin(), chosen[t].end(), -1);
      for (std::size_t i = 0; i < order.size() && static_cast<Index>(i) < chosen.shape[1]; ++i)
        chosen(t, static_cast<Index>(i)) = order[i].second;
    }
  };
}

/// Of at least half as many keys again as are selected: all of few keys are the lowest ones, which
/// a known defect selects.
std::string random_keys(RunOptions& run, Index T, Index K, Dice& dice) {
  const Index least = std::min(T, K + K / 2), first = least + dice.below(T - least + 1) - 1,
              below = dice.below(2) == 0 ? T : least + dice.below(T - least + 1);
  const std::uint64_t seed = dice.seed();
  select_by(run, first, [=](Index layer, Index t, Index s) {
    return uniform(seed, static_cast<std::uint64_t>((layer * T + t) * T + s)) + (s < below);
  });
  return fmt::format("random keys below {} from row {}", below, first);
}

/// Every second key around one of the past that is neither the last nor the first. (All keys around
/// it are the last ones below a bound: two known defects together.)
std::string window(RunOptions& run, Index T, Index K, Dice& dice) {
  const Index first = K + 1 + dice.below(T - K - 1), back = 3 + dice.below(K);
  select_by(run, first, [=](Index, Index t, Index s) {
    const Index away = std::abs(s - std::max<Index>(0, t - back - K / 2));
    return -static_cast<double>(away % 2 == 0 ? away : away + 2 * t);
  });
  return fmt::format("every second key around {} keys ago from row {}", back + K / 2, first);
}

/// The right selection with its keys moved: s becomes another key of the same row.
std::string permutation(RunOptions& run, Index T, Index K, Dice& dice) {
  const Index first = K + dice.below(T - K);
  const std::uint64_t seed = dice.seed();
  run.decide = [=](const std::string& name, Scores, Chosen chosen) {
    if (!is_selection(name)) return;
    for (Index t = first; t < chosen.shape[0]; ++t) {
      std::vector<Index> to(static_cast<std::size_t>(t + 1));
      std::iota(to.begin(), to.end(), Index{0});
      std::sort(to.begin(), to.end(), [&](Index a, Index b) {
        return random_bits(seed, static_cast<std::uint64_t>(t * T + a)) <
               random_bits(seed, static_cast<std::uint64_t>(t * T + b));
      });
      for (Index& s : chosen[t])
        if (s >= 0) s = to[static_cast<std::size_t>(s)];
    }
  };
  return fmt::format("permuted keys from row {}", first);
}

std::string noise(RunOptions& run, const std::vector<std::string>& names, Dice& dice) {
  const std::string name = names[static_cast<std::size_t>(dice.below(Index(names.size())))];
  const double size = std::pow(10.0, -5 + 5 * dice.uniform());
  const std::uint64_t seed = dice.seed();
  run.graft = [=](const std::string& at, View<double, 2> x) {
    if (at != name) return;
    for (Index i = 0; i < x.size(); ++i)
      if (std::isfinite(x.data[i]))
        x.data[i] *= 1 + size * gaussian(seed, static_cast<std::uint64_t>(i));
  };
  return fmt::format("noise of {:.2g} on {}", size, name);
}

/// One matrix of a layer from a layer that is not the one before it; empty where there is none.
std::string foreign_weights(Variant& altered, Dice& dice) {
  struct Place {
    std::string name;
    Parameter* parameter;
  };
  std::vector<Place> places;
  for_each_tensor(
      altered.model.weights, altered.model.config,
      [&](const std::string& name, Parameter& p, const std::vector<Index>& shape) {
        if (layer_of(name) >= 0 && shape.size() == 2 && name.find(".experts.") == std::string::npos)
          places.push_back({name, &p});
      });
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const Place &to = places[static_cast<std::size_t>(dice.below(Index(places.size())))],
                &from = places[static_cast<std::size_t>(dice.below(Index(places.size())))];
    const Index a = layer_of(to.name), b = layer_of(from.name);
    if (a == b || b == a - 1 || within_layer(to.name) != within_layer(from.name) ||
        to.parameter->shape != from.parameter->shape)
      continue;
    *to.parameter = Parameter(*from.parameter);
    return to.name + " of layer " + std::to_string(b);
  }
  return "";
}

void add(Trace& trace, const verify::Decision& decision) {
  const auto chosen = std::make_shared<const Tensor<Index, 2>>(decision.chosen);
  Trace::Entry entry;
  entry.name = decision.name, entry.dtype = Dtype::i64;
  entry.shape = {chosen->shape()[0], chosen->shape()[1]};
  entry.data = reinterpret_cast<const std::byte*>(chosen->data());
  entry.memory = chosen;
  trace.put(std::move(entry));
}

Recording shown(const verify::Run& run, const Sequence& sequence, bool logits, bool tensors) {
  Recording candidate;
  candidate.path = "drawn";
  candidate.dtype = "fp64";
  candidate.sequences = {sequence};
  if (logits) {
    candidate.logits = {run.logits};
    return candidate;
  }
  for (const Trace::Entry& entry : run.trace.entries())
    if (tensors) candidate.trace.put(entry);
  for (const verify::Decision& d : run.decisions)
    if (tensors || is_selection(d.name)) add(candidate.trace, d);
  return candidate;
}

}  // namespace

Unknown draw_unknown(const verify::ModelPair& models, const Sequence& sequence,
                     std::uint64_t seed) {
  Dice dice(seed);
  Variant altered = models.rounded({reference::Rounding::Mode::random, random_bits(seed, 1)});
  const Config& config = altered.model.config;
  const Index T = sequence.size(), K = config.indexer ? config.indexer->topk : 1;
  RunOptions run;
  run.span = {0, config.num_hidden_layers};
  std::vector<std::string> names;
  run.keep = [&](const std::string& name) {
    if (verify::is_traced(name)) names.push_back(name);
    return false;
  };
  run_reference(altered.model, sequence, altered.ops, run);
  run.keep = verify::is_traced;

  Unknown drawn;
  const Index kinds = config.indexer && T > K + 1 ? 5 : 2;
  switch (dice.below(kinds)) {
    case 0:
      drawn.how = noise(run, names, dice);
      break;
    case 1:
      drawn.how = foreign_weights(altered, dice);
      break;
    case 2:
      drawn.how = random_keys(run, T, K, dice);
      break;
    case 3:
      drawn.how = window(run, T, K, dice);
      break;
    default:
      drawn.how = permutation(run, T, K, dice);
  }
  const verify::Run wrong = run_reference(altered.model, sequence, altered.ops, run);
  const Index view = dice.below(config.indexer ? 3 : 2);
  const char* views[] = {"logits", "a whole trace", "selections"};
  drawn.how += std::string(", shown as ") + views[view];
  drawn.candidate = shown(wrong, sequence, view == 0, view == 1);
  return drawn;
}

}  // namespace dsa::experiments
