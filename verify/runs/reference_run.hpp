// verify/runs/reference_run.hpp — one run of the reference over one sequence, with everything the
// judge needs.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "core/trace.hpp"
#include "reference/model/forward.hpp"
#include "reference/precision/precision.hpp"

namespace dsa::verify {

/// One top-k of a run.
struct Decision {
  std::string name;          // "model.layers.3.self_attn.indexer"
  Tensor<double, 2> scores;  // (T, S)
  Tensor<Index, 2> chosen;   // (T, K)
};

struct Run {
  Tensor<double, 2> logits;         // (T, V); empty without the last layer or the head
  Trace trace;                      // the tensors that RunOptions::keep let through
  std::vector<Decision> decisions;  // in order of execution
  std::vector<std::string> order;   // names of both, as they came

  const Decision* find(const std::string& name) const;
};

/// The layers that run, and the input of the first one.
struct Span {
  Index begin = 0, end = 0;                  // layers
  const Tensor<double, 2>* input = nullptr;  // (T, C) of layer `begin`; null: the embedding
};

struct RunOptions {
  Span span;
  /// Tensors to keep in the trace.
  std::function<bool(const std::string& name)> keep;
  /// Sees every tensor after it was kept; what it writes is what the rest of the run goes on with.
  std::function<void(const std::string& name, View<double, 2> x)> graft;
  /// May rewrite the keys that a decision chose. Called before it is recorded.
  std::function<void(const std::string& name, View<const double, 2> scores, View<Index, 2> chosen)>
      decide;
  bool record_decisions = true;
  bool head = true;  // false: stop before model.norm, lm_head and the logits
};

Run run_reference(const Model&, const Sequence&, const reference::Ops<double>&, const RunOptions&);

}  // namespace dsa::verify
