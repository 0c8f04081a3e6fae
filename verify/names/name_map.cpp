#include "verify/names/name_map.hpp"

#include <algorithm>
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
  require(is_traced(example), "the reference has no tensor \"" + name + "\"; see data/README.md " +
                                  "and docs/localise.md for its names");
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
      throw Error(source + ":" + std::to_string(number) + ": " + e.what());
    }
  }
  require(!map.lines_.empty(), source + " maps nothing, expected lines PATTERN -> NAME");
  return map;
}

void NameMap::apply(Recording& golden, const Config& config) const {
  std::map<std::string, const StoredTensor*> ours;
  std::map<std::string, std::string> came_from;
  const auto put = [&](const std::string& name, const StoredTensor* tensor,
                       const std::string& theirs, const std::string& where) {
    const auto [at, is_new] = came_from.emplace(name, theirs);
    require(is_new, where + at->second + " and " + theirs + " of " + golden.path.string() +
                        " both become " + name + "; make the patterns tell them apart");
    ours[name] = tensor;
  };
  for (const auto& [theirs, stored] : golden.traces) {
    bool mapped = false;
    for (const Line& line : lines_) {
      std::optional<Index> number;
      if (!fits(line.pattern, 0, theirs, 0, number)) continue;
      mapped = true;
      std::string name = line.name;
      if (number) {
        replace(name, layer, std::to_string(*number));
        replace(name, moe_layer, std::to_string(*number + dense_layers(config)));
      }
      const std::string where = source_ + ":" + std::to_string(line.number) + ": ";
      try {
        const LayoutTold told{name, config, static_cast<Index>(golden.sequences.size()),
                              golden.sequences.front().size()};
        const auto tensor = std::make_shared<OwnTensor>(laid_out(*stored, line.adapters, told));
        tensor->data = tensor->bytes.data();
        golden.laid_out.push_back(tensor);
        put(name, tensor.get(), theirs, "");
      } catch (const Error& e) {
        throw Error(where + e.what());
      }
    }
    if (!mapped) put(theirs, stored, theirs, source_ + ": ");
  }
  golden.traces = std::move(ours);
}

Recording read_named(const std::filesystem::path& path, const std::string& dtype,
                     const Config& config, const std::string& names) {
  Recording golden = read_recording(path, dtype, config.vocab_size);
  if (names.empty()) return golden;
  NameMap::open(names).apply(golden, config);
  const auto head = golden.traces.find(names::lm_head);
  if (!golden.logits.empty() || head == golden.traces.end()) return golden;
  golden.logits.push_back(trace_values(*head->second));
  const Shape<2> want{golden.sequences.front().size(), config.vocab_size};
  require(golden.logits.front().shape() == want,
          path.string() + ": lm_head has shape " + to_string<2>(golden.logits.front().shape()) +
              ", expected " + to_string<2>(want) + ", a row for every token");
  golden.dtype = column_name(head->second->dtype);
  return golden;
}

}  // namespace dsa::verify
