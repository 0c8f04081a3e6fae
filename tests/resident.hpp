// tests/resident.hpp — how much of a mapped file lies in this process's memory.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "core/tensor.hpp"

namespace dsa::test {

/// Bytes of all mappings of the file, by /proc/self/smaps: a line for a mapping, then its fields.
inline Index resident_bytes(const std::filesystem::path& file) {
  const std::string path = std::filesystem::canonical(file).string();
  std::ifstream maps("/proc/self/smaps");
  Index kilobytes = 0;
  bool ours = false;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (!first.ends_with(":")) ours = line.ends_with(path);
    Index value = 0;
    if (ours && first == "Rss:" && words >> value) kilobytes += value;
  }
  return 1024 * kilobytes;
}

}  // namespace dsa::test
