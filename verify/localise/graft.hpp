// verify/localise/graft.hpp — runs of the reference in which every op is fed what the other side
// fed it.
//
// Wherever the side's trace tells a tensor or a decision, the run keeps its own for comparison and
// goes on with the side's. What the trace leaves out is computed from what it tells. Where the side
// has a NaN or an infinity that is no mask, and in rows of padding, the run goes on with its own.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "verify/judge/traces.hpp"

namespace dsa::verify {

class Graft {
 public:
  /// Borrows the side. Traces that the reference does not have are no obstacle.
  Graft(const Recording& side, const Config&, Reading);

  /// Whether a run goes on with the side's tensor or decision of this name.
  bool tells(const std::string& name) const;

  /// The tensors, told or not, that lie between `name` and what the trace tells: `name` itself, and
  /// whatever it is made from that is not told. In no order.
  std::set<std::string> made_by(const std::string& name) const;

  /// Some told tensor that `name` is made from has numbers that are not finite.
  bool is_spoiled(const std::string& name) const;

  /// Some selection names keys that its query cannot see, or a key twice: the two readings differ.
  bool readings_differ() const { return readings_differ_; }

  /// The span of all layers, with what is kept, put in place and replayed. Borrows this.
  RunOptions options() const;

  /// The same ops, with an attention that reads the side's selections: they may hold more keys than
  /// a selection of ours has room for. Borrows this.
  Variant feeding(Variant) const;

  const TracedDecisions& decisions() const { return told_; }
  TracedDecisions& decisions() { return told_; }

 private:
  void put_tensor(const std::string& name, View<double, 2> x) const;
  void put_decision(const std::string& name, View<const double, 2> scores,
                    View<Index, 2> chosen) const;
  bool sees(Index t, Index s) const;
  std::vector<Index> keys_of(const std::string& selection, Index t) const;
  std::optional<Tensor<Index, 2>> keys(const std::string& heads, View<const Index, 2> ours) const;
  void visit_inputs(const std::string& name, std::set<std::string>& untold,
                    std::set<std::string>& told) const;

  const Recording& side_;
  const Sequence& sequence_;
  Config config_;
  Reading reading_;
  TracedDecisions told_;
  std::set<std::string> spoiled_;
  bool readings_differ_ = false;
};

}  // namespace dsa::verify
