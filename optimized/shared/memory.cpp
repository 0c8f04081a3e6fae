#include "optimized/shared/memory.hpp"

#include <cstdlib>
#include <fstream>
#include <limits>

namespace dsa {

std::shared_ptr<std::byte> allocate(Index bytes, const std::string& what) {
  const auto size = static_cast<std::size_t>(rounded_up(bytes > 0 ? bytes : 1, 64));
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, size));
  require(memory != nullptr, "there is no memory for " + what + ": " + std::to_string(bytes) +
                                 " bytes were asked for");
  return {memory, [](std::byte* p) { std::free(p); }};
}

Index available_memory() {
  std::ifstream in("/proc/meminfo");
  for (std::string key; in >> key; in.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    Index kilobytes = 0;
    if (key == "MemAvailable:" && in >> kilobytes) return kilobytes * 1024;
  }
  throw Error("/proc/meminfo does not say how much memory is available; state it (--memory)");
}

}  // namespace dsa
