// verify/kernels/peers/layouts.hpp — rows, indices and logarithms as other people's kernels lay
// them out.
//
// Bytes are moved, numbers never changed. Pages have 64 rows; page p of a sequence lies at block
// blocks[p] of the cache. docs/ops.md has the conventions and where they come from.
#pragma once

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

inline constexpr Index layout_page = 64;

/// A block for each page of S rows, from the end and from the beginning by turns: a kernel that
/// reads the sequence straight through, or backwards, is seen.
std::vector<Index> blocks_of(Index S);

/// FlashMLA's FP8 cache, U8 (blocks, 64, 1, bytes): whole rows, one after the other. The row of
/// V3.2 is optimized/shared/rows.hpp's: 512 e4m3, 4 scales at byte 512, 64 bf16 at byte 528; 656
/// bytes.
Array flashmla_cache(const Array& rows, const std::vector<Index>& blocks);
Array flashmla_rows(const Array& cache, const std::vector<Index>& blocks, Index S);

/// DeepGEMM's paged index keys, U8 (blocks, 64, 1, D + 4): the 64 D bytes of e4m3 of a page, then
/// its 64 scales. Rows (S, D + 4) have each scale behind its key.
Array deepgemm_cache(const Array& rows, const std::vector<Index>& blocks);
Array deepgemm_rows(const Array& cache, const std::vector<Index>& blocks, Index S);

/// chosen (T, K) as FlashMLA's decoding wants it: block * 64 + row of the page, -1 as it is, filled
/// up with -1 to a multiple of so many keys. Without blocks: rows of the sequence, as its prefill
/// wants.
Array flashmla_indices(const Array& chosen, const std::vector<Index>& blocks, Index multiple);
Array flashmla_chosen(const Array& indices, const std::vector<Index>& blocks, Index K);

/// The logarithm of a sum of exponentials: its base, and what stands where no key was chosen.
struct LseConvention {
  double base_in_nats;  // 1: natural; log 2: base 2
  double empty;
};
extern const LseConvention flashmla_lse;  // natural, +inf
extern const LseConvention tilelang_lse;  // base 2, -inf: log2 0
/// To and from ours: natural, -inf.
double lse_of(double theirs, const LseConvention&);
double lse_as(double ours, const LseConvention&);

}  // namespace dsa::verify::kernels
