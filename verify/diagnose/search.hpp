// verify/diagnose/search.hpp — the catalogue's variants run against a candidate: singles, fitted
// constants, further settings, pairs.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "verify/defects/defect.hpp"
#include "verify/diagnose/diagnose.hpp"
#include "verify/diagnose/distance.hpp"
#include "verify/judge/against_definition.hpp"

namespace dsa::verify {

using Alter = std::function<void(Variant&)>;

/// One variant, or two together, and what became of it.
struct Arm {
  Ranked ranked;
  Alter alter;
  const Defect* defect = nullptr;
  Distance distance;
};

std::vector<Arm> single_arms(const Config&);

/// The nearest singles with every other one.
std::vector<Arm> pair_arms(const std::vector<Arm>& singles);

class Search {
 public:
  /// Borrows everything. `plain`: the candidate against the definition.
  Search(const ModelPair&, const Recording& side, const JudgeOptions&, const SideResult& plain);

  const Distance& before() const { return distances_.of_definition(); }

  /// Runs every arm and sorts them, best first. One that throws, as a pair may whose defects
  /// exclude each other, is last.
  void rank(std::vector<Arm>&, const std::string& what);

  /// Holds the best arms against the candidate; true if one explains it.
  bool hold_best(std::vector<Arm>&);

  /// Adds an arm for each constant of the nearest defects, at the value that leaves least, and
  /// what else the catalogue knows of defects where none of its variants explains the candidate.
  void widen(std::vector<Arm>&, const Config&);

  Index variants() const { return variants_; }

 private:
  Distance left(const Alter&) const;
  bool may_explain(const Defect&, const std::vector<Arm>&) const;
  void hold(Arm&, const JudgeOptions&) const;
  void each(std::size_t n, const std::string& what, const std::function<void(std::size_t)>&);
  std::vector<Arm> fitted(const std::vector<Arm>&, const Config&);
  std::vector<Arm> further(const Config&) const;

  const ModelPair& models_;
  const Recording& side_;
  const JudgeOptions& options_;
  const SideResult& plain_;
  Distances distances_;
  std::optional<Defect> other_weights_;  // of another checkpoint, where one is given
  Index variants_ = 0;
};

}  // namespace dsa::verify
