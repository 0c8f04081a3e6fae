#include "optimized/cpu/ops/tier.hpp"

#include <algorithm>
#include <array>

#include "core/check.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dsa::cpu {
namespace {

constexpr std::array<std::string_view, tier_count> names = {"portable", "avx2", "avx512",
                                                            "avx512-bf16", "amx"};

#if defined(__x86_64__) && defined(__linux__)
/// Bits of CPUID leaf 7, which older compilers have no names for.
struct Leaf7 {
  unsigned eax1 = 0, edx0 = 0;
  Leaf7() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) edx0 = d;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) eax1 = a;
  }
  bool avx512_bf16() const { return eax1 >> 5 & 1; }
  bool amx() const { return (edx0 >> 22 & 1) && (edx0 >> 24 & 1); }  // AMX-BF16 and AMX-TILE
};

bool tiles_permitted() {
  constexpr long arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;
  return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

std::vector<Tier> detect() {
  std::vector<Tier> tiers = {Tier::portable};
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return tiers;
  tiers.push_back(Tier::avx2);
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")))
    return tiers;
  tiers.push_back(Tier::avx512);
  const Leaf7 leaf;
  if (!leaf.avx512_bf16()) return tiers;
  tiers.push_back(Tier::avx512_bf16);
  if (leaf.amx() && tiles_permitted()) tiers.push_back(Tier::amx);
  return tiers;
}
#else
std::vector<Tier> detect() { return {Tier::portable}; }
#endif

}  // namespace

std::string_view name_of(Tier tier) { return names[static_cast<std::size_t>(tier)]; }

const std::vector<Tier>& usable_tiers() {
  static const std::vector<Tier> tiers = detect();
  return tiers;
}

Tier tier_named(std::string_view name) {
  std::string here;
  for (const Tier tier : usable_tiers()) {
    if (name_of(tier) == name) return tier;
    here += (here.empty() ? "" : ", ") + std::string(name_of(tier));
  }
  const bool known = std::find(names.begin(), names.end(), name) != names.end();
  throw Error((known ? "this machine cannot run the instruction set \"" : "there is no instruction set \"") +
              std::string(name) + "\"; choose one of " + here);
}

}  // namespace dsa::cpu
