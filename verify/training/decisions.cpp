#include "verify/training/decisions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::verify {
namespace {

constexpr double reach = 5;  // standard deviations: beyond, one in two million

bool selects_keys(const std::string& name) { return name.ends_with(".indexer"); }

/// The weakest chosen key of a row, and the strongest that was not chosen.
struct Boundary {
  Index weakest = -1, strongest = -1;
};

Boundary boundary_of(View<const double, 1> scores, View<const Index, 1> chosen) {
  Boundary b;
  const std::vector<Index> in = sorted_set(chosen);
  for (const Index s : in)
    if (b.weakest < 0 || scores(s) < scores(b.weakest)) b.weakest = s;
  for (Index s = 0; s < scores.size(); ++s)
    if (std::isfinite(scores(s)) && !std::binary_search(in.begin(), in.end(), s) &&
        (b.strongest < 0 || scores(s) > scores(b.strongest)))
      b.strongest = s;
  return b;
}

void near_topk(std::vector<NearDecision>& out, const Decision& base,
               const std::vector<const Decision*>& draws, Index step) {
  const Index T = base.scores.shape()[0];
  std::vector<double> margins(static_cast<std::size_t>(T));
  double squares = 0, n = 0;
  for (Index t = 0; t < T; ++t) {
    const auto chosen = base.chosen.view()[t];
    const double mine = margin(base.scores.view()[t], chosen);
    margins[static_cast<std::size_t>(t)] = mine;
    for (const Decision* draw : draws) {
      const double d = margin(draw->scores.view()[t], chosen) - mine;
      if (std::isfinite(d)) squares += d * d, ++n;
    }
  }
  const double noise = n > 0 ? reach * std::sqrt(squares / n) : 0;
  for (Index t = 0; t < T; ++t) {
    const double mine = margins[static_cast<std::size_t>(t)];
    if (!(mine <= noise)) continue;
    const Boundary b = boundary_of(base.scores.view()[t], base.chosen.view()[t]);
    if (b.weakest < 0 || b.strongest < 0) continue;
    out.push_back(
        {NearDecision::Kind::topk, step, base.name, t, b.weakest, b.strongest, mine, noise});
  }
}

/// Dot products of keys that have a gradient: the chosen ones, or every key that a query sees.
void near_kinks(std::vector<NearDecision>& out, const std::string& name, const IndexDots& base,
                const std::vector<const IndexDots*>& draws, const Decision& selection,
                bool chosen_only, Index step) {
  const Index T = base.q.shape()[0], H = base.q.shape()[1];
  const double n = static_cast<double>(draws.size());
  std::vector<std::vector<NearDecision>> found(static_cast<std::size_t>(T));
  parallel_for(T, 20'000 * H, [&](Index t) {
    std::vector<Index> keys;
    if (chosen_only) keys = sorted_set(selection.chosen.view()[t]);
    for (Index s = 0; s < selection.scores.shape()[1] && !chosen_only; ++s)
      if (std::isfinite(selection.scores(t, s))) keys.push_back(s);
    for (Index h = 0; h < H; ++h) {
      std::vector<double> own;
      double squares = 0;
      for (const Index s : keys) {
        own.push_back(base.at(t, h, s));
        for (const IndexDots* draw : draws) squares += std::pow(draw->at(t, h, s) - own.back(), 2);
      }
      const double noise = reach * std::sqrt(squares / (n * static_cast<double>(keys.size())));
      for (std::size_t j = 0; j < keys.size(); ++j)
        if (std::abs(own[j]) <= noise && own[j] != 0)
          found[static_cast<std::size_t>(t)].push_back(
              {NearDecision::Kind::kink, step, name, t, keys[j], h, std::abs(own[j]), noise});
    }
  });
  for (const auto& row : found) out.insert(out.end(), row.begin(), row.end());
}

}  // namespace

double IndexDots::at(Index t, Index h, Index s) const {
  return reference::dot(q.view()[t][h].data, k.view()[s].data, k.shape()[1]);
}

std::string in_words(const NearDecision& d) {
  if (d.kind == NearDecision::Kind::kink)
    return fmt::format(
        "step {}: {}, row {}: the dot product of head {} with key {} is {:.1e}, on "
        "either side of the ReLU's kink",
        d.step, d.name, d.row, d.other, d.key, d.margin);
  return fmt::format("step {}: {}, row {}: {} {} in place of {}, {:.1e} apart", d.step, d.name,
                     d.row, selects_keys(d.name) ? "key" : "number", d.other, d.key, d.margin);
}

Watch::Watch(Decisions& seen, const Decisions* held, std::vector<NearDecision> turned)
    : seen_(seen), held_(held), turned_(std::move(turned)) {}

