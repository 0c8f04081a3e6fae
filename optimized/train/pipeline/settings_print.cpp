// What --print-config prints, config.toml of a run, and the difference of two configurations.
#include <fmt/format.h>

#include "optimized/train/pipeline/keys.hpp"
#include "optimized/train/pipeline/settings.hpp"
#include "optimized/train/pipeline/toml.hpp"

namespace dsa::train {
namespace {

std::string section_of(const std::string& key) { return key.substr(0, key.find('.')); }
std::string name_in_section(const std::string& key) { return key.substr(key.find('.') + 1); }

std::string type_of(const Key& key) {
  constexpr const char* names[] = {"integer", "number", "boolean", "text",
                                   "word",    "texts",  "numbers", "integers"};
  return names[static_cast<std::size_t>(key.kind)];
}

std::string line_of(const Key& key, const Settings::Value& v, const Json& fallback) {
  std::string line = fmt::format("{} = {}", name_in_section(key.name), to_toml(v.value));
  line += std::string(line.size() < 34 ? 34 - line.size() : 1, ' ');
  line += fmt::format("# {}", type_of(key));
  if (v.source != "default") line += ", default " + to_toml(fallback);
  return line + ", " + v.source + ": " + key.about + "\n";
}

/// Calls f(text of a heading) before each section or stage, and g(key, value) for every key.
template <class Values, class Stages, class F, class G>
void for_each_value(const Values& values, const Stages& stages, F&& heading, G&& entry) {
  std::string section;
  for (const Key& key : all_keys()) {
    if (key.name.starts_with("stage.")) continue;
    if (section_of(key.name) != section) heading("[" + (section = section_of(key.name)) + "]");
    entry(key, values.at(key.name), fallback_of(key, ""));
  }
  for (const auto& stage : stages) {
    heading("[[stage]]");
    const std::string kind = stage.at("stage.kind").value.template get<std::string>();
    for (const Key& key : all_keys())
      if (key.name.starts_with("stage.")) entry(key, stage.at(key.name), fallback_of(key, kind));
  }
}

}  // namespace

std::string Settings::print() const {
  std::string all;
  for_each_value(
      values_, stages_,
      [&](const std::string& heading) { all += (all.empty() ? "" : "\n") + heading + "\n"; },
      [&](const Key& key, const Value& v, const Json& fallback) {
        all += line_of(key, v, fallback);
      });
  return all;
}

std::string Settings::toml() const {
  std::string all = "# Every key of the run, as dsa-train understood it.\n";
  for_each_value(
      values_, stages_, [&](const std::string& heading) { all += "\n" + heading + "\n"; },
      [&](const Key& key, const Value& v, const Json&) {
        all += name_in_section(key.name) + " = " + to_toml(v.value) + "\n";
      });
  return all;
}

Json Settings::that_changes_numbers() const {
  Json all = Json::object();
  for (const Key& key : all_keys()) {
    if (!key.changes_numbers) continue;
    if (!key.name.starts_with("stage.")) {
      all[key.name] = values_.at(key.name).value;
      continue;
    }
    for (std::size_t i = 0; i < stages_.size(); ++i)
      all[fmt::format("stage[{}].{}", i, name_in_section(key.name))] =
          stages_[i].at(key.name).value;
  }
  return all;
}

std::string difference(const Json& now, const Json& before) {
  std::string all;
  const auto note = [&](const std::string& sentence) {
    all += (all.empty() ? "" : "; ") + sentence;
  };
  for (const auto& [key, value] : now.items()) {
    if (!before.contains(key))
      note(key + ": " + to_toml(value) + ", was absent");
    else if (before[key] != value)
      note(key + ": " + to_toml(value) + ", was " + to_toml(before[key]));
  }
  for (const auto& [key, value] : before.items())
    if (!now.contains(key)) note(key + ": absent, was " + to_toml(value));
  return all;
}

}  // namespace dsa::train
