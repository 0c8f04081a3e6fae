// optimized/cpu/evaluator.hpp — logits of every token of whole sequences, chunk by chunk.
#pragma once

#include <functional>
#include <vector>

#include "core/trace.hpp"
#include "optimized/cpu/forward.hpp"

namespace dsa::cpu {

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
  /// For passes of up to `chunk` tokens.
  Evaluator(PackedModel, Index chunk, int threads);

  const PackedModel& model() const { return model_; }

  /// Calls row(position, logits (V)) for every token in order; padding has no logits. `ends`: where
  /// passes end, in the sequence (a span longer than a chunk is cut); empty: full chunks.
  /// `trace`: tensors and decisions, (S, width) each, by the reference's names; selections name
  /// places in the sequence; rows of padding are 0 and -1.
  void run(const Sequence&, const std::vector<Index>& ends,
           const std::function<void(Index position, View<const float, 1> logits)>& row,
           Trace* trace = nullptr);

 private:
  PackedModel model_;
  Workspace workspace_;
  Cache cache_;
  Tensor<float, 2> logits_;  // (chunk, V)
};

}  // namespace dsa::cpu
