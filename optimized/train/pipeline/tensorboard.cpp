#include "optimized/train/pipeline/tensorboard.hpp"

#include <array>
#include <bit>
#include <cinttypes>
#include <cstdio>

#include "core/check.hpp"

namespace dsa::train {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t x = byte;
    for (int bit = 0; bit < 8; ++bit) x = (x >> 1) ^ ((x & 1) != 0 ? 0x82F63B78u : 0u);
    table[byte] = x;
  }
  return table;
}

/// The n low bytes, least significant first.
std::string little_endian(std::uint64_t x, int n) {
  std::string bytes;
  for (int i = 0; i < n; ++i) bytes += static_cast<char>(x >> (8 * i) & 0xFF);
  return bytes;
}

std::string varint(std::uint64_t x) {
  std::string bytes;
  for (; x >= 0x80; x >>= 7) bytes += static_cast<char>((x & 0x7F) | 0x80);
  return bytes + static_cast<char>(x);
}

// Fields in protobuf's wire format: the field's number and its wire type, then the value.
enum Wire : std::uint64_t { as_varint = 0, as_64_bits = 1, as_bytes = 2, as_32_bits = 5 };

std::string field(std::uint64_t number, Wire wire) { return varint(number << 3 | wire); }
std::string field(std::uint64_t number, double x) {
  return field(number, as_64_bits) + little_endian(std::bit_cast<std::uint64_t>(x), 8);
}
std::string field(std::uint64_t number, float x) {
  return field(number, as_32_bits) + little_endian(std::bit_cast<std::uint32_t>(x), 4);
}
std::string field(std::uint64_t number, Index x) {
  return field(number, as_varint) + varint(static_cast<std::uint64_t>(x));
}
std::string field(std::uint64_t number, std::string_view bytes) {
  return field(number, as_bytes) + varint(bytes.size()) + std::string(bytes);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> table = crc_table();
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

std::string tf_record(std::string_view bytes) {
  const std::string length = little_endian(bytes.size(), 8);
  return length + little_endian(masked_crc32c(length), 4) + std::string(bytes) +
         little_endian(masked_crc32c(bytes), 4);
}

std::string version_event(double wall_time) {
  return field(1, wall_time) + field(3, std::string_view("brain.Event:2"));
}

std::string scalar_event(double wall_time, Index step, std::string_view tag, float value) {
  const std::string of_value = field(1, tag) + field(2, value);
  return field(1, wall_time) + field(2, step) +
         field(5, std::string_view(field(1, std::string_view(of_value))));
}

TensorBoard::TensorBoard(const std::filesystem::path& directory, double wall_time,
                         const std::string& name) {
  std::filesystem::create_directories(directory);
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%010" PRId64, static_cast<std::int64_t>(wall_time));
  path_ = directory / ("events.out.tfevents." + std::string(seconds) + "." + name);
  out_.open(path_, std::ios::binary);
  require(out_.good(), "cannot write " + path_.string());
  out_ << tf_record(version_event(wall_time));
}

void TensorBoard::add(double wall_time, Index step, std::string_view tag, double value) {
  out_ << tf_record(scalar_event(wall_time, step, tag, static_cast<float>(value)));
}

void TensorBoard::flush() {
  out_.flush();
  require(out_.good(), "cannot write " + path_.string() + "; is the disk full?");
}

}  // namespace dsa::train
