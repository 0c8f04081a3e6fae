// optimized/cuda/ops/mla.cuh — MLA in absorbed form, over the chosen keys or over all visible
// ones.
//
//   p[t,n,:] = softmax_s( scale q[t,n,:] . kv[s,:] ),  s in chosen[t,:], or begin[t] <= s < end[t]
//   out[t,n,:] = sum_s p[t,n,s] kv[s,:R],   lse[t,n] = log sum_s exp( scale q[t,n,:] . kv[s,:] )
//
// Definition: reference/ops/mla.hpp. Natural logarithm. A query that sees nothing: out 0,
// lse -inf. -1 is no key, wherever in the row it stands; a row of `chosen` with a number outside
// [-1, S) comes out as NaN. Row: float, bf16 or e4m3 (optimized/shared/rows.hpp); q is float with
// float, else bf16.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

template <class Row>
using QueryOf = std::conditional_t<std::is_same_v<Row, float>, float, bf16>;

struct MlaOut {
  DeviceView<float, 3> out;  // (T, N, R)
  DeviceView<float, 2> lse;  // (T, N)
};

template <class Row>
struct MlaIn {
  DeviceView<const QueryOf<Row>, 3> q;  // (T, N, R+P)
  Pages<const Row> kv;                  // (S, R+P)
  double scale;
};

/// Sparse: the i-th key of query t is chosen[t,i]. Dense: begin[t] + i.
struct Chosen {
  DeviceView<const std::int32_t, 2> keys;  // (T, K)

  Index most_keys(Index) const { return keys.shape[1]; }
  __device__ Index count(Index) const { return keys.shape[1]; }
  __device__ Index key(Index t, Index i) const { return keys(t, i); }
};
struct AllVisible {
  KeyRanges visible;

  Index most_keys(Index S) const { return S; }
  __device__ Index count(Index t) const { return visible.end(t) - visible.begin(t); }
  __device__ Index key(Index t, Index i) const { return visible.begin(t) + i; }
};

namespace v1 {  // one thread a query and head: the reference, transcribed
template <class Row, class Keys>
void mla(Stream, MlaOut, const MlaIn<Row>&, Keys);
}  // namespace v1

namespace v2 {  // tensor cores; keys gathered into two stages; a query's keys split over blocks
/// Why a shape is not taken; empty where it is. Row: bf16 or e4m3.
template <class Row>
std::string mla_refuses(Index N, Index R, Index P);
template <class Row, class Keys>
void mla(Stream, MlaOut, const MlaIn<Row>&, Keys, Index splits, DeviceView<float, 1> workspace);
}  // namespace v2

namespace v3 {  // wgmma on sm_90a; 64 heads a block; rows of V3.2's shape, of bf16 or e4m3
/// Why a shape is not taken, or this device; empty where it is.
std::string mla_refuses(Index R, Index P, double scale);
/// The number of parts of a query's keys: blocks for every multiprocessor, as far as there are
/// keys.
Index mla_ranges(Index T, Index N, Index most_keys);
template <class Keys>
void mla(Stream, MlaOut, const MlaIn<bf16>&, Keys, Index ranges, DeviceView<float, 1> workspace);
template <class Keys>
void mla(Stream, MlaOut, const MlaIn<e4m3>&, Keys, Index ranges, DeviceView<float, 1> workspace);
}  // namespace v3

/// Elements: the results of parts of every query's keys, which are then joined.
Index mla_parts_workspace(Index T, Index N, Index R, Index parts);
/// The number of parts of a query's keys: enough blocks for every multiprocessor.
Index mla_splits(Index T, Index N, Index most_keys);
/// Elements of the workspace.
template <class Row>
Index mla_workspace(Index T, Index N, Index R, Index P, Index most_keys);

template <class Row>
void mla_sparse(Stream, MlaOut, const MlaIn<Row>&,
                DeviceView<const std::int32_t, 2> chosen,  // (T, K)
                DeviceView<float, 1> workspace);
template <class Row>
void mla_dense(Stream, MlaOut, const MlaIn<Row>&, KeyRanges visible,
               DeviceView<float, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
