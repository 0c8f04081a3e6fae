#include "text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cctype>

#include "core/check.hpp"
#include "core/json.hpp"

namespace dsa::text {
namespace {

bool is_one_of(char c, std::string_view letters) { return letters.find(c) != letters.npos; }

/// Rewrites an Oniguruma expression for PCRE2, or refuses it.
class Translation {
 public:
  Translation(std::string_view pattern, const std::string& what) : rest_(pattern), what_(what) {
    while (!rest_.empty()) step();
  }
  std::string result() && { return std::move(out_); }

 private:
  void step() {
    if (rest_[0] == '\\') return escape();
    in_set_ ? inside_set() : outside_set();
  }

  void escape() {
    if (rest_.size() < 2) return take(1);  // PCRE2 says what is wrong
    const char c = rest_[1];
    if (c == 's') return replace(2, "\\p{White_Space}");
    if (c == 'S') return replace(2, "\\P{White_Space}");
    if (c == 'p' || c == 'P') return property();
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 && !is_one_of(c, "dDrntf"))
      refuse(rest_.substr(0, 2), "the escapes \\p \\P \\s \\S \\d \\D \\r \\n \\t \\f");
    take(2);
  }

  /// \p{Lu}: general categories only, which both libraries name alike.
  void property() {
    const auto close = rest_.find('}');
    const std::string_view text = rest_.substr(0, close == rest_.npos ? 3 : close + 1);
    const bool letters = text.size() == 5 || text.size() == 6;
    if (!letters || text[2] != '{' || !is_one_of(text[3], "LMNPSZC") ||
        (text.size() == 6 && !std::islower(static_cast<unsigned char>(text[4]))))
      refuse(text, "general categories such as \\p{L} or \\p{Nd}");
    take(text.size());
  }

  void inside_set() {
    if (rest_[0] == '[' || rest_.starts_with("&&")) refuse("a set in a set", "plain sets");
    if (rest_[0] == ']') in_set_ = false;
    take(1);
  }

  void outside_set() {
    const char c = rest_[0];
    if (c == '^' || c == '$') refuse(rest_.substr(0, 1), "expressions without anchors");
    if (c == '[') return open_set();
    if (c == '(') return open_group();
    if (c == '{') return repeat();
    take(1);
  }

  void open_set() {
    take(rest_.starts_with("[^") ? 2 : 1);
    if (rest_.starts_with("]")) refuse("a set that begins with ]", "\\] in sets");
    in_set_ = true;
  }

  void open_group() {
    for (const std::string_view group : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!"})
      if (rest_.starts_with(group)) return take(group.size());
    if (rest_.starts_with("(?") || rest_.starts_with("(*"))
      refuse(rest_.substr(0, 3), "the groups ( (?: (?i: (?= (?! (?<= (?<!");
    take(1);
  }

  /// Oniguruma takes x{1,2}+ for (x{1,2})+ and x{,2} for x{0,2}; PCRE2 does not.
  void repeat() {
    const auto close = rest_.find('}');
    const bool plain = close != rest_.npos && close > 1 && rest_[1] != ',' &&
                       rest_.substr(1, close - 1).find_first_not_of("0123456789,") == rest_.npos;
    if (!plain || rest_.substr(close + 1).starts_with("+"))
      refuse(rest_.substr(0, close == rest_.npos ? 1 : close + 2), "{n}, {n,} and {n,m}");
    take(close + 1);
  }

  [[noreturn]] void refuse(std::string_view found, const std::string& supported) const {
    throw Error(what_ + " uses " + in_quotes(found) + ", which is not supported; supported are " +
                supported);
  }

  void take(std::size_t bytes) { replace(bytes, rest_.substr(0, bytes)); }
  void replace(std::size_t bytes, std::string_view text) {
    out_ += text;
    rest_.remove_prefix(bytes);
  }

  std::string_view rest_;
  const std::string& what_;
  std::string out_;
  bool in_set_ = false;
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Regex::Regex(std::string_view pattern, const std::string& what) : what_(what) {
  compile(Translation(pattern, what).result(), 0);
}

Regex Regex::literal(std::string_view text, const std::string& what) {
  Regex regex;
  regex.what_ = what;
  regex.compile(std::string(text), PCRE2_LITERAL);
  return regex;
}

Regex Regex::native(const std::string& pattern) {
  Regex regex;
  regex.what_ = pattern;
  regex.compile(pattern, 0);
  return regex;
}

void Regex::compile(const std::string& pattern, unsigned options) {
  int problem = 0;
  PCRE2_SIZE at = 0;
  const unsigned properties = options == PCRE2_LITERAL ? 0 : PCRE2_UCP;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options | properties | PCRE2_UTF, &problem, &at, nullptr);
  if (code == nullptr) throw Error(what_ + " is malformed: " + message_of(problem));
  code_ =
      std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  // Without a just-in-time compiler for this machine the interpreter does the same, slower.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  scratch_ = std::shared_ptr<void>(
      pcre2_match_data_create_from_pattern(code, nullptr),
      [](void* p) { pcre2_match_data_free(static_cast<pcre2_match_data*>(p)); });
}

std::optional<Regex::Match> Regex::find(std::string_view utf8, std::size_t from) const {
  auto* scratch = static_cast<pcre2_match_data*>(scratch_.get());
  const int found = pcre2_match(static_cast<const pcre2_code*>(code_.get()),
                                reinterpret_cast<PCRE2_SPTR>(utf8.data()), utf8.size(), from,
                                PCRE2_NO_UTF_CHECK, scratch, nullptr);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) throw Error(what_ + " cannot be applied to the text: " + message_of(found));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch);
  return Match{ends[0], ends[1]};
}

}  // namespace dsa::text
