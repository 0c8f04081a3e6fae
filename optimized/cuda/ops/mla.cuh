// optimized/cuda/ops/mla.cuh — MLA in absorbed form, over the chosen keys or over all visible
// ones.
//
//   p[t,n,:] = softmax_s( scale q[t,n,:] . kv[s,:] ),  s in chosen[t,:], or begin[t] <= s < end[t]
//   out[t,n,:] = sum_s p[t,n,s] kv[s,:R],   lse[t,n] = log sum_s exp( scale q[t,n,:] . kv[s,:] )
//
// Definition: reference/ops/mla.hpp. Natural logarithm. A query that sees nothing: out 0,
// lse -inf. -1 is no key, wherever in the row it stands; a row of `chosen` with a number outside
// [-1, S) comes out as NaN. T of the rows: float, bf16 or e4m3 (optimized/shared/rows.hpp); q is
// float with float, else bf16.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

template <class T>
using QueryOf = std::conditional_t<std::is_same_v<T, float>, float, bf16>;

/// Sparse: the i-th key of query t is chosen[t,i]. Dense: begin[t] + i.
struct Chosen {
  DeviceView<const std::int32_t, 2> keys;  // (T, K)

  Index most_keys(Index) const { return keys.shape[1]; }
  __device__ Index count(Index) const { return keys.shape[1]; }
  __device__ Index key(Index t, Index i) const { return keys(t, i); }
};
struct AllVisible {
  Visible visible;

  Index most_keys(Index S) const { return S; }
  __device__ Index count(Index t) const { return visible.end(t) - visible.begin(t); }
  __device__ Index key(Index t, Index i) const { return visible.begin(t) + i; }
};

namespace v1 {  // one thread a query and head: the reference, transcribed
template <class T, class Keys>
void attention(Stream, DeviceView<float, 3> out,   // (T, N, R)    out
               DeviceView<float, 2> lse,           // (T, N)       out
               DeviceView<const QueryOf<T>, 3> q,  // (T, N, R+P)
               Pages<const T> kv,                  // (S, R+P)
               Keys, double scale);
}  // namespace v1

namespace v2 {  // tensor cores; keys gathered into two stages; a query's keys split over blocks
/// Why a shape is not taken; empty where it is. T: bf16 or e4m3.
template <class T>
std::string attention_refuses(Index N, Index R, Index P);
/// Elements: what `splits` parts of every query's keys leave behind to be combined.
Index attention_workspace(Index T, Index N, Index R, Index splits);
template <class T, class Keys>
void attention(Stream, DeviceView<float, 3> out, DeviceView<float, 2> lse,
               DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv, Keys, double scale,
               Index splits, DeviceView<float, 1> workspace);
}  // namespace v2

/// Into how many parts a query's keys are split: enough blocks for every multiprocessor.
Index attention_splits(Index T, Index N, Index most_keys);
/// Elements of the workspace.
template <class T>
Index attention_workspace(Index T_, Index N, Index R, Index P, Index most_keys);

template <class T>
void mla_sparse(Stream, DeviceView<float, 3> out,          // (T, N, R)    out
                DeviceView<float, 2> lse,                  // (T, N)       out
                DeviceView<const QueryOf<T>, 3> q,         // (T, N, R+P)
                Pages<const T> kv,                         // (S, R+P)
                DeviceView<const std::int32_t, 2> chosen,  // (T, K)
                double scale, DeviceView<float, 1> workspace);
template <class T>
void mla_dense(Stream, DeviceView<float, 3> out, DeviceView<float, 2> lse,
               DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv, Visible, double scale,
               DeviceView<float, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
