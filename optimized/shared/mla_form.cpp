#include "optimized/shared/mla_form.hpp"

#include <array>

#include "core/check.hpp"

namespace dsa {
namespace {

constexpr std::array<std::string_view, 3> names = {"automatic", "absorbed", "expanded"};

}  // namespace

std::string_view name_of(MlaForm mla) { return names[static_cast<std::size_t>(mla)]; }

MlaForm mla_form_named(std::string_view name) {
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<MlaForm>(i);
  throw Error("MLA has no form \"" + std::string(name) +
              "\"; choose one of automatic, absorbed, expanded");
}

bool expanded_is_cheaper(const Config& c, Index T, Index S) {
  const Index R = c.kv_lora_rank, P = c.qk_rope_head_dim, B = c.qk_nope_head_dim, U = c.v_head_dim;
  const Index pairs = T * S - T * (T - 1) / 2, made = 2 * R * (B + U);
  return pairs * (2 * (B + P) + 2 * U) + S * made < pairs * (2 * (R + P) + 2 * R) + T * made;
}

}  // namespace dsa
