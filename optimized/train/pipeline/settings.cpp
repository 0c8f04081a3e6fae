#include "optimized/train/pipeline/settings.hpp"

#include <algorithm>
#include <charconv>

#include "core/check.hpp"
#include "core/file.hpp"
#include "core/words.hpp"
#include "optimized/train/pipeline/aliases.hpp"
#include "optimized/train/pipeline/keys.hpp"
#include "optimized/train/pipeline/toml.hpp"

namespace dsa::train {

/// Puts values into Settings: first those of the file, then overrides, defaults last.
class SettingsReader {
 public:
  SettingsReader(Settings& settings, std::string name)
      : settings_(settings), name_(std::move(name)) {}

  void file(const TomlFile& file) {
    require(file.stages > 0,
            name_ +
                " has no [[stage]]; give one a stage of the training, kind = \"pretrain\", "
                "\"warmup\", \"sparse\", \"sft\" or \"lora\"");
    settings_.stages_.resize(static_cast<std::size_t>(file.stages));
    for (const TomlEntry& e : file.entries) {
      const std::string where = name_ + ":" + std::to_string(e.line);
      const std::string key = e.section.empty() ? e.key : e.section + "." + e.key;
      std::vector<std::size_t> stages;
      if (e.stage >= 0) stages = {static_cast<std::size_t>(e.stage)};
      set(key, e.key, e.value, where, where, stages.empty() ? every_stage() : stages);
    }
  }

  /// "section.key=value", or "alias=value".
  void override_by(const std::string& text) {
    const auto equals = text.find('=');
    require(equals != std::string::npos && equals > 0,
            "the command line: \"" + text + "\" is no override, expected section.key=value");
    const std::string name = text.substr(0, equals), word = text.substr(equals + 1);
    const auto [key, stages] = addressed(name);
    const Key* known = find_key(key);
    const bool as_it_is =
        known && (known->kind == Key::Kind::text || known->kind == Key::Kind::word);
    const Json value = as_it_is && !word.starts_with('"') && !word.starts_with('\'')
                           ? Json(word)
                           : toml_value(word);
    set(key, key, value, "the command line", "command line", stages);
  }

  void defaults() {
    for (const Key& key : all_keys()) {
      if (!key.name.starts_with("stage.")) {
        settings_.values_.try_emplace(key.name, Settings::Value{fallback_of(key, ""), "default"});
        continue;
      }
      for (auto& stage : settings_.stages_) {
        const auto kind = stage.find("stage.kind");  // the first key of a stage: given by now
        const std::string name =
            kind == stage.end() ? "sparse" : kind->second.value.get<std::string>();
        stage.try_emplace(key.name, Settings::Value{fallback_of(key, name), "default"});
      }
    }
  }

 private:
  std::vector<std::size_t> every_stage() const {
    std::vector<std::size_t> all(settings_.stages_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    return all;
  }

  bool is_called(std::size_t stage, const std::string& name) const {
    for (const char* key : {"stage.name", "stage.kind"}) {
      const auto at = settings_.stages_[stage].find(key);
      if (at != settings_.stages_[stage].end() && at->second.value == name) return true;
    }
    return false;
  }

  /// "stage[1].lr" or "stage.NAME.lr" as {"stage.lr", the stages}.
  std::pair<std::string, std::vector<std::size_t>> addressed(const std::string& name) const {
    const auto dot = name.rfind('.');
    if (!name.starts_with("stage") || dot == std::string::npos) return {name, every_stage()};
    const std::string at = name.substr(5, dot - 5), key = "stage" + name.substr(dot);
    if (at.empty()) return {key, every_stage()};
    std::vector<std::size_t> stages;
    std::size_t number = 0;
    const char* end = at.data() + at.size() - 1;
    if (at.front() == '[' && *end == ']' &&
        std::from_chars(at.data() + 1, end, number).ptr == end && number < settings_.stages_.size())
      stages.push_back(number);
    for (std::size_t i = 0; at.front() == '.' && i < settings_.stages_.size(); ++i)
      if (is_called(i, at.substr(1))) stages.push_back(i);
    require(!stages.empty(), "the command line: " + name + " names no stage; there are " +
                                 std::to_string(settings_.stages_.size()) +
                                 ", counted from 0: stage[0].lr, or by name or kind");
    return {key, stages};
  }

  void put(const std::string& key, const Json& value, const std::string& where,
           const std::string& source, const std::vector<std::size_t>& stages) {
    const Settings::Value checked_value{checked(*find_key(key), value, where), source};
    if (!key.starts_with("stage.")) {
      settings_.values_[key] = checked_value;
      return;
    }
    for (const std::size_t stage : stages) settings_.stages_[stage][key] = checked_value;
  }

  void set(const std::string& key, const std::string& bare, const Json& value,
           const std::string& where, const std::string& source,
           const std::vector<std::size_t>& stages) {
    if (find_key(key) != nullptr) return put(key, value, where, source, stages);
    const auto meaning = meaning_of(bare, value, where);
    require(meaning.has_value(),
            where + ": there is no key " + key + "; did you mean " + nearest_key(key) + "?");
    for (const auto& [ours, translated] : *meaning)
      put(ours, translated, where, source + ", as " + bare, stages);
  }

  Settings& settings_;
  std::string name_;
};

Settings Settings::parse(const std::string& text, const std::string& name,
                         const std::vector<std::string>& overrides) {
  Settings settings;
  SettingsReader reader(settings, name);
  reader.file(parse_toml(text, name));
  for (const std::string& one : overrides) reader.override_by(one);
  reader.defaults();
  return settings;
}

Settings Settings::read(const std::filesystem::path& file,
                        const std::vector<std::string>& overrides) {
  return parse(read_text(file), file.filename().string(), overrides);
}

const Json& Settings::at(const std::string& key) const { return values_.at(key).value; }

const Json& Settings::at(std::size_t stage, const std::string& key) const {
  return stages_.at(stage).at("stage." + key).value;
}

}  // namespace dsa::train
