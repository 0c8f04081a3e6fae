// optimized/cpu/ops/router.hpp — the experts a token goes to, and their weights. Definition:
// reference/ops/router.hpp, all of its steps in one.
#pragma once

#include <cstdint>

#include "core/config.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

struct RouterOut {
  View<std::int32_t, 2> experts;  // (T, num_experts_per_tok)
  View<float, 2> weights;         // (T, num_experts_per_tok)
};

/// Experts in ascending order. Error: a logit is NaN.
void router(Cpu, RouterOut, View<const float, 2> logits,  // (T, E)
            View<const float, 1> bias,                    // (E), or empty
            const Config&, Scratch);
Index router_scratch(const Config&);

}  // namespace dsa::cpu
