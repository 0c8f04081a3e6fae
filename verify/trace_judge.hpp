// verify/trace_judge.hpp — a trace held against the reference, tensor by tensor.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/golden.hpp"
#include "verify/noise.hpp"
#include "verify/run.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// The other side's decisions, as its trace tells them.
class TracedDecisions {
 public:
  explicit TracedDecisions(const Golden&);

  bool told(const std::string& name) const;  // a group choice is told by the experts it led to

  /// For RunOptions::decide: puts the other side's choice in place of ours, wherever it has the
  /// shape of a right answer and is not refused.
  void replay(const std::string& name, View<const double, 2> scores, View<Index, 2> chosen) const;

  /// No longer replay this row: nothing explains it.
  void refuse(const std::string& name, Index row) { refused_.insert({name, row}); }
  bool refused_any() const { return !refused_.empty(); }

  /// The other side's choice of one row: ids in ascending order, without those the query cannot
  /// see (HuggingFace fills a row with masked keys where fewer than K are visible).
  std::vector<Index> row(const std::string& name, Index t, View<const double, 1> scores) const;

 private:
  std::map<std::string, Tensor<double, 2>> ids_;
  std::set<std::pair<std::string, Index>> refused_;
};

/// Judges every told decision of `base` (which replayed them all) and refuses what nothing
/// explains.
std::vector<TensorResult> judge_decisions(TracedDecisions&, const Run& base, const Limits&,
                                          const reference::Ops<double>&, const Sequence&,
                                          const std::string& origin);

/// Judges every tensor that `base` and the trace share; decisions are merged in order of execution.
std::vector<TensorResult> judge_tensors(const Golden&, const Run& base, const Limits&,
                                        const Sequence&, std::vector<TensorResult> decisions,
                                        const std::string& origin);

}  // namespace dsa::verify
