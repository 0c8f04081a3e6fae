// text/regex.hpp — the expressions of tokenizer.json, run by PCRE2.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace dsa::text {

/// HuggingFace runs these expressions with Oniguruma (Ruby's syntax, Unicode). Where PCRE2 reads
/// the same text differently it is translated (`\s`, which PCRE2 lets match U+180E too) or refused
/// (\w, \b, \h, anchors, sets inside sets, x{2}+, scripts): an expression that is accepted means
/// the same in both.
class Regex {
 public:
  struct Match {
    std::size_t begin = 0, end = 0;  // bytes
  };

  /// An Error that begins with `what` if the expression is malformed or refused.
  Regex(std::string_view pattern, const std::string& what);
  /// The text itself, no expression.
  static Regex literal(std::string_view text, const std::string& what);
  /// An expression of ours, in PCRE2's own syntax.
  static Regex native(const std::string& pattern);

  /// The first match at or after byte `from` of UTF-8 text. An Error if it takes too many steps.
  std::optional<Match> find(std::string_view utf8, std::size_t from) const;

 private:
  Regex() = default;
  void compile(const std::string& pattern, unsigned options);

  std::shared_ptr<void> code_, scratch_;
  std::string what_;
};

}  // namespace dsa::text
