#include "verify/names/name_map.hpp"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "core/trace_names.hpp"
#include "verify/built_in_names.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/names/pattern.hpp"

namespace dsa::verify {
namespace {

void check_name(const std::string& pattern, const std::string& name) {
  const bool numbered = name.find("{layer") != std::string::npos;
  require(is_traced(with_numbers(name, {.layer = 0, .expert = {}}, {})),
          fmt::format("the reference has no tensor \"{}\"; see data/README.md and docs/localise.md "
                      "for its names",
                      name));
  require(numbered == (pattern.find("{layer}") != std::string::npos),
          "\"" + pattern + "\" and \"" + name + "\" must both hold a layer number, or neither");
}

}  // namespace

NameMap NameMap::open(const std::string& what) {
  const MapText map = open_map(what, built_in_names);
  return parse(map.text, map.source);
}

NameMap NameMap::parse(const std::string& text, const std::string& source) {
  NameMap map;
  map.source_ = source;
  for_each_line(text, source, [&](const MapLine& line) {
    require(line.pattern.find("{expert}") == std::string::npos,
            "pattern \"" + line.pattern + "\" may hold {layer}, and no other braces");
    check_name(line.pattern, line.name);
    Line parsed{line.number, line.pattern, line.name, {}};
    for (const std::string& word : line.adapters) parsed.adapters.push_back(adapter_named(word));
    map.lines_.push_back(std::move(parsed));
  });
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
      const std::optional<Numbers> numbers = match(line.pattern, theirs.name);
      if (!numbers) continue;
      mapped = true;
      const std::string name = with_numbers(line.name, *numbers, config);
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
