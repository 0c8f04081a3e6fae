// tests/answers.hpp — what an engine says of a sequence.
#pragma once

#include <algorithm>
#include <vector>

#include "optimized/engine/evaluator.hpp"

namespace dsa::test {

struct Answer {
  Tensor<float, 2> logits;
  Trace trace;
};

inline Answer ask(Evaluator& evaluator, const Sequence& s, const std::vector<Index>& ends = {}) {
  Answer answer{Tensor<float, 2>({s.size(), evaluator.engine().config().vocab_size}), {}};
  evaluator.run(
      s, ends,
      [&](Index t, View<const float, 1> row) {
        std::copy(row.begin(), row.end(), answer.logits.view()[t].begin());
      },
      &answer.trace);
  return answer;
}

}  // namespace dsa::test
