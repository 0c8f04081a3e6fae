#include "cli/numbers.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "core/json.hpp"

namespace dsa::cli {
namespace {

template <class T>
bool parse(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && rest == end;
}

std::string found(const std::string& text) { return ", found " + in_quotes(text); }

/// CLI11 reads 010 as eight: it gets the number without its zeros.
template <class T>
std::string take_integer(std::string& text, T least, T most) {
  T value = 0;
  if (parse(text, value) && least <= value && value <= most) {
    text = std::to_string(value);
    return "";
  }
  const std::string range = most == std::numeric_limits<T>::max()
                                ? fmt::format("from {} on", least)
                                : fmt::format("from {} to {}", least, most);
  return "expected an integer " + range + found(text);
}

std::string take_real(const std::string& text, const Reals& range) {
  double value = 0;
  if (parse(text, value) && std::isfinite(value) && value <= range.most &&
      (range.above ? value > range.least : value >= range.least))
    return "";
  const char* from = range.above ? "above" : "from";
  const std::string words =
      std::isinf(range.most) ? fmt::format("{} {}{}", from, range.least, range.above ? "" : " on")
                             : fmt::format("{} {} to {}", from, range.least, range.most);
  return "expected a finite number " + words + found(text);
}

CLI::Option* finished(CLI::Option* option, std::function<std::string(std::string&)> take) {
  return option->transform(CLI::Validator(std::move(take), ""));
}

template <class T>
CLI::Option* add(CLI::App& app, const std::string& names, T& value, Integers range,
                 const std::string& what) {
  const Index most = std::min<Index>(range.most, std::numeric_limits<T>::max());
  return finished(app.add_option(names, value, what),
                  [=](std::string& text) { return take_integer<Index>(text, range.least, most); });
}

}  // namespace

CLI::Option* add_integer(CLI::App& app, const std::string& names, Index& value, Integers range,
                         const std::string& what) {
  return add(app, names, value, range, what)->type_name("N");
}

CLI::Option* add_integer(CLI::App& app, const std::string& names, int& value, Integers range,
                         const std::string& what) {
  return add(app, names, value, range, what)->type_name("N");
}

CLI::Option* add_real(CLI::App& app, const std::string& names, double& value, Reals range,
                      const std::string& what) {
  return finished(app.add_option(names, value, what),
                  [=](std::string& text) { return take_real(text, range); })
      ->type_name("X");
}

CLI::Option* add_seed(CLI::App& app, std::uint64_t& seed, const std::string& what) {
  return finished(app.add_option("--seed", seed, what),
                  [](std::string& text) {
                    return take_integer<std::uint64_t>(text, 0,
                                                       std::numeric_limits<std::uint64_t>::max());
                  })
      ->type_name("N");
}

}  // namespace dsa::cli
