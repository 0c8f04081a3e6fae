// text/utf8.hpp — UTF-8: checked on the way in, never cut inside a character on the way
// out.
#pragma once

#include <string>
#include <string_view>

namespace dsa::text {

/// An Error naming the byte offset unless all of `text` is UTF-8; `what` begins the sentence.
void require_utf8(std::string_view text, const std::string& what);

/// Code points of UTF-8 text.
std::u32string code_points(std::string_view utf8);

/// Canonical composition (Unicode NFC) of UTF-8 text.
std::string nfc(std::string_view utf8);

/// Bytes in any portions to UTF-8 text in whole characters. A sequence that no character begins
/// with becomes U+FFFD, by the rule of maximal subparts (Unicode 15, section 3.9), as in Rust's
/// from_utf8_lossy, which HuggingFace decodes with.
class Utf8Stream {
 public:
  /// The characters that are complete with these bytes.
  std::string push(std::string_view bytes);
  /// What is left: U+FFFD for a character that was begun, or nothing.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace dsa::text
