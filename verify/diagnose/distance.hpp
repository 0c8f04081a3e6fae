// verify/diagnose/distance.hpp — how much of a candidate an altered reference leaves unexplained.
#pragma once

#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "verify/judge/against_definition.hpp"
#include "verify/judge/traces.hpp"
#include "verify/runs/variant.hpp"

namespace dsa::verify {

struct Distance {
  /// Mean KL of a row of logits, plus, of every traced tensor, the normalised mean square error,
  /// and of every traced decision the share of keys that differ. What is no number counts 1000.
  /// Infinite where the run ended early.
  double sum = 0;
  double kl_max = 0;  // NaN where the candidate has no logits

  /// What remains at the first tensor that differs from the definition; 0 where none does.
  double at_first = 0;
  /// A tensor before it, which agrees with the definition, does not agree with this variant: it
  /// explains the candidate neither alone nor with others.
  bool excluded = false;
};

/// A candidate, decoded once, that many variants are held against.
///
/// A run ends as soon as it cannot be an explanation: where a tensor departs that agrees with the
/// definition, where the first one that does not is left as far off, or where `bound` is passed.
class Distances {
 public:
  /// Borrows the candidate. `plain`: the candidate against the definition.
  Distances(const Recording& candidate, const Variant& definition, const SideResult& plain);

  /// One run of `altered` over every sequence of the candidate.
  Distance screened(const Variant& altered, double bound) const;

  const Distance& of_definition() const { return of_definition_; }
  bool has_first() const { return !first_.empty(); }
  const std::string& first() const { return first_; }  // empty: none, or there is no trace

 private:
  struct Progress;
  Distance run(const Variant& altered, bool screen, double bound) const;
  void find_first(const SideResult& plain);
  void see_tensor(Progress&, const std::string& name, View<double, 2> x) const;
  void see_decision(Progress&, const std::string& name, View<const double, 2> scores,
                    View<Index, 2> chosen) const;
  std::vector<Index> visible_row(const std::string& name, Index t, Index n) const;
  void add(Progress&, const std::string& name, double remains) const;
  bool agrees(const std::string& name, View<double, 2> x) const;
  void run_sequence(Progress&, const Variant& altered, std::size_t b) const;

  const Recording& candidate_;
  std::map<std::string, Tensor<double, 2>> values_;
  std::map<std::string, Tensor<double, 2>> limits_;  // of tensors that come before the first
  TracedDecisions decisions_;
  std::string first_;
  double rows_ = 0;
  Distance of_definition_;
};

}  // namespace dsa::verify
