// optimized/shared/rows.hpp — the rows that a cache keeps for a token, in three formats.
//
//   element   latent row [c_kv R | k_rope P]            index key (D)
//   float     R+P float                                 D float
//   bf16      R+P bf16                                  D bf16
//   e4m3      R e4m3 | ceil(R/128) float | P bf16       D e4m3 | one float
//             656 bytes at R 512, P 64                  132 bytes at D 128
//
// The element type of a Pages tells the format; the width of an e4m3 row counts bytes. Latent:
// FlashMLA's row for V3.2; R is cut into runs of 128 channels (the last may be shorter) with a
// scale each. Index key: DeepGEMM keeps a page's scales behind the page's keys; here every key has
// its own beside it. The floats of a row may lie at any address: copy them out.
#pragma once

#include "core/config.hpp"
#include "core/dtype.hpp"
#include "optimized/shared/pages.hpp"

namespace dsa {

constexpr Index fp8_run = 128;
constexpr Index fp8_latent_bytes(Index R, Index P) {
  return R + 4 * ((R + fp8_run - 1) / fp8_run) + 2 * P;
}
constexpr Index fp8_index_bytes(Index D) { return D + 4; }

/// Elements of a row. Row: float, bf16 or e4m3.
template <class Row>
Index latent_width(const Config&);
template <class Row>
Index index_width(const Config&);

}  // namespace dsa
