#include "text/utf8.hpp"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "core/check.hpp"

namespace dsa::text {
namespace {

enum class Kind { complete, begun, invalid };
struct Front {
  Kind kind;
  std::size_t length;  // bytes of the character, or of what cannot become one
};

/// The bytes from `low` to `high` may follow the first byte of a character of `length` bytes
/// (Unicode 15, table 3-7). Length 0: no character begins so.
struct Lead {
  std::size_t length;
  unsigned char low = 0x80, high = 0xBF;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

/// What the first bytes of a text that is not empty are.
Front front_of(std::string_view bytes) {
  const Lead lead = lead_of(static_cast<unsigned char>(bytes[0]));
  if (lead.length == 0) return {Kind::invalid, 1};
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {Kind::begun, i};
    const auto byte = static_cast<unsigned char>(bytes[i]);
    const unsigned char low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {Kind::invalid, i};
  }
  return {Kind::complete, lead.length};
}

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

void require_utf8(std::string_view text, const std::string& what) {
  for (std::size_t at = 0; at < text.size();) {
    const Front front = front_of(text.substr(at));
    require(front.kind == Kind::complete, what + " is not UTF-8 at byte " + std::to_string(at) +
                                              " of " + std::to_string(text.size()) +
                                              "; convert it to UTF-8");
    at += front.length;
  }
}

std::u32string code_points(std::string_view utf8) {
  std::u32string points;
  while (!utf8.empty()) {
    utf8proc_int32_t point = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(utf8.data()),
                                         static_cast<utf8proc_ssize_t>(utf8.size()), &point);
    require(length > 0, "the text is not UTF-8; convert it to UTF-8");
    points += static_cast<char32_t>(point);
    utf8.remove_prefix(static_cast<std::size_t>(length));
  }
  return points;
}

std::string nfc(std::string_view utf8) {
  utf8proc_uint8_t* composed = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(utf8.data()),
                   static_cast<utf8proc_ssize_t>(utf8.size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  require(length >= 0, std::string("cannot normalise the text: ") + utf8proc_errmsg(length));
  return {reinterpret_cast<const char*>(composed), static_cast<std::size_t>(length)};
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  std::size_t at = 0;
  while (at < pending_.size()) {
    const Front front = front_of(std::string_view(pending_).substr(at));
    if (front.kind == Kind::begun) break;
    text +=
        front.kind == Kind::complete ? pending_.substr(at, front.length) : std::string(replacement);
    at += front.length;
  }
  pending_.erase(0, at);
  return text;
}

std::string Utf8Stream::finish() {
  const std::string text(pending_.empty() ? "" : replacement);
  pending_.clear();
  return text;
}

}  // namespace dsa::text
