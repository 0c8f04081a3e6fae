// optimized/engine/evaluator.hpp — logits of every token of whole sequences, chunk by chunk.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/trace.hpp"
#include "optimized/engine/engine.hpp"

namespace dsa {

/// A sequence as the cache holds it: padding left out, for nothing sees it.
struct Unpadded {
  std::vector<Token> tokens;
  std::vector<Index> positions;
  std::vector<std::int32_t> begin;  // row of the first token of each one's document
  std::vector<Index> at;            // where each stands in the sequence
};

/// Error: the tokens of a document do not lie next to each other, padding aside.
Unpadded unpadded(const Sequence&);

class Evaluator {
 public:
  explicit Evaluator(std::unique_ptr<Engine>);

  const Engine& engine() const { return *engine_; }

  /// Calls row(position, logits (V)) for every token in order; padding has no logits. `ends`: where
  /// passes end, in the sequence (a span longer than the engine's passes is cut); empty: full
  /// passes. `trace`: tensors and decisions, (S, width) each, by the reference's names; selections
  /// name places in the sequence; rows of padding are 0 and -1.
  void run(const Sequence&, const std::vector<Index>& ends,
           const std::function<void(Index position, View<const float, 1> logits)>& row,
           Trace* trace = nullptr);

 private:
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SequenceCache> cache_;
  Tensor<float, 2> logits_;  // of a pass: (pass_tokens, V)
};

}  // namespace dsa
