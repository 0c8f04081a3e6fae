// optimized/cuda/ops/elementwise.cuh — small steps between the ops of a pass: one thread an
// element.
#pragma once

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// y[r, y_first + i] = x[r, x_first + i] for i < n, in the type of y: float or bf16, to nearest,
/// ties to even.
template <class Y, class X>
void copy(Stream, DeviceView<Y, 2> y, Index y_first,          // (rows, any)  out, n columns of it
          DeviceView<const X, 2> x, Index x_first, Index n);  // (rows, any)

/// x += y.
void add(Stream, DeviceView<float, 2> x, DeviceView<const float, 2> y);

/// w *= scale q_scale: head weights that carry every scale.
void scale_weights(Stream, DeviceView<float, 2> w,                    // (T, H)  in and out
                   float scale, DeviceView<const float, 2> q_scale);  // (T, H), or empty

/// Every element becomes `value`.
void fill(Stream, DeviceView<float, 2> x, float value);

/// Row t becomes row end[t] - 1 of the cache: a token is the last that it sees itself.
template <class Row>
void store_rows(Stream, Pages<Row> cache, DeviceView<const Row, 2> fresh,  // (T, width)
                DeviceView<const std::int32_t, 1> end);                    // (T)

/// Where `found` holds a NaN, or a subscript that tells of one (-1 tells of none), `flag` becomes
/// `mark`, unless it has one already.
template <class T>
void watch(Stream, DeviceView<std::int32_t, 1> flag,  // (1)
           std::int32_t mark, DeviceView<const T, 2> found);

}  // namespace dsa::cuda::DSA_PLACE
