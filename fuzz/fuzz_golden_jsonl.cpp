// fuzz/fuzz_golden_jsonl.cpp — any text is a golden in JSON lines, or a dsa::Error.
#include <cstdint>

#include "core/recording_jsonl.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto golden = dsa::parse_jsonl(text, "input", "", 0);
    const bool parallel = golden.sequences.size() == golden.logits.size() &&
                          golden.sequences.size() == golden.prompts.size();
    if (!parallel || golden.sequences.empty()) __builtin_trap();
  } catch (const dsa::Error&) {
  }
  return 0;
}
