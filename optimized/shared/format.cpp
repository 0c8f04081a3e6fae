#include "optimized/shared/format.hpp"

#include <array>

#include "core/check.hpp"

namespace dsa {
namespace {

constexpr std::array<std::string_view, 3> names = {"fp32", "bf16", "fp8"};

}  // namespace

std::string_view name_of(Format format) { return names[static_cast<std::size_t>(format)]; }

Format format_named(std::string_view name) {
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<Format>(i);
  throw Error("there is no format \"" + std::string(name) + "\"; choose one of fp32, bf16, fp8");
}

Dtype matrix_dtype(Format format) { return format == Format::fp32 ? Dtype::f32 : Dtype::bf16; }

}  // namespace dsa
