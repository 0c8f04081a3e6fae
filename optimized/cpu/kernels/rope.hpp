// optimized/cpu/kernels/rope.hpp — the heads of one token, turned, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// The angles of one token. Pairs are channels (2i, 2i+1) if interleaved, else (i, i + half).
struct Rotation {
  const float *cos, *sin;  // (half)
  std::int64_t half;
  bool interleaved;
  bool back = false;  // by the opposite angles
};

/// x: the first rotary channel of head 0; `heads` at a distance of `width`.
using RopeHeads = void(float* x, std::int64_t heads, std::int64_t width, const Rotation&);
DSA_DECLARE_IN_EVERY_TIER(RopeHeads, rope_heads)

}  // namespace dsa::cpu
