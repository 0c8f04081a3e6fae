// optimized/train/commands/overrides.hpp — the words behind `dsa-train run`, sorted.
#pragma once

#include <string>
#include <vector>

namespace dsa::train {

struct Words {
  std::string config;                  // the file; empty: none was named
  std::vector<std::string> overrides;  // "section.key=value", or "alias=value"
};

/// Flags of other trainers become overrides: --name value, --name=value, -name value; a flag
/// without a value is true. What is neither flag nor override is the file, of which there is one.
Words words_of(const std::vector<std::string>& words);

}  // namespace dsa::train
