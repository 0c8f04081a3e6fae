// core/keys.hpp — one JSON object of a config.json, read key by key with its types checked.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "core/tensor.hpp"

namespace dsa {

/// A key that is null counts as absent, as in HuggingFace's configuration classes. Keys that were
/// looked at are remembered, so that unused() can list the rest. Every failure is one sentence:
/// `config.json of DIR: "hidden_size" is "abc", expected a positive integer`.
class Keys {
 public:
  /// `what` begins every sentence; `path` is put before each key ("rope_parameters.").
  Keys(const Json& object, std::string what, std::string path = "");

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const Json* find(std::string_view key) const;
  bool mentions(std::string_view key) const;  // with a value or with null

  /// An integer in [low, high], which must be there.
  Index integer(std::string_view key, Index low, Index high) const;
  std::optional<Index> maybe_integer(std::string_view key, Index low, Index high) const;

  /// A finite number in [low, high], which must be there.
  double number(std::string_view key, double low, double high) const;
  double number_or(std::string_view key, double low, double high, double fallback) const;

  bool boolean_or(std::string_view key, bool fallback) const;

  /// A string, one of `supported`.
  std::string text(std::string_view key, std::initializer_list<std::string_view> supported) const;
  std::string text_or(std::string_view key, std::initializer_list<std::string_view> supported,
                      std::string_view fallback) const;

  /// A list of strings, `length` of them or `extra` more, each one of `supported`.
  std::vector<std::string> texts(std::string_view key, Index length, Index extra,
                                 std::initializer_list<std::string_view> supported) const;

  /// The object under `key`, which must be there.
  Keys object(std::string_view key) const;

  /// The object at index i of the list under `key`, which is one and has more than i entries.
  Keys element(std::string_view key, std::size_t i) const;

  /// Keys with a value that nobody looked at, in the order of the file's objects; an object that
  /// nobody looked into is one key.
  std::vector<std::string> unused() const;

  /// "WHAT: "KEY" SENTENCE", thrown.
  [[noreturn]] void fail(std::string_view key, const std::string& sentence) const;
  /// The same with the value found: "WHAT: "KEY" is VALUE, expected EXPECTED".
  [[noreturn]] void fail_expected(std::string_view key, const std::string& expected) const;

 private:
  const Json& required(std::string_view key, const std::string& expected) const;

  Keys(const Json& object, const Keys& outer, std::string path);

  const Json* object_;
  std::string what_, path_;
  std::shared_ptr<std::set<std::string>> used_ = std::make_shared<std::set<std::string>>();
};

/// The value as JSON text, cut to a length that fits a sentence.
std::string shown(const Json& value);

}  // namespace dsa
