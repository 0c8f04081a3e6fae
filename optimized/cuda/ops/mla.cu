#include <algorithm>

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

template <class T>
void expect_shapes(DeviceView<float, 3> out, DeviceView<float, 2> lse,
                   DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv) {
  const Index T_ = q.shape[0], N = q.shape[1], R = out.shape[2], P = q.shape[2] - R;
  expect_shape("out", out, {T_, N, R});
  expect_shape("lse", lse, {T_, N});
  expect_width("kv", kv, latent_width<T>(R, P));
}

template <class T>
bool on_tensor_cores(Index N, Index R, Index P) {
  if constexpr (std::is_same_v<T, float>)
    return false;
  else
    return v2::attention_refuses<T>(N, R, P).empty();
}

template <class T, class Keys>
void attention(Stream stream, DeviceView<float, 3> out, DeviceView<float, 2> lse,
               DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv, Keys keys, double scale,
               DeviceView<float, 1> workspace) {
  const Index T_ = out.shape[0], N = out.shape[1], R = out.shape[2], P = q.shape[2] - R;
  expect_shapes(out, lse, q, kv);
  if constexpr (!std::is_same_v<T, float>)
    if (on_tensor_cores<T>(N, R, P))
      return v2::attention(stream, out, lse, q, kv, keys, scale,
                           attention_splits(T_, N, keys.most_keys(kv.rows)), workspace);
  v1::attention(stream, out, lse, q, kv, keys, scale);
}

}  // namespace

Index attention_splits(Index T, Index N, Index most_keys) {
  const Index blocks = std::max<Index>(1, T * ceil_divide(N, 32));
  const Index useful = std::max<Index>(1, most_keys / 128);  // a part of fewer keys is overhead
  return std::clamp<Index>(multiprocessors() / blocks, 1, useful);
}

template <class T>
Index attention_workspace(Index T_, Index N, Index R, Index P, Index most_keys) {
  return on_tensor_cores<T>(N, R, P)
             ? v2::attention_workspace(T_, N, R, attention_splits(T_, N, most_keys))
             : 0;
}

template <class T>
void mla_sparse(Stream stream, DeviceView<float, 3> out, DeviceView<float, 2> lse,
                DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv,
                DeviceView<const std::int32_t, 2> chosen, double scale,
                DeviceView<float, 1> workspace) {
  expect_shape("chosen", chosen, {q.shape[0], chosen.shape[1]});
  attention<T>(stream, out, lse, q, kv, Chosen{chosen}, scale, workspace);
}

template <class T>
void mla_dense(Stream stream, DeviceView<float, 3> out, DeviceView<float, 2> lse,
               DeviceView<const QueryOf<T>, 3> q, Pages<const T> kv, Visible visible, double scale,
               DeviceView<float, 1> workspace) {
  expect_shape("begin", visible.begin, {q.shape[0]});
  expect_shape("end", visible.end, {q.shape[0]});
  attention<T>(stream, out, lse, q, kv, AllVisible{visible}, scale, workspace);
}

#define DSA_INSTANTIATE(T)                                                                   \
  template Index attention_workspace<T>(Index, Index, Index, Index, Index);                  \
  template void mla_sparse(Stream, DeviceView<float, 3>, DeviceView<float, 2>,               \
                           DeviceView<const QueryOf<T>, 3>, Pages<const T>,                  \
                           DeviceView<const std::int32_t, 2>, double, DeviceView<float, 1>); \
  template void mla_dense(Stream, DeviceView<float, 3>, DeviceView<float, 2>,                \
                          DeviceView<const QueryOf<T>, 3>, Pages<const T>, Visible, double,  \
                          DeviceView<float, 1>);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)
DSA_INSTANTIATE(e4m3)

}  // namespace dsa::cuda::DSA_PLACE
