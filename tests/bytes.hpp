// tests/bytes.hpp — safetensors files made by hand, in memory.
#pragma once

#include <span>
#include <string>

#include "core/safetensors.hpp"

namespace dsa::test {

/// A file with this header text, padded with nothing, and these bytes of data.
inline std::string file_of(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i) & 0xFF);
  return bytes + header + data;
}

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline SafetensorsFile parse(const std::string& bytes) {
  return SafetensorsFile::parse(bytes_of(bytes), "f");
}

}  // namespace dsa::test
