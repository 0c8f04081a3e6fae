// verify/localise/weights.hpp — whether an op that is wrong by itself computes with other weights.
//
// A linear op with other weights is still linear: what it makes of the other side's input, less
// what the checkpoint's weights make of it, is a product of that input with one matrix, whose rank
// can be read off. An adapter that is not applied, is merged, or is merged twice leaves a rank far
// below the matrix's own (defect 115). More rows than the op has inputs are needed to tell.
#pragma once

#include <string>
#include <vector>

#include "verify/localise/localise.hpp"

namespace dsa::verify {

struct OtherWeights {
  std::string name;  // of the op, by its trace name
  Index rank = 0;    // of the difference of the weights
  Index full = 0;    // the largest that the matrix can have

  bool is_low() const { return 2 * rank <= full; }
};

/// Of the ops that are wrong by themselves, those that are linear and whose weights differ.
std::vector<OtherWeights> other_weights(const ModelPair&, const Recording& side,
                                        const std::vector<FaultyOp>& wrong);

/// "a, b: weights that differ from the checkpoint's by matrices of rank 4 and 2, ..."
std::string in_words(const std::vector<OtherWeights>&);

}  // namespace dsa::verify
