#include "tests/definitions.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace dsa::test {
namespace {

bool in_a_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

/// Words and single signs, without comments, literals, preprocessor lines and attributes.
class Tokens {
 public:
  explicit Tokens(const std::string& text) : text_(text) {
    while (at_ < text_.size()) step();
  }

  std::vector<std::string> take() { return std::move(found_); }

 private:
  void step() {
    const char c = text_[at_];
    if (c == '\n') {
      line_is_empty_ = true;
      ++at_;
    } else if (std::isspace(static_cast<unsigned char>(c))) {
      ++at_;
    } else if (c == '#' && line_is_empty_) {
      skip_directive();
    } else if (text_.compare(at_, 2, "//") == 0) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (text_.compare(at_, 2, "/*") == 0) {
      skip_past("*/", at_ + 2);
    } else if (text_.compare(at_, 2, "[[") == 0) {
      skip_past("]]", at_ + 2);
    } else if (text_.compare(at_, 2, "R\"") == 0) {
      const auto open = text_.find('(', at_);
      skip_past(")" + text_.substr(at_ + 2, open - at_ - 2) + "\"", open);
    } else if (c == '"' || c == '\'') {
      skip_literal(c);
    } else {
      keep();
    }
  }

  void keep() {
    line_is_empty_ = false;
    const std::size_t from = at_++;
    // 1'000 is one word.
    if (in_a_word(text_[from]))
      while (at_ < text_.size() &&
             (in_a_word(text_[at_]) || (text_[at_] == '\'' && is_digit(text_[from]))))
        ++at_;
    found_.push_back(text_.substr(from, at_ - from));
  }

  static bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)); }

  void skip_directive() {
    do {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } while (at_ < text_.size() && text_[at_++ - 1] == '\\');
  }

  void skip_past(const std::string& end, std::size_t from) {
    const auto found = text_.find(end, from);
    at_ = found == std::string::npos ? text_.size() : found + end.size();
    line_is_empty_ = false;
  }

  void skip_literal(char quote) {
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_)
      if (text_[at_] == '\\') ++at_;
    ++at_;
    line_is_empty_ = false;
  }

  const std::string& text_;
  std::size_t at_ = 0;
  bool line_is_empty_ = true;
  std::vector<std::string> found_;
};

bool is_name(const std::string& token) {
  return in_a_word(token[0]) && !std::isdigit(static_cast<unsigned char>(token[0]));
}

/// A brace that is open: its name with "::" behind it, or nothing where names are not visible
/// from another file.
using Scope = std::optional<std::string>;

class Reader {
 public:
  explicit Reader(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}

  std::vector<std::string> types() {
    for (i_ = 0; i_ < tokens_.size(); ++i_) {
      const std::string& token = tokens_[i_];
      if (token == "namespace") read_namespace();
      if (token == "class" || token == "struct" || token == "union" || token == "enum") read_type();
      if (at("{", i_)) open(opens_);
      if (at("}", i_) && !open_.empty()) open_.pop_back();
    }
    return std::move(found_);
  }

 private:
  bool at(const char* token, std::size_t i) const {
    return i < tokens_.size() && tokens_[i] == token;
  }

  void open(Scope scope) {
    open_.push_back(std::move(scope));
    opens_ = {};
  }

  /// `namespace a::b {` or `namespace {`; an alias opens nothing.
  void read_namespace() {
    std::string name;
    std::size_t next = i_ + 1;
    while (next < tokens_.size() && (is_name(tokens_[next]) || tokens_[next] == ":"))
      name += tokens_[next++];
    if (!at("{", next)) return;
    opens_ = name.empty() ? Scope() : Scope(name + "::");
    i_ = next;
  }

  /// `struct Name<int> final : Base {`; a declaration, a parameter or a variable opens nothing.
  void read_type() {
    std::size_t next = i_ + 1;
    if (at("class", next) || at("struct", next)) ++next;
    if (at("alignas", next))
      while (next < tokens_.size() && !at(")", next++)) continue;
    std::string name;
    int angles = 0;
    for (; next < tokens_.size(); ++next) {
      const std::string& token = tokens_[next];
      const bool scopes = token == ":" && (at(":", next + 1) || at(":", next - 1));
      if (token == "final" || (angles == 0 && !is_name(token) && !scopes && token != "<")) break;
      if (token == "<") ++angles;
      name += token;
      if (token == ">") --angles;
    }
    if (at("final", next)) ++next;
    if (at(":", next))  // the bases, or what an enumeration is made of
      while (next < tokens_.size() && !at("{", next) && !at(";", next) && !at(")", next)) ++next;
    if (!at("{", next) || name.empty()) return;
    std::string prefix;
    for (const Scope& scope : open_) {
      if (!scope) {
        i_ = next;
        return;
      }
      prefix += *scope;
    }
    found_.push_back(prefix + name);
    opens_ = Scope(name + "::");
    i_ = next;
  }

  std::vector<std::string> tokens_, found_;
  std::vector<Scope> open_;
  Scope opens_;  // what the next brace opens
  std::size_t i_ = 0;
};

}  // namespace

std::vector<std::string> defined_types(const std::string& text) {
  return Reader(Tokens(text).take()).types();
}

std::vector<std::string> second_definitions(const std::vector<Source>& files) {
  std::map<std::string, std::set<std::string>> where;
  for (const Source& file : files)
    for (const std::string& name : defined_types(file.text)) where[name].insert(file.path);
  std::vector<std::string> found;
  for (const auto& [name, paths] : where)
    if (paths.size() > 1)
      found.push_back(name + " is defined in " + *paths.begin() + " and in " + *paths.rbegin());
  return found;
}

}  // namespace dsa::test
