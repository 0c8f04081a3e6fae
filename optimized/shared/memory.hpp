// optimized/shared/memory.hpp — memory in large pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/tensor.hpp"

namespace dsa {

/// 64-byte aligned and not initialised. Error: there is not enough memory; `what` names its use.
std::shared_ptr<std::byte> allocate(Index bytes, const std::string& what);

/// Bytes that this machine could give now without swapping (MemAvailable).
Index available_memory();

constexpr Index rounded_up(Index n, Index to) { return (n + to - 1) / to * to; }

}  // namespace dsa
