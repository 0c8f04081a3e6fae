// verify/judge/traces.hpp — a trace held against the reference, tensor by tensor.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "verify/limits/noise.hpp"
#include "verify/runs/reference_run.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// Rows that are not compared.
using Skip = std::function<bool(const std::string& name, Index t)>;

/// How the attention reads a selection that names keys which its query cannot see, as HuggingFace's
/// does where fewer than K are visible: it masks them again, or it reads them as recorded.
enum class Reading { masked, as_recorded };

/// The decisions in the trace of the judged side.
class TracedDecisions {
 public:
  TracedDecisions(const Recording&, const Config&, Reading = Reading::masked);

  bool contains(const std::string& name) const { return ids_.contains(name); }
  /// The trace has it, or what follows from it: the experts determine their groups.
  bool determines(const std::string& name) const;
  const Tensor<double, 2>& ids(const std::string& name) const { return ids_.at(name); }

  /// For RunOptions::decide: puts the recorded choice in place of ours, wherever it has the shape
  /// of a right answer and is not refused. Groups that are not traced are those of the experts, and
  /// the best of the others.
  void replay(const std::string& name, View<const double, 2> scores, View<Index, 2> chosen) const;

  /// No longer replay this row: nothing explains it.
  void refuse(const std::string& name, Index row) { refused_.insert({name, row}); }
  bool refused_any() const { return !refused_.empty(); }

  /// The recorded choice of one row: ids in ascending order, without those the query cannot see,
  /// unless they are read as recorded.
  std::vector<Index> row(const std::string& name, Index t, View<const double, 1> scores) const;

 private:
  void replay_groups(const std::string& experts, View<const double, 2> scores,
                     View<Index, 2> chosen) const;

  Reading reading_;
  Index n_experts_;
  std::map<std::string, Tensor<double, 2>> ids_;
  std::set<std::pair<std::string, Index>> refused_;
};

/// Allows every element of the traced tensors one unit in the last place of the format that their
/// numbers are in: a right result may be either neighbour. Perturbed runs of one op tell that
/// badly: their errors take two values, of which the rarer may not have come up.
void add_last_place(Limits&, const Recording&, const Run& base);

/// Judges every traced decision of `base` (which replayed them all) and refuses those that nothing
/// explains.
std::vector<TensorResult> judge_decisions(TracedDecisions&, const Run& base, const Limits&,
                                          const reference::Ops<double>&, const Sequence&,
                                          const std::string& origin, const Skip& = {});

/// Judges every tensor that `base` and the trace share; decisions are merged in order of execution.
std::vector<TensorResult> judge_tensors(const Recording&, const Run& base, const Limits&,
                                        const Sequence&, std::vector<TensorResult> decisions,
                                        const std::string& origin, const Skip& = {});

}  // namespace dsa::verify
