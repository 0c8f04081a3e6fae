#include "verify/names/name_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "core/file.hpp"
#include "core/trace_names.hpp"
#include "verify/built_in_names.hpp"
#include "verify/names/dataflow.hpp"

namespace dsa::verify {
namespace {

const std::string layer = "{layer}", moe_layer = "{layer+dense}";

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

bool replace(std::string& text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  if (at != std::string::npos) text.replace(at, what.size(), by);
  return at != std::string::npos;
}

/// Whether `name` from n on fits `pattern` from p on; sets the number that {layer} stands for.
bool fits(const std::string& pattern, std::size_t p, const std::string& name, std::size_t n,
          std::optional<Index>& number) {
  if (p == pattern.size()) return n == name.size();
  if (pattern[p] == '*') {
    for (std::size_t end = n; end <= name.size(); ++end)
      if (fits(pattern, p + 1, name, end, number)) return true;
    return false;
  }
  if (pattern.compare(p, layer.size(), layer) == 0) {
    std::size_t end = n;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end == n || end - n > 6 || !fits(pattern, p + layer.size(), name, end, number))
      return false;
    number = std::stoll(name.substr(n, end - n));
    return true;
  }
  return n < name.size() && pattern[p] == name[n] && fits(pattern, p + 1, name, n + 1, number);
}

Index dense_layers(const Config& config) {
  return std::find(config.is_moe.begin(), config.is_moe.end(), true) - config.is_moe.begin();
}

/// {layer} may stand in it once, and nothing else in braces.
void check_pattern(const std::string& pattern) {
  std::string rest = pattern;
  replace(rest, layer, "");
  require(rest.find_first_of("{}") == std::string::npos,
          "pattern \"" + pattern + "\" may hold {layer} once, and no other braces");
}

void check_name(const std::string& pattern, const std::string& name) {
  std::string example = name;
  const bool numbered = replace(example, layer, "0") || replace(example, moe_layer, "0");
  require(is_traced(example),
          fmt::format("the reference has no tensor \"{}\"; see data/README.md and docs/localise.md "
                      "for its names",
                      name));
  require(numbered == (pattern.find(layer) != std::string::npos),
          "\"" + pattern + "\" and \"" + name + "\" must both hold a layer number, or neither");
}

}  // namespace

NameMap NameMap::open(const std::string& what) {
  std::string names;
  for (const auto& [name, text] : built_in_names) {
    if (what == name) return parse(std::string(text), "names/" + what + ".txt");
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  require(std::filesystem::is_regular_file(what),
          "--names \"" + what + "\" is neither a file nor one of " + names);
  return parse(read_text(what), what);
}

NameMap NameMap::parse(const std::string& text, const std::string& source) {
  NameMap map;
  map.source_ = source;
  std::istringstream in(text);
  int number = 0;
  for (std::string raw; std::getline(in, raw);) {
    ++number;
    const std::string line = trimmed(raw.substr(0, raw.find('#')));
    if (line.empty()) continue;
    try {
      const auto arrow = line.find("->");
      require(arrow != std::string::npos, "expected PATTERN -> NAME, found \"" + line + "\"");
      const std::string right = line.substr(arrow + 2);
      const auto bar = right.find('|');
      Line parsed{number, trimmed(line.substr(0, arrow)), trimmed(right.substr(0, bar)), {}};
      check_pattern(parsed.pattern);
      check_name(parsed.pattern, parsed.name);
      std::istringstream words(bar == std::string::npos ? "" : right.substr(bar + 1));
      for (std::string word; std::getline(words, word, ',');)
        parsed.adapters.push_back(adapter_named(trimmed(word)));
      map.lines_.push_back(std::move(parsed));
    } catch (const Error& e) {
      throw Error(fmt::format("{}:{}: {}", source, number, e.what()));
    }
  }
  require(!map.lines_.empty(), source + " maps nothing, expected lines PATTERN -> NAME");
  return map;
}

void NameMap::apply(Recording& recording, const Config& config) const {
  std::map<std::string, Trace::Entry> ours;
  std::map<std::string, std::string> came_from;
  const auto put = [&](Trace::Entry entry, const std::string& theirs, const std::string& where) {
    const auto [at, is_new] = came_from.emplace(entry.name, theirs);
    require(is_new,
            fmt::format("{}{} and {} of {} both become {}; make the patterns tell them apart",
                        where, at->second, theirs, recording.path.string(), entry.name));
    ours[entry.name] = std::move(entry);
  };
  for (const Trace::Entry& theirs : recording.trace.entries()) {
    bool mapped = false;
    for (const Line& line : lines_) {
      std::optional<Index> number;
      if (!fits(line.pattern, 0, theirs.name, 0, number)) continue;
      mapped = true;
      std::string name = line.name;
      if (number) {
        replace(name, layer, std::to_string(*number));
        replace(name, moe_layer, std::to_string(*number + dense_layers(config)));
      }
      try {
        const LayoutContext context{name, config, static_cast<Index>(recording.sequences.size()),
                                    recording.sequences.front().size()};
        put(laid_out(theirs, line.adapters, context), theirs.name, "");
      } catch (const Error& e) {
        throw Error(fmt::format("{}:{}: {}", source_, line.number, e.what()));
      }
    }
    if (!mapped) put(theirs, theirs.name, source_ + ": ");
  }
  recording.trace = {};
  for (auto& [name, entry] : ours) recording.trace.put(std::move(entry));
}

Recording read_named(const std::filesystem::path& path, const std::string& dtype,
                     const Config& config, const std::string& names) {
  Recording recording = read_recording(path, dtype, config.vocab_size);
  if (names.empty()) return recording;
  NameMap::open(names).apply(recording, config);
  const Trace::Entry* head = recording.trace.find(names::lm_head);
  if (!recording.logits.empty() || head == nullptr) return recording;
  recording.logits.push_back(head->values());
  const Shape<2> want{recording.sequences.front().size(), config.vocab_size};
  require(recording.logits.front().shape() == want,
          fmt::format("{}: lm_head has shape {}, expected {}, a row for every token", path.string(),
                      to_string<2>(recording.logits.front().shape()), to_string<2>(want)));
  recording.dtype = column_name(head->dtype);
  return recording;
}

}  // namespace dsa::verify
