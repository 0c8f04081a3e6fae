// optimized/cpu/ops/mla_dense.hpp — MLA in absorbed form over every visible key, streaming.
//
//   p[t,n,:] = softmax_s( scale q[t,n,:] . kv[s,:] ),  begin[t] <= s < end[t]
//   out[t,n,:] = sum_s p[t,n,s] kv[s,:R],   lse[t,n] = log sum_s exp( scale q[t,n,:] . kv[s,:] )
//
// Definition: reference/ops/mla.hpp; in expanded form: mla_expanded.hpp. Blocks of
// keys are read once for a block of queries (online softmax): memory does not depend on S. A query
// that sees nothing: out 0, lse -inf. Rounding and repeatability: mla_sparse.hpp.
#pragma once

#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "optimized/cpu/ops/visible.hpp"
#include "optimized/shared/rows.hpp"

namespace dsa::cpu {

/// Q, T: float, float; bf16, bf16; bf16, e4m3.
template <class Q, class T>
void mla_dense(Cpu, View<float, 3> out,  // (T, N, R)    out
               View<float, 2> lse,       // (T, N)       out
               View<const Q, 3> q,       // (T, N, R+P)
               Pages<const T> kv,        // (S, R+P)     rows.hpp
               Visible, double scale, Scratch);
Index mla_dense_scratch(Index N, Index R, Index P);

}  // namespace dsa::cpu
