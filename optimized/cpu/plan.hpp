// optimized/cpu/plan.hpp — what a run takes of memory, before anything is loaded.
#pragma once

#include <string>

#include "core/config.hpp"
#include "optimized/cpu/format.hpp"

namespace dsa::cpu {

/// Bytes.
struct Plan {
  Index S = 0, chunk = 0;  // tokens of the longest sequence; of a pass
  Index weights = 0;       // of the packed matrices
  Index cache = 0;         // of S tokens
  Index workspace = 0;     // of a pass
  Index logits = 0;        // that a pass hands out
  Index memory = 0;        // that may be used
  Index largest_S = 0;     // that fits into it

  Index total() const { return weights + cache + workspace + logits; }
};

/// `logits_rows`: rows of logits that are held at a time.
Plan plan(const Config&, Format, Index S, Index chunk, int threads, Index logits_rows,
          Index memory);

/// Four lines for the user.
std::string text(const Plan&);

/// Error: S tokens do not fit; says how many do.
void require_fits(const Plan&);

}  // namespace dsa::cpu
