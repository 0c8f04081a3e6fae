#include "core/keys.hpp"

#include <cmath>

#include "core/check.hpp"
#include "core/words.hpp"

namespace dsa {
namespace {

std::string quoted_list(std::initializer_list<std::string_view> words) {
  std::vector<std::string> quoted;
  for (std::string_view word : words) quoted.push_back("\"" + std::string(word) + "\"");
  return alternatives(quoted);
}

bool is_one_of(const std::string& word, std::initializer_list<std::string_view> words) {
  for (std::string_view supported : words)
    if (word == supported) return true;
  return false;
}

std::string integer_range(Index low, Index high) {
  if (low == 1) return "a positive integer, at most " + std::to_string(high);
  return "an integer from " + std::to_string(low) + " to " + std::to_string(high);
}

/// The integer in [low, high], or nothing. 64-bit unsigned values beyond Index are out of range.
std::optional<Index> integer_in(const Json& value, Index low, Index high) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::max<Index>(high, 0)))
    return std::nullopt;
  const Index n = value.get<Index>();
  return low <= n && n <= high ? std::optional(n) : std::nullopt;
}

}  // namespace

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

Keys::Keys(const Json& object, std::string what, std::string path)
    : object_(&object), what_(std::move(what)), path_(std::move(path)) {
  const std::string subject = path_.empty()
                                  ? what_ + " is "
                                  : what_ + ": \"" + path_.substr(0, path_.size() - 1) + "\" is ";
  require(object.is_object(), subject + shown(object) + ", expected a JSON object");
}

Keys::Keys(const Json& object, const Keys& outer, std::string path)
    : Keys(object, outer.what_, std::move(path)) {
  used_ = outer.used_;
}

const Json* Keys::find(std::string_view key) const {
  used_->insert(path_ + std::string(key));
  const auto found = object_->find(std::string(key));
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

bool Keys::mentions(std::string_view key) const {
  used_->insert(path_ + std::string(key));
  return object_->contains(std::string(key));
}

std::vector<std::string> Keys::unused() const {
  std::vector<std::string> all;
  for (const auto& [key, value] : object_->items()) {
    const std::string name = path_ + key, inner = name + ".";
    const auto below = used_->lower_bound(inner);
    const bool looked_into = below != used_->end() && below->starts_with(inner);
    if (value.is_object() && looked_into)
      for (const std::string& unused : Keys(value, *this, inner).unused()) all.push_back(unused);
    else if (!value.is_null() && !used_->contains(name))
      all.push_back(name);
  }
  return all;
}

void Keys::fail(std::string_view key, const std::string& sentence) const {
  throw Error(what_ + ": \"" + path_ + std::string(key) + "\" " + sentence);
}

void Keys::fail_expected(std::string_view key, const std::string& expected) const {
  const auto found = object_->find(std::string(key));
  const std::string state = found == object_->end() ? "is missing" : "is " + shown(*found);
  fail(key, state + ", expected " + expected);
}

const Json& Keys::required(std::string_view key, const std::string& expected) const {
  const Json* value = find(key);
  if (value == nullptr) fail_expected(key, expected);
  return *value;
}

Index Keys::integer(std::string_view key, Index low, Index high) const {
  const auto n = integer_in(required(key, integer_range(low, high)), low, high);
  if (!n) fail_expected(key, integer_range(low, high));
  return *n;
}

std::optional<Index> Keys::maybe_integer(std::string_view key, Index low, Index high) const {
  if (!has(key)) return std::nullopt;
  return integer(key, low, high);
}

double Keys::number(std::string_view key, double low, double high) const {
  const auto bound = [](double x) {
    std::string text = Json(x).dump();
    return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
  };
  const std::string expected = "a number from " + bound(low) + " to " + bound(high);
  const Json& value = required(key, expected);
  if (!value.is_number()) fail_expected(key, expected);
  const double x = value.get<double>();
  if (!(low <= x && x <= high)) fail_expected(key, expected);
  return x;
}

double Keys::number_or(std::string_view key, double low, double high, double fallback) const {
  return has(key) ? number(key, low, high) : fallback;
}

bool Keys::boolean_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail_expected(key, "true or false");
  return value->get<bool>();
}

std::string Keys::text(std::string_view key,
                       std::initializer_list<std::string_view> supported) const {
  const Json& value = required(key, quoted_list(supported));
  if (!value.is_string() || !is_one_of(value.get<std::string>(), supported))
    fail_expected(key, quoted_list(supported));
  return value.get<std::string>();
}

std::string Keys::text_or(std::string_view key, std::initializer_list<std::string_view> supported,
                          std::string_view fallback) const {
  return has(key) ? text(key, supported) : std::string(fallback);
}

std::vector<std::string> Keys::texts(std::string_view key, Index length, Index extra,
                                     std::initializer_list<std::string_view> supported) const {
  const std::string expected = "a list of " + std::to_string(length) +
                               " strings, one a layer, each " + quoted_list(supported);
  const Json& value = required(key, expected);
  if (!value.is_array()) fail_expected(key, expected);
  const auto size = static_cast<Index>(value.size());
  if (size != length && size != length + extra)
    fail(key, "has " + std::to_string(size) + " entries, expected " + std::to_string(length) +
                  ", one a layer" +
                  (extra > 0 ? ", or " + std::to_string(length + extra) +
                                   " with the multi-token-prediction layers"
                             : ""));
  std::vector<std::string> words;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_string() || !is_one_of(value[i].get<std::string>(), supported))
      fail(key, "has " + shown(value[i]) + " at index " + std::to_string(i) + ", expected " +
                    quoted_list(supported));
    words.push_back(value[i].get<std::string>());
  }
  return words;
}

Keys Keys::object(std::string_view key) const {
  return Keys(required(key, "a JSON object"), *this, path_ + std::string(key) + ".");
}

Keys Keys::element(std::string_view key, std::size_t i) const {
  return Keys((*find(key))[i], *this, path_ + std::string(key) + "[" + std::to_string(i) + "].");
}

}  // namespace dsa
