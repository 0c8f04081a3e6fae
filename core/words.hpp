// core/words.hpp — lists in sentences.
#pragma once

#include <string>
#include <vector>

namespace dsa {

/// "a, b or c".
inline std::string alternatives(const std::vector<std::string>& words) {
  std::string all;
  for (std::size_t i = 0; i < words.size(); ++i)
    all += (i == 0 ? "" : i + 1 < words.size() ? ", " : " or ") + words[i];
  return all;
}

}  // namespace dsa
