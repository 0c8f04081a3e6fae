#include "optimized/cuda/host/global_memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "core/check.hpp"
#include "optimized/cuda/host/block.hpp"

namespace dsa::cuda::host {
namespace {

constexpr std::size_t guard_bytes = 256;
constexpr std::byte guard{0xa5}, poison{0xff};

struct Buffers {
  std::mutex mutex;
  std::map<const std::byte*, std::size_t, std::less<>> bytes_at;
};
Buffers& buffers() {
  static Buffers all;
  return all;
}

bool intact(const std::byte* zone) {
  return std::all_of(zone, zone + guard_bytes, [](std::byte b) { return b == guard; });
}

}  // namespace

void* allocate(std::size_t bytes) {
  const std::size_t rounded = (bytes + 255) / 256 * 256;
  auto* block = static_cast<std::byte*>(std::aligned_alloc(256, rounded + 2 * guard_bytes));
  require(block != nullptr, "no memory for a buffer of " + std::to_string(bytes) + " bytes");
  std::byte* data = block + guard_bytes;
  std::memset(block, static_cast<int>(guard), rounded + 2 * guard_bytes);
  std::memset(data, static_cast<int>(poison), bytes);
  const std::lock_guard lock(buffers().mutex);
  buffers().bytes_at[data] = bytes;
  return data;
}

void release(void* p) {
  if (p == nullptr) return;
  auto* data = static_cast<std::byte*>(p);
  {
    const std::lock_guard lock(buffers().mutex);
    buffers().bytes_at.erase(data);
  }
  std::free(data - guard_bytes);
}

std::int64_t allocated_bytes() {
  const std::lock_guard lock(buffers().mutex);
  std::int64_t total = 0;
  for (const auto& [data, bytes] : buffers().bytes_at) total += static_cast<std::int64_t>(bytes);
  return total;
}

void check_global(const void* p, std::size_t bytes) {
  const auto* at = static_cast<const std::byte*>(p);
  const std::lock_guard lock(buffers().mutex);
  auto after = buffers().bytes_at.upper_bound(at);
  const bool inside = after != buffers().bytes_at.begin() &&
                      at + bytes <= std::prev(after)->first + std::prev(after)->second;
  if (!inside)
    fail("touches " + std::to_string(bytes) + " bytes of global memory outside every buffer");
}

void check_wide(const void* p, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0)
    fail("touches " + std::to_string(bytes) + " bytes at an address that is no multiple of that");
  check_global(p, bytes);
}

void check_guards(const char* kernel) {
  const std::lock_guard lock(buffers().mutex);
  for (const auto& [data, bytes] : buffers().bytes_at)
    if (!intact(data - guard_bytes) || !intact(data + bytes))
      throw Error(std::string(kernel) + " wrote outside a buffer of " + std::to_string(bytes) +
                  " bytes");
}

}  // namespace dsa::cuda::host
