// optimized/engine/plan.hpp — what a run takes of memory, before anything is loaded.
#pragma once

#include <string>

#include "core/tensor.hpp"

namespace dsa {

/// Bytes, of the memory where a backend computes.
struct Plan {
  Index S = 0, chunk = 0;  // tokens of the longest sequence; of a pass
  Index weights = 0;       // as the backend lays them out
  Index cache = 0;         // of S tokens
  Index workspace = 0;     // of a pass
  Index logits = 0;        // that a pass hands out
  Index memory = 0;        // that may be used
  Index largest_S = 0;     // that fits into it
  std::string where;       // that memory is, e.g. "on the device"; empty: this machine's

  Index total() const { return weights + cache + workspace + logits; }
};

/// Four lines for the user.
std::string as_text(const Plan&);

/// Error: S tokens do not fit; says how many do.
void require_fits(const Plan&);

}  // namespace dsa