reference::Tap<double> Watch::tap() {
  reference::Tap<double> tap;
  tap.decision = [this](const std::string& name, View<const double, 2> scores,
                        View<Index, 2> chosen) { decide(name, scores, chosen); };
  return tap;
}

void Watch::decide(const std::string& name, View<const double, 2> scores, View<Index, 2> chosen) {
  if (held_ != nullptr) {
    const auto& theirs = held_->topk.at(name).chosen;
    std::copy(theirs.begin(), theirs.end(), chosen.begin());
  }
  for (const NearDecision& d : turned_)
    if (d.kind == NearDecision::Kind::topk && d.name == name)
      std::replace(chosen[d.row].begin(), chosen[d.row].end(), d.key, d.other);
  if (seen_.topk.contains(name)) return;  // a layer that is run again
  Decision& mine = seen_.topk[name];
  mine = {name, Tensor<double, 2>(scores.shape), Tensor<Index, 2>(chosen.shape)};
  std::copy(scores.begin(), scores.end(), mine.scores.begin());
  std::copy(chosen.begin(), chosen.end(), mine.chosen.begin());
}

/// Moves queries by less than rounding, so that every dot product that has a gradient falls on the
/// side of the ReLU that is held, but for those that are turned.
void Watch::put_on_side(const std::string& name, Tensor<double, 3>& q, View<const double, 2> k,
                        View<const double, 2> d_scores) const {
  const Index T = q.shape()[0], H = q.shape()[1], D = q.shape()[2], S = k.shape[0];
  const auto put = [&](Index t, Index h, Index s, bool above) {
    double* mine = q.view()[t][h].data;
    const double* key = k[s].data;
    const double a = reference::dot(mine, key, D), k2 = reference::dot(key, key, D);
    if ((a > 0) == above || k2 == 0) return;
    // To the other side, and as far beyond.
    for (Index d = 0; d < D; ++d) mine[d] -= 2 * a / k2 * key[d];
  };
  if (held_ != nullptr) {
    const IndexDots& theirs = held_->dots.at(name);
    parallel_for(T, S * H * D, [&](Index t) {
      for (Index s = 0; s < S; ++s)
        for (Index h = 0; h < H && d_scores(t, s) != 0; ++h) put(t, h, s, theirs.at(t, h, s) > 0);
    });
  }
  for (const NearDecision& d : turned_)
    if (d.kind == NearDecision::Kind::kink && d.name == name)
      put(d.row, d.other, d.key,
          !(reference::dot(q.view()[d.row][d.other].data, k[d.key].data, D) > 0));
}

Alter Watch::alter() {
  return [this](reference::Ops<double>& forward, reference::BackwardOps<double>& backward) {
    forward.indexer_scores = [this, op = forward.indexer_scores](const std::string& name,
                                                                 auto scores, auto q, auto k,
                                                                 auto&&... a) {
      op(name, scores, q, k, a...);
      if (seen_.dots.contains(name)) return;
      IndexDots& mine = seen_.dots[name];
      mine = {Tensor<double, 3>(q.shape), Tensor<double, 2>(k.shape)};
      std::copy(q.begin(), q.end(), mine.q.begin());
      std::copy(k.begin(), k.end(), mine.k.begin());
    };
    backward.indexer_scores = [this, op = backward.indexer_scores](
                                  const std::string& name, auto d, const auto& in,
                                  View<const double, 2> d_scores, auto&&... a) {
      Tensor<double, 3> q(in.q.shape);
      std::copy(in.q.begin(), in.q.end(), q.begin());
      put_on_side(name, q, in.k, d_scores);
      op(name, d, reference::IndexerScoresInputs<double>{q, in.k, in.w}, d_scores, a...);
    };
  };
}

std::vector<NearDecision> near_decisions(const Decisions& base, const std::vector<Decisions>& draws,
                                         Index step, const Recipe& recipe) {
  using Keys = KlSemantics::Keys;
  const bool chosen_only = recipe.semantics.student_keys == Keys::chosen,
             selects = recipe.attention == Recipe::Attention::sparse || chosen_only ||
                       recipe.semantics.teacher_keys == Keys::chosen;
  std::vector<NearDecision> out;
  for (const auto& [name, decision] : base.topk) {
    if (selects_keys(name) && !selects) continue;
    std::vector<const Decision*> theirs;
    for (const Decisions& draw : draws) theirs.push_back(&draw.topk.at(name));
    near_topk(out, decision, theirs, step);
  }
  for (const auto& [name, dots] : base.dots) {
    if (recipe.kl == 0) break;  // nothing learns by these
    std::vector<const IndexDots*> theirs;
    for (const Decisions& draw : draws) theirs.push_back(&draw.dots.at(name));
    near_kinks(out, name, dots, theirs, base.topk.at(name.substr(0, name.rfind('.'))), chosen_only,
               step);
  }
  return out;
}

}  // namespace dsa::verify
