#include "text/same_text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsa::text {
namespace {

using Ids = std::vector<Token>;

/// How many of `ids` the tokens begin with.
std::size_t agreeing(std::span<const Token> tokens, const Ids& ids) {
  const auto [mine, theirs] = std::mismatch(ids.begin(), ids.end(), tokens.begin(), tokens.end());
  return static_cast<std::size_t>(mine - ids.begin());
}

std::string without_spaces(std::string_view text) {
  std::string joined(text);
  std::erase(joined, ' ');
  return joined;
}

}  // namespace

std::string difference_from_text(const Tokenizer& tokenizer, std::string_view text,
                                 std::span<const Token> tokens) {
  const Ids plain = tokenizer.encode(text, false);
  std::size_t behind = 0;  // special tokens that stand before the text
  std::size_t at = 0;      // the first token that differs, of the best reading
  Token expected = 0;
  const auto begins_with = [&](const Ids& ids, std::size_t skipped) {
    const std::size_t n = agreeing(tokens.subspan(skipped), ids);
    if (n == ids.size()) return true;
    if (skipped + n >= at) at = skipped + n, expected = ids[n];
    return false;
  };
  if (begins_with(tokenizer.encode(text, true), 0)) return "";
  for (; behind < tokens.size(); ++behind) {
    if (begins_with(plain, behind)) return "";
    if (!tokenizer.is_special(tokens[behind])) break;
  }
  std::string words =
      at < tokens.size()
          ? fmt::format("token {} is {}, and tokenizer.json makes {} of the text there", at,
                        tokens[at], expected)
          : fmt::format("they end after {} tokens, and the text goes on with {}", tokens.size(),
                        expected);
  const std::string joined = without_spaces(text);
  if (joined.size() < text.size() && behind < tokens.size() &&
      agreeing(tokens.subspan(behind), tokenizer.encode(joined, false)) ==
          tokenizer.encode(joined, false).size())
    words +=
        "; they are the ids of the text without its spaces, as transformers 5 makes them with a "
        "tokenizer that it saved anew (huggingface/transformers#45488)";
  return words;
}

}  // namespace dsa::text
