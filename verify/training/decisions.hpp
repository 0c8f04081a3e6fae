// verify/training/decisions.hpp — what rounding may turn in a step of training: a selection, a
// routing, or the side of the ReLU on which an index head's dot product falls.
//
// Each is a jump: losses and gradients part there by far more than rounding, and AdamW, which
// divides by the size of a gradient, may carry a small jump far. So runs that are compared hold
// them, and a jump that rounding allows is replayed by itself.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "verify/runs/reference_run.hpp"
#include "verify/training/replay.hpp"

namespace dsa::verify {

/// Queries and keys of an indexer, as its scores read them.
struct IndexDots {
  Tensor<double, 3> q;  // (T, H, D)
  Tensor<double, 2> k;  // (S, D)
  double at(Index t, Index h, Index s) const;
};

/// The decisions of one step. Filled by watching a forward pass.
struct Decisions {
  std::map<std::string, Decision> topk;   // by trace name
  std::map<std::string, IndexDots> dots;  // by the trace name of the scores
};

/// One of them that rounding may turn.
struct NearDecision {
  enum class Kind { topk, kink };
  Kind kind = Kind::topk;
  Index step = 0;
  std::string name;                   // trace name, of the selection or of the scores
  Index row = 0, key = 0, other = 0;  // topk: `key` is given up for `other`; kink: key and head
  double margin = 0, noise = 0;
};

/// "model.layers.3.self_attn.indexer, step 6, row 41: key 7 for key 12"
std::string in_words(const NearDecision&);

/// Records a pass in `seen`; makes it decide as `held` does (null: freely), but for `turned`.
class Watch {
 public:
  Watch(Decisions& seen, const Decisions* held, std::vector<NearDecision> turned = {});
  reference::Tap<double> tap();
  Alter alter();

 private:
  void decide(const std::string& name, View<const double, 2> scores, View<Index, 2> chosen);
  void put_on_side(const std::string& name, Tensor<double, 3>& q, View<const double, 2> k,
                   View<const double, 2> d_scores) const;

  Decisions& seen_;
  const Decisions* held_;
  std::vector<NearDecision> turned_;
};

/// What of `base` lies so near to its other side that the spread of `draws`, which hold its
/// decisions, may reach it, as far as the recipe's losses hang on it.
std::vector<NearDecision> near_decisions(const Decisions& base, const std::vector<Decisions>& draws,
                                         Index step, const Recipe&);

}  // namespace dsa::verify
