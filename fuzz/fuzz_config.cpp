// fuzz/fuzz_config.cpp — any text is a model's config.json, or a dsa::Error.
#include <cstdint>

#include "core/config.hpp"
#include "core/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    dsa::parse_config(dsa::parse_json(text, "input"), "input");
  } catch (const dsa::Error&) {
  }
  return 0;
}
