// verify/names/pattern.hpp — the lines of a name map: PATTERN -> NAME | ADAPTERS.
//
// In a pattern {layer} and {expert} stand for numbers and * for anything; in a name {layer+dense}
// is the layer's number plus the dense layers before the first mixture of experts. # begins a
// comment. docs/localise.md.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config.hpp"

namespace dsa::verify {

/// What the placeholders stand for.
struct Numbers {
  std::optional<Index> layer, expert;
};

/// The numbers with which `name` fits the whole pattern.
std::optional<Numbers> match(const std::string& pattern, const std::string& name);

/// `name` with the numbers that there are in place of its placeholders.
std::string with_numbers(std::string name, const Numbers&, const Config&);

/// Layers before the first mixture of experts.
Index dense_layers(const Config&);

struct MapLine {
  int number = 0;
  std::string pattern, name;
  std::vector<std::string> adapters;  // their words
};

/// Calls take(line) for every line that maps something. Errors, take's too, begin with
/// "source:12: ". Error: no line does.
void for_each_line(const std::string& text, const std::string& source,
                   const std::function<void(const MapLine&)>& take);

/// The text and the source of a map: a file, or one of `built_in` by its name. Error: neither.
struct MapText {
  std::string text, source;
};
MapText open_map(const std::string& what,
                 std::span<const std::pair<std::string_view, std::string_view>> built_in);

}  // namespace dsa::verify
