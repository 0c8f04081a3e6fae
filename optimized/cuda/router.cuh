// optimized/cuda/router.cuh — which experts a token goes to, and with what weight. Definition:
// reference/router.hpp, all of its steps in one.
#pragma once

#include "core/config.hpp"
#include "optimized/cuda/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Experts in ascending order. A token of which a choice is NaN: experts -1, weights NaN.
void router(Stream, DeviceView<std::int32_t, 2> experts,  // (T, num_experts_per_tok)  out
            DeviceView<float, 2> weights,                 // (T, num_experts_per_tok)  out
            DeviceView<const float, 2> logits,            // (T, E)
            DeviceView<const float, 1> bias,              // (E), or empty
            const Config&);

}  // namespace dsa::cuda::DSA_PLACE
