#include "verify/names/pattern.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "core/file.hpp"

namespace dsa::verify {
namespace {

const std::string layer = "{layer}", moe_layer = "{layer+dense}", expert = "{expert}";

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

void replace(std::string& text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  if (at != std::string::npos) text.replace(at, what.size(), by);
}

/// Whether `name` from n on fits `pattern` from p on.
bool fits(const std::string& pattern, std::size_t p, const std::string& name, std::size_t n,
          Numbers& numbers) {
  if (p == pattern.size()) return n == name.size();
  if (pattern[p] == '*') {
    for (std::size_t end = n; end <= name.size(); ++end)
      if (fits(pattern, p + 1, name, end, numbers)) return true;
    return false;
  }
  for (const auto& [word, number] :
       {std::pair(&layer, &numbers.layer), std::pair(&expert, &numbers.expert)}) {
    if (pattern.compare(p, word->size(), *word) != 0) continue;
    std::size_t end = n;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end == n || end - n > 6 || !fits(pattern, p + word->size(), name, end, numbers))
      return false;
    *number = std::stoll(name.substr(n, end - n));
    return true;
  }
  return n < name.size() && pattern[p] == name[n] && fits(pattern, p + 1, name, n + 1, numbers);
}

/// Each placeholder may stand in it once, and nothing else in braces.
void check_pattern(const std::string& pattern) {
  std::string rest = pattern;
  replace(rest, layer, "");
  replace(rest, expert, "");
  require(
      rest.find_first_of("{}") == std::string::npos,
      "pattern \"" + pattern + "\" may hold {layer} and {expert} once each, and no other braces");
}

MapLine parsed(const std::string& line, int number) {
  const auto arrow = line.find("->");
  require(arrow != std::string::npos, "expected PATTERN -> NAME, found \"" + line + "\"");
  const std::string right = line.substr(arrow + 2);
  const auto bar = right.find('|');
  MapLine out{number, trimmed(line.substr(0, arrow)), trimmed(right.substr(0, bar)), {}};
  check_pattern(out.pattern);
  std::istringstream words(bar == std::string::npos ? "" : right.substr(bar + 1));
  for (std::string word; std::getline(words, word, ',');) out.adapters.push_back(trimmed(word));
  return out;
}

}  // namespace

std::optional<Numbers> match(const std::string& pattern, const std::string& name) {
  Numbers numbers;
  if (!fits(pattern, 0, name, 0, numbers)) return std::nullopt;
  return numbers;
}

std::string with_numbers(std::string name, const Numbers& numbers, const Config& config) {
  if (numbers.layer) {
    replace(name, layer, std::to_string(*numbers.layer));
    replace(name, moe_layer, std::to_string(*numbers.layer + dense_layers(config)));
  }
  if (numbers.expert) replace(name, expert, std::to_string(*numbers.expert));
  return name;
}

Index dense_layers(const Config& config) {
  return std::find(config.is_moe.begin(), config.is_moe.end(), true) - config.is_moe.begin();
}

void for_each_line(const std::string& text, const std::string& source,
                   const std::function<void(const MapLine&)>& take) {
  std::istringstream in(text);
  int number = 0;
  bool any = false;
  for (std::string raw; std::getline(in, raw);) {
    ++number;
    const std::string line = trimmed(raw.substr(0, raw.find('#')));
    if (line.empty()) continue;
    any = true;
    try {
      take(parsed(line, number));
    } catch (const Error& e) {
      throw Error(fmt::format("{}:{}: {}", source, number, e.what()));
    }
  }
  require(any, source + " maps nothing, expected lines PATTERN -> NAME");
}

MapText open_map(const std::string& what,
                 std::span<const std::pair<std::string_view, std::string_view>> built_in) {
  std::string names;
  for (const auto& [name, text] : built_in) {
    if (what == name) return {std::string(text), "names/" + what + ".txt"};
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  require(std::filesystem::is_regular_file(what),
          "--names \"" + what + "\" is neither a file nor one of " + names);
  return {read_text(what), what};
}

}  // namespace dsa::verify
