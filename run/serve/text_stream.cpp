#include "run/serve/text_stream.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsa::run::serve {
namespace {

Index count_characters(const std::string& utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // not the middle of one
  });
}

/// How much of the end of `text` may be the beginning of `stop`.
std::size_t overlap(const std::string& text, const std::string& stop) {
  std::size_t n = std::min(text.size(), stop.size() - 1);
  while (!text.ends_with(std::string_view(stop).substr(0, n))) --n;
  return n;
}

}  // namespace

std::string spelled(const text::Tokenizer& tokenizer, Token token) {
  if (token >= tokenizer.size()) return fmt::format("token:{}", token);
  const std::string& bytes = tokenizer.bytes_of(token);
  text::Utf8Stream whole;
  if (whole.push(bytes) == bytes) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

std::string TextStream::push(Token token, bool of_prompt) {
  if (token >= tokenizer_.size() || tokenizer_.is_special(token)) return "";
  std::string text = utf8_.push(tokenizer_.bytes_of(token));
  characters_ += count_characters(text);
  return of_prompt ? text : release(std::move(text), false);
}

std::string TextStream::finish() {
  std::string text = utf8_.finish();
  characters_ += count_characters(text);
  return release(std::move(text), true);
}

std::string TextStream::release(std::string text, bool all) {
  if (is_over_) return "";
  held_ += text;
  std::size_t end = held_.npos;
  for (const std::string& stop : stop_) end = std::min(end, held_.find(stop));
  is_over_ = end != held_.npos;
  std::size_t held_back = 0;
  if (!is_over_ && !all)
    for (const std::string& stop : stop_) held_back = std::max(held_back, overlap(held_, stop));
  const std::size_t released = is_over_ ? end : held_.size() - held_back;
  const std::string result = held_.substr(0, released);
  held_.erase(0, released);
  return result;
}

}  // namespace dsa::run::serve
