// optimized/cpu/ops/mla_sparse.hpp — MLA in absorbed form over the chosen keys.
//
//   p[t,n,:] = softmax_s( scale q[t,n,:] . kv[s,:] ),  s in chosen[t,:]
//   out[t,n,:] = sum_s p[t,n,s] kv[s,:R],   lse[t,n] = log sum_s exp( scale q[t,n,:] . kv[s,:] )
//
// Definition: reference/ops/mla.hpp, absorbed, between W_UK and W_UV. Natural logarithm.
// A query that chose nothing: out 0, lse -inf. -1 is no key, wherever in the row it stands.
//
// The channels of an e4m3 row, times their scales, are rounded to bf16, as FlashMLA does. Where
// products are pairs of bf16 (tier avx512-bf16 and above), the weights p, before they are divided
// by their sum, are rounded to bf16 too; the sum and lse are not. A query's result is the same bits
// alone and among others, on any pages and by any number of threads.
#pragma once

#include "optimized/cpu/ops/mla.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// Error: a chosen key is not in [-1, S); shapes disagree.
template <class Q, class Row>
void mla_sparse(Cpu, MlaOut, const MlaIn<Q, Row>&, View<const std::int32_t, 2> chosen,  // (T, K)
                Scratch);
Index mla_sparse_scratch(Index N, Index R, Index P, Index K);

}  // namespace dsa::cpu
