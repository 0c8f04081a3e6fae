// run/quantise.hpp — rows of a parameter in another format, and their check.
#pragma once

#include "core/weights.hpp"

namespace dsa::run {

/// FP8 weights have one scale a square block; the last of a row or column may be ragged.
struct BlockFormat {
  Index edge = 128;
  bool ue8m0 = false;  // scales are powers of two
  Index count(Index extent) const { return (extent + edge - 1) / edge; }
};

/// The scale of a block whose largest magnitude is `largest`: largest / 448 in F32, or the power
/// of two at or above it; 1 for a block of zeros.
float block_scale(double largest, bool ue8m0);

/// Rows [begin, end) as `to` (F64, F32, F16 or BF16), at `out`.
void narrow_rows(const Parameter&, Index begin, Index end, Dtype to, std::byte* out);

/// Rows [begin, end) as F8_E4M3 at `out`; `begin` is a multiple of the block's edge. `scales` are
/// those of the whole parameter, of which the block rows concerned are set. A parameter that has
/// this format already is copied.
void quantise_rows(const Parameter&, Index begin, Index end, const BlockFormat&, std::byte* out,
                   float* scales);

/// Throws unless rows [begin, end) of `is` are those of `was`, rounded to the format of `is`.
void check_rows(const Parameter& was, const Parameter& is, Index begin, Index end,
                const BlockFormat&);

}  // namespace dsa::run
