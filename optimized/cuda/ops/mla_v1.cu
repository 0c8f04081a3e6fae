// v1: one thread a query and head. Twice over the keys, first for the largest score; `out` holds
// the sum while it grows.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::cuda::DSA_PLACE::v1 {

template <class T>
struct Scores {
  DeviceView<const QueryOf<T>, 1> q;  // of one query and head
  Pages<const T> kv;
  Index R;
  float scale;

  /// -inf where there is no key, NaN where there cannot be one.
  __device__ float operator()(Index s) const {
    if (s == -1) return -INFINITY;
    if (s < 0 || s >= kv.rows) return NAN;
    const DeviceView<const T, 1> row = kv.row(s);
    float dot = 0;
    for (Index c = 0; c < q.shape[0]; ++c) dot += widen(q(c)) * latent_at(row, c, R);
    return dot * scale;
  }
};

template <class T, class Keys>
__global__ void mla_kernel(DeviceView<float, 3> out, DeviceView<float, 2> lse,
                           DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv, Keys keys,
                           float scale) {
  const Index N = out.shape[1], R = out.shape[2];
  const Index t = blockIdx.x, n = blockIdx.y * Index(blockDim.x) + threadIdx.x;
  if (n >= N) return;
  const Scores<T> score{q[t][n], kv, R, scale};
  float largest = -INFINITY, sum = 0;
  for (Index i = 0; i < keys.count(t); ++i) largest = Maximum{}(largest, score(keys.key(t, i)));
  for (Index r = 0; r < R; ++r) out(t, n, r) = 0;
  for (Index i = 0; i < keys.count(t); ++i) {
    const Index s = keys.key(t, i);
    if (s == -1) continue;
    const float p = expf(score(s) - largest);
    sum += p;
    if (s >= 0 && s < kv.rows)
      for (Index r = 0; r < R; ++r) out(t, n, r) += p * latent_at(kv.row(s), r, R);
  }
  lse(t, n) = largest == -INFINITY ? -INFINITY : largest + logf(sum);
  for (Index r = 0; r < R; ++r) out(t, n, r) = sum == 0 ? 0 : out(t, n, r) / sum;
}

template <class Row, class Keys>
void mla(Stream stream, MlaOut y, const MlaIn<Row>& in, Keys keys) {
  constexpr int threads = 32;
  const Index T = y.out.shape[0], N = y.out.shape[1];
  launch(stream, "mla v1", {grid_of(T, ceil_divide(N, threads)), threads}, mla_kernel<Row, Keys>,
         y.out, y.lse, in.q, in.kv, keys, static_cast<float>(in.scale));
}

#define DSA_INSTANTIATE(Row, Keys) template void mla(Stream, MlaOut, const MlaIn<Row>&, Keys);
DSA_INSTANTIATE(float, Chosen)
DSA_INSTANTIATE(bf16, Chosen)
DSA_INSTANTIATE(e4m3, Chosen)
DSA_INSTANTIATE(float, AllVisible)
DSA_INSTANTIATE(bf16, AllVisible)
DSA_INSTANTIATE(e4m3, AllVisible)

}  // namespace dsa::cuda::DSA_PLACE::v1
