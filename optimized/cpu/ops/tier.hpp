// optimized/cpu/ops/tier.hpp — which instructions the kernels use.
//
// Every kernel file in optimized/cpu/kernels/ is compiled once per tier, in a namespace of the
// tier's name; an op picks its row by `cpu.tier`. A tier can do what the ones before it can.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dsa::cpu {

enum class Tier {
  portable,     // C++ and the baseline of the architecture
  avx2,         // AVX2, FMA, F16C
  avx512,       // AVX-512 F, BW, DQ, VL, VNNI is not needed
  avx512_bf16,  // and vdpbf16ps: bf16 products, fp32 sums
  amx,          // and bf16 tiles
};
inline constexpr int tier_count = 5;

std::string_view name_of(Tier);  // "portable", "avx2", "avx512", "avx512-bf16", "amx"

/// Error: lists the names, and what this machine can run.
Tier tier_named(std::string_view);

/// The tiers that this machine can run, the slowest first. AMX needs permission from the kernel to
/// use tiles (arch_prctl ARCH_REQ_XCOMP_PERM). If it is refused, the tier is not listed.
const std::vector<Tier>& usable_tiers();

/// The first argument of every op, as a stream is for CUDA's.
struct Cpu {
  Tier tier = usable_tiers().back();
};

}  // namespace dsa::cpu
