// optimized/train/data/document.hpp — one document: tokens, and which of them are to be learned.
#pragma once

#include <cstdint>
#include <vector>

#include "core/recording.hpp"

namespace dsa::train {

struct Document {
  std::vector<Token> tokens;
  std::vector<std::uint8_t> answer;  // (T) whether the token is part of an answer
  Index size() const { return static_cast<Index>(tokens.size()); }

  void put(Token token, bool is_answer = false) {
    tokens.push_back(token);
    answer.push_back(is_answer ? 1 : 0);
  }
};

}  // namespace dsa::train
