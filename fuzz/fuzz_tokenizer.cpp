// fuzz/fuzz_tokenizer.cpp — any text is a tokenizer.json that encodes and decodes, or a dsa::Error.
#include <cstdint>

#include "text/tokenizer.hpp"
#include "text/utf8.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const dsa::text::Tokenizer tokenizer(dsa::parse_json(text, "input"), "input");
    const std::string sample =
        "It's  \n\tn\xC3\xA9 12345 \xE6\xB7\xB1 <s> e\xCC\x81\xF0\x9F\x91\xA9";
    const auto tokens = tokenizer.encode(sample, true);
    dsa::text::require_utf8(tokenizer.decode(tokens, false), "decoded text");
  } catch (const dsa::Error&) {
  }
  return 0;
}
