#include "experiments/sweep/axes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "core/check.hpp"
#include "core/json.hpp"
#include "core/words.hpp"

namespace dsa::sweep {
namespace {

using Strings = std::vector<std::string>;

constexpr Index most_values = 10'000;  // of one axis

const AxisKind* kind_of(const std::string& name) {
  const auto& all = axis_kinds();
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const auto& k) { return k.name == name; });
  return at == all.end() ? nullptr : &*at;
}

Strings names() {
  Strings all;
  for (const AxisKind& kind : axis_kinds()) all.emplace_back(kind.name);
  return all;
}

Strings words_of(const AxisKind& kind) {
  Strings all;
  for (const Word& word : kind.words) all.emplace_back(word.word);
  return all;
}

template <class Number>
std::optional<Number> read(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool takes(const AxisKind& kind, const std::string& value) {
  if (kind.values == AxisKind::Values::words)
    return std::any_of(kind.words.begin(), kind.words.end(),
                       [&](const Word& w) { return w.word == value; });
  const auto real = read<double>(value);
  const bool whole = kind.values == AxisKind::Values::reals || read<Index>(value).has_value();
  return real && whole && *real >= kind.least && *real <= kind.most;
}

std::string expected(const AxisKind& kind) {
  if (kind.values == AxisKind::Values::words) return alternatives(words_of(kind));
  const bool whole = kind.values == AxisKind::Values::integers;
  return fmt::format("{} from {}", whole ? "an integer" : "a number", kind.least);
}

/// Pieces between the commas that lie outside of brackets.
Strings pieces_of(const std::string& text) {
  Strings pieces(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '(' || c == '[' ? 1 : c == ')' || c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      pieces.emplace_back();
    else
      pieces.back() += c;
  }
  return pieces;
}

/// The integers of "range(begin,end)" or "range(begin,end,step)".
Strings range_of(const std::string& axis, const std::string& text) {
  std::vector<Index> numbers;
  for (const std::string& piece : pieces_of(text.substr(6, text.size() - 7)))
    if (const auto number = read<Index>(piece)) numbers.push_back(*number);
  const Index step = numbers.size() == 3 ? numbers[2] : 1;
  require(
      (numbers.size() == 2 || numbers.size() == 3) && numbers[0] < numbers[1] && step >= 1 &&
          numbers[1] - numbers[0] <= most_values,
      "axis " + axis + ": " + in_quotes(text) +
          " is no range; write range(BEGIN,END) or range(BEGIN,END,STEP) with integers, of which "
          "END is not one of the values");
  Strings values;
  for (Index i = numbers[0]; i < numbers[1]; i += step) values.push_back(std::to_string(i));
  return values;
}

}  // namespace

Axis make_axis(const std::string& name, const Strings& values) {
  const AxisKind* kind = kind_of(name);
  require(kind != nullptr || name.find('.') != std::string::npos,
          "there is no axis " + in_quotes(name) + "; give " + alternatives(names()) +
              ", or a key of the configuration with its section, as in model.hidden_size=64,128");
  Axis axis{name, {}};
  for (const std::string& value : values) {
    const bool range = value.starts_with("range(") && value.ends_with(")");
    for (const std::string& each : range ? range_of(name, value) : Strings{value}) {
      require(!each.empty(),
              "axis " + name + " has an empty value; write " + name + "=VALUE,VALUE");
      require(kind == nullptr || takes(*kind, each), "axis " + name + " cannot take " +
                                                         in_quotes(each) + "; expected " +
                                                         (kind == nullptr ? "" : expected(*kind)));
      require(std::find(axis.values.begin(), axis.values.end(), each) == axis.values.end(),
              "axis " + name + " has the value " + in_quotes(each) + " twice; give it once");
      axis.values.push_back(each);
    }
  }
  return axis;
}

Axis parse_axis(const std::string& text) {
  const auto equals = text.find('=');
  require(equals != std::string::npos && equals > 0,
          in_quotes(text) + " is no axis; write NAME=VALUE,VALUE, as in topk=16,32,64");
  return make_axis(text.substr(0, equals), pieces_of(text.substr(equals + 1)));
}

Settings settings_of(const std::string& axis, const std::string& value) {
  const AxisKind* kind = kind_of(axis);
  if (kind == nullptr) return {{axis, value}};
  Settings set;
  for (const std::string_view key : kind->keys) set[std::string(key)] = value;
  for (const Word& word : kind->words) {
    if (word.word != value) continue;
    for (const std::string_view setting : word.settings) {
      const auto equals = setting.find('=');
      set[std::string(setting.substr(0, equals))] = setting.substr(equals + 1);
    }
  }
  return set;
}

std::string list_of_axes() {
  std::string all;
  for (const AxisKind& kind : axis_kinds())
    all += fmt::format("  {:<18} {}; {}\n", kind.name, kind.meaning, expected(kind));
  return all;
}

}  // namespace dsa::sweep
