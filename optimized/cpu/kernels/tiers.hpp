// optimized/cpu/kernels/tiers.hpp — how an op finds the kernel of a tier.
//
// DSA_DECLARE_IN_EVERY_TIER(Type, name) declares dsa::cpu::TIER::name, a function of type Type, for
// every tier that this build has, and the array `name_of` of them, subscripted by the
// tier: rmsnorm_row_of[int(cpu.tier)](...). It is a macro because a namespace cannot be a
// parameter.
#pragma once

#include <cstdint>

#include "optimized/cpu/ops/tier.hpp"

#if defined(__x86_64__)
#define DSA_DECLARE_IN_EVERY_TIER(Type, name)                                     \
  namespace portable {                                                            \
  Type name;                                                                      \
  }                                                                               \
  namespace avx2 {                                                                \
  Type name;                                                                      \
  }                                                                               \
  namespace avx512 {                                                              \
  Type name;                                                                      \
  }                                                                               \
  namespace avx512_bf16 {                                                         \
  Type name;                                                                      \
  }                                                                               \
  namespace amx {                                                                 \
  Type name;                                                                      \
  }                                                                               \
  inline constexpr Type* name##_of[] = {portable::name, avx2::name, avx512::name, \
                                        avx512_bf16::name, amx::name};
#else
#define DSA_DECLARE_IN_EVERY_TIER(Type, name) \
  namespace portable {                        \
  Type name;                                  \
  }                                           \
  inline constexpr Type* name##_of[] = {portable::name};
#endif
