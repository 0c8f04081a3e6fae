// optimized/cuda/ops/router.cuh — the experts a token goes to, and their weights. Definition:
// reference/ops/router.hpp, all of its steps in one.
#pragma once

#include <string>

#include "core/config.hpp"
#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Experts in ascending order. A token of which a choice is NaN: experts -1, weights NaN.
struct RouterOut {
  DeviceView<std::int32_t, 2> experts;  // (T, num_experts_per_tok)
  DeviceView<float, 2> weights;         // (T, num_experts_per_tok)
};

namespace v1 {                                                     // one block a token
void router(Stream, RouterOut, DeviceView<const float, 2> logits,  // (T, E)
            DeviceView<const float, 1> bias,                       // (E), or empty
            const Config&);
}  // namespace v1

namespace v2 {  // one warp a token, whose experts lie in its registers
/// Why a shape is not taken; empty where it is. n_group: 1 without groups.
std::string router_refuses(Index E, Index n_group);
void router(Stream, RouterOut, DeviceView<const float, 2> logits, DeviceView<const float, 1> bias,
            const Config&);
}  // namespace v2

void router(Stream, RouterOut, DeviceView<const float, 2> logits, DeviceView<const float, 1> bias,
            const Config&);

}  // namespace dsa::cuda::DSA_PLACE
