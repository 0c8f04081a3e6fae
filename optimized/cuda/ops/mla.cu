#include <algorithm>

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

template <class Row>
void expect_shapes(MlaOut y, const MlaIn<Row>& in) {
  const Index T = in.q.shape[0], N = in.q.shape[1], R = y.out.shape[2], P = in.q.shape[2] - R;
  expect_shape("out", y.out, {T, N, R});
  expect_shape("lse", y.lse, {T, N});
  expect_width("kv", in.kv, latent_width<Row>(R, P));
}

template <class Row>
bool on_tensor_cores(Index N, Index R, Index P) {
  if constexpr (std::is_same_v<Row, float>)
    return false;
  else
    return v2::mla_refuses<Row>(N, R, P).empty();
}

template <class Row, class Keys>
void mla(Stream stream, MlaOut y, const MlaIn<Row>& in, Keys keys, DeviceView<float, 1> workspace) {
  const Index T = y.out.shape[0], N = y.out.shape[1], R = y.out.shape[2], P = in.q.shape[2] - R;
  expect_shapes(y, in);
  if constexpr (!std::is_same_v<Row, float> && std::is_same_v<Keys, Chosen>)
    if (v3::mla_refuses(R, P, in.scale).empty())
      return v3::mla(stream, y, in, keys, v3::mla_ranges(T, N, keys.most_keys(in.kv.rows)),
                     workspace);
  if constexpr (!std::is_same_v<Row, float>)
    if (on_tensor_cores<Row>(N, R, P))
      return v2::mla(stream, y, in, keys, mla_splits(T, N, keys.most_keys(in.kv.rows)), workspace);
  v1::mla(stream, y, in, keys);
}

}  // namespace

Index mla_splits(Index T, Index N, Index most_keys) {
  const Index blocks = std::max<Index>(1, T * ceil_divide(N, 32));
  const Index useful = std::max<Index>(1, most_keys / 128);  // a part of fewer keys is overhead
  return std::clamp<Index>(multiprocessors() / blocks, 1, useful);
}

Index mla_parts_workspace(Index T, Index N, Index R, Index parts) {
  return parts > 1 ? parts * T * N * (R + 1) : 0;
}

template <class Row>
Index mla_workspace(Index T, Index N, Index R, Index P, Index most_keys) {
  if (std::is_same_v<Row, float>) return 0;
  const Index splits = on_tensor_cores<Row>(N, R, P) ? mla_splits(T, N, most_keys) : 1;
  const Index ranges = v3::mla_refuses(R, P, 1).empty() ? v3::mla_ranges(T, N, most_keys) : 1;
  return mla_parts_workspace(T, N, R, std::max(splits, ranges));
}

template <class Row>
void mla_sparse(Stream stream, MlaOut y, const MlaIn<Row>& in,
                DeviceView<const std::int32_t, 2> chosen, DeviceView<float, 1> workspace) {
  expect_shape("chosen", chosen, {in.q.shape[0], chosen.shape[1]});
  mla(stream, y, in, Chosen{chosen}, workspace);
}

template <class Row>
void mla_dense(Stream stream, MlaOut y, const MlaIn<Row>& in, KeyRanges visible,
               DeviceView<float, 1> workspace) {
  expect_shape("begin", visible.begin, {in.q.shape[0]});
  expect_shape("end", visible.end, {in.q.shape[0]});
  mla(stream, y, in, AllVisible{visible}, workspace);
}

#define DSA_INSTANTIATE(Row)                                                                     \
  template Index mla_workspace<Row>(Index, Index, Index, Index, Index);                          \
  template void mla_sparse(Stream, MlaOut, const MlaIn<Row>&, DeviceView<const std::int32_t, 2>, \
                           DeviceView<float, 1>);                                                \
  template void mla_dense(Stream, MlaOut, const MlaIn<Row>&, KeyRanges, DeviceView<float, 1>);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)
DSA_INSTANTIATE(e4m3)

}  // namespace dsa::cuda::DSA_PLACE
