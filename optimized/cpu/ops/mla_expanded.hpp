// optimized/cpu/ops/mla_expanded.hpp — MLA in expanded form over every visible key,
// streaming.
//
//   [v[s,n,:] | k_nope[s,n,:]] = W_n c_kv[s,:],   k[s,n,:] = [k_nope[s,n,:] | k_rope[s,:]]
//   p[t,n,:] = softmax_s( scale q[t,n,:] . k[s,n,:] ),  begin[t] <= s < end[t]
//   out[t,n,:] = sum_s p[t,n,s] v[s,n,:],   lse[t,n] = log sum_s exp( scale q[t,n,:] . k[s,n,:] )
//
// Definition: reference/ops/mla.hpp. Keys and values of 512 tokens and some heads are
// made at a time and met by every query: memory does not depend on S. A query that sees nothing:
// out 0, lse -inf.
//
// v and k_nope are rounded to bf16 where X is bf16. The channels of an e4m3 row, times their
// scales, are rounded to bf16 before that. The weights p are rounded as mla_sparse.hpp says. A
// query's result is the same bits alone and among others, on any pages and by any number of
// threads; it is not mla_dense's.
#pragma once

#include <span>

#include "optimized/cpu/ops/linear.hpp"
#include "optimized/cpu/ops/mla.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/shared/key_range.hpp"

namespace dsa::cpu {

/// The rows of W_n that stand before W_UK: U of W_UV, and zeros up to whole cache lines.
constexpr Index value_rows(Index U) { return (U + 31) / 32 * 32; }

/// W_n (value_rows(U) + B, R) out of a head's rows of kv_b_proj.
Matrix expansion_of(Cpu, View<const float, 2> kv_b,  // (B+U, R) [W_UK | W_UV]
                    Index B, Dtype);

/// X, Row: float, float; bf16, bf16; bf16, e4m3.
template <class X, class Row>
struct MlaExpandedIn {
  View<const X, 3> q;         // (T, N, B+P)
  Pages<const Row> kv;        // (S, R+P)   rows.hpp
  std::span<const Matrix> w;  // (N): (value_rows(U) + B, R) each
  KeyRanges visible;          // (T)
  double scale;
};

/// y.out has U channels. Scratch: mla_expanded_scratch, as a whole.
/// Error: shapes disagree; as many matrices as heads are expected.
template <class X, class Row>
void mla_expanded(Cpu, MlaOut y, const MlaExpandedIn<X, Row>&, Scratch);
/// Bytes of the whole pass, not of one thread, for the current number of threads. The pass begins
/// at thread 0's piece of the Scratch.
template <class X>
Index mla_expanded_scratch(Index T, Index N, Index R, Index P, Index B, Index U);

}  // namespace dsa::cpu
