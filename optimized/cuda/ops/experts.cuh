// optimized/cuda/ops/experts.cuh — feed-forward networks: one nonlinearity, and a mixture of
// experts.
//
//   swiglu:   h = silu(gate) * up
//   experts:  y[t,:] += sum_i weights[t,i] down_e( swiglu(gate_up_e x[t,:]) ),  e = chosen[t,i]
//
// Definition: reference/model/moe.cpp. Sums in fp32, over experts in the order of `chosen`.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// H: float or bf16.
template <class H>
void swiglu(Stream, DeviceView<H, 2> h,           // (T, F)   out
            DeviceView<const float, 2> gate_up);  // (T, 2F)  gate first

// X: float or bf16, as the matrices and the hidden numbers are. An expert outside [0, E) adds
// nothing if it is -1, and NaN otherwise.

namespace v1 {  // one thread a hidden number, then one thread an output
template <class X>
void experts(Stream, DeviceView<float, 2> y,            // (T, C)      in and out
             DeviceView<const X, 2> x,                  // (T, C)
             DeviceView<const X, 3> gate_up,            // (E, 2F, C)
             DeviceView<const X, 3> down,               // (E, C, F)
             DeviceView<const std::int32_t, 2> chosen,  // (T, k)
             DeviceView<const float, 2> weights,        // (T, k)
             DeviceView<X, 3> hidden);                  // (T, k, F)   scratch
}  // namespace v1

namespace v2 {  // products of all tokens of an expert at once (expert_groups.cuh)
/// Elements: the answers of all chosen experts, T k C of them, and the groups.
Index experts_workspace(Index T, Index k, Index E, Index C);
/// Why a shape is not taken; empty where it is.
std::string experts_refuses(Index C, Index F, Index bytes_per_element);
template <class X>
void experts(Stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
             DeviceView<const X, 3> gate_up, DeviceView<const X, 3> down,
             DeviceView<const std::int32_t, 2> chosen, DeviceView<const float, 2> weights,
             DeviceView<X, 3> hidden, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v2

/// Elements of the workspace.
template <class X>
Index experts_workspace(Index T, Index k, Index E, Index C, Index F);
template <class X>
void experts(Stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
             DeviceView<const X, 3> gate_up, DeviceView<const X, 3> down,
             DeviceView<const std::int32_t, 2> chosen, DeviceView<const float, 2> weights,
             DeviceView<X, 3> hidden, DeviceView<std::uint32_t, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
