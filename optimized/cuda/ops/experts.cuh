// optimized/cuda/ops/experts.cuh — a mixture of feed-forward networks.
//
//   y[t,:] += sum_i weights[t,i] down_e( swiglu(gate_up_e x[t,:]) ),  e = chosen[t,i]
//
// Definition: reference/model/moe.cpp. Sums in fp32, over experts in the order of `chosen`.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// X: float or bf16. An expert outside [0, E) adds nothing if it is -1, and NaN otherwise.
template <class X>
struct ExpertsIn {
  DeviceView<const X, 2> x;                  // (T, C)
  DeviceView<const X, 3> gate_up;            // (E, 2F, C)
  DeviceView<const X, 3> down;               // (E, C, F)
  DeviceView<const std::int32_t, 2> chosen;  // (T, k)
  DeviceView<const float, 2> weights;        // (T, k)
};

namespace v1 {  // one thread a hidden number, then one thread an output
template <class X>
void experts(Stream, DeviceView<float, 2> y,                 // (T, C)      in and out
             const ExpertsIn<X>&, DeviceView<X, 3> hidden);  // (T, k, F)   scratch
}  // namespace v1

namespace v2 {  // products of all tokens of an expert at once (expert_groups.cuh)
/// Elements: T k C answers of the chosen experts, and the groups.
Index experts_workspace(Index T, Index k, Index E, Index C);
/// Why a shape is not taken; empty where it is.
std::string experts_refuses(Index C, Index F, Index bytes_per_element);
template <class X>
void experts(Stream, DeviceView<float, 2> y, const ExpertsIn<X>&, DeviceView<X, 3> hidden,
             DeviceView<std::uint32_t, 1> workspace);
}  // namespace v2

/// Elements of the workspace.
template <class X>
Index experts_workspace(Index T, Index k, Index E, Index C, Index F);
template <class X>
void experts(Stream, DeviceView<float, 2> y, const ExpertsIn<X>&, DeviceView<X, 3> hidden,
             DeviceView<std::uint32_t, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
