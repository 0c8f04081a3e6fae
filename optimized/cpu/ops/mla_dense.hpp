// optimized/cpu/ops/mla_dense.hpp — MLA in absorbed form over every visible key, streaming.
//
//   p[t,n,:] = softmax_s( scale q[t,n,:] . kv[s,:] ),  begin[t] <= s < end[t]
//   out[t,n,:] = sum_s p[t,n,s] kv[s,:R],   lse[t,n] = log sum_s exp( scale q[t,n,:] . kv[s,:] )
//
// Definition: reference/ops/mla.hpp; in expanded form: mla_expanded.hpp. Blocks of
// keys are read once for a block of queries (online softmax): memory does not depend on S. A query
// that sees nothing: out 0, lse -inf. Rounding and repeatability: mla_sparse.hpp.
#pragma once

#include "optimized/cpu/ops/mla.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "optimized/shared/key_range.hpp"

namespace dsa::cpu {

/// Error: shapes disagree; a range leaves the cache.
template <class Q, class Row>
void mla_dense(Cpu, MlaOut, const MlaIn<Q, Row>&, KeyRanges visible, Scratch);
Index mla_dense_scratch(Index N, Index R, Index P);

}  // namespace dsa::cpu
